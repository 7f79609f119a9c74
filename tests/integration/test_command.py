"""The command `adaptml` against a cloud, as a person or a script calls it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from adaptml.cli import app
from adaptml.commands import deployment
from adaptml.services import Services
from schemas.run_states import RunState
from tests.cloud import TestCloud, chat_rows, eventually, manifest

S = RunState


class Called:
    """What a call said."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    def json(self) -> Any:
        return json.loads(self.out)

    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def adaptml(cloud: TestCloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Calls the command in this process, which has Google's clients already; `installed` calls the console script."""

    def call(*words: str | Path, tenant: str = "acme", installed: bool = False) -> Called:
        named = {"ADAPTML_TENANT": tenant, "COLUMNS": "200"}
        if installed:
            cloud.environment |= named
            done = cloud.command(str(Path(".venv/bin/adaptml").absolute()), *map(str, words), check=False)
            return Called(done.returncode, done.stdout, done.stderr)
        result = CliRunner().invoke(app, [str(word) for word in words], env=cloud.environment | named)
        return Called(result.exit_code, result.stdout, result.stderr)

    monkeypatch.setattr(deployment.out, "width", 200)
    Services.from_env.cache_clear()
    yield call
    Services.from_env.cache_clear()


def folder(at: Path, rows: int = 12, **settings: Any) -> Path:
    at.mkdir(exist_ok=True)
    (at / "train.jsonl").write_text(chat_rows(rows))
    (at / "manifest.yaml").write_text(manifest(**settings))
    return at


def test_a_drop_is_copied_followed_promoted_compared_and_rolled_back(adaptml: Any, tmp_path: Path) -> None:
    dropped = folder(tmp_path / "said")
    (dropped / "notes.txt").write_text("not for the bucket")
    first = adaptml("drop", dropped, "--json", installed=True)
    assert first.status == 0, first.err
    states = [line["state"] for line in first.lines()]
    assert states[-1] == "SUCCEEDED"
    assert first.lines()[-1]["version"] == 1
    second = adaptml("drop", folder(dropped, rows=15, lora={"r": 4}))
    assert second.status == 0
    assert "SUCCEEDED" in second.out.splitlines()[-1]

    listed = adaptml("runs", "--name", "said", "--json").lines()
    assert [run["version"] for run in listed] == [2, 1]
    older = adaptml("runs", "--name", "said", "--after", listed[0]["run_id"], "--json").lines()
    assert [run["run_id"] for run in older] == [listed[1]["run_id"]]
    assert adaptml("runs", "--name", "said", "--state", "FAILED").out == "no runs\n"

    assert adaptml("promote", "said", "v1").out == "prod of acme/said points at v1\n"
    assert adaptml("promote", "said", "--json").json()["aliases"] == {"prod": 2}
    assert adaptml("promote", "said", "prod", "--alias", "canary").out == "canary of acme/said points at v2\n"
    assert adaptml("rollback", "said").out == "prod of acme/said points at v1\n"
    once_more = adaptml("rollback", "said")
    assert (once_more.status, "[nothing_to_roll_back]" in once_more.err) == (1, True)
    shown = adaptml("adapters", "said", "--json").json()
    assert shown["aliases"] == {"prod": 1, "canary": 2, "latest": 2}
    assert [version["train_examples"] for version in shown["versions"]] == [12, 15]
    assert "canary, latest" in adaptml("adapters", "said").out
    assert "said" in adaptml("adapters").out

    compared = adaptml("compare", "said", "prod", "latest", "--json").json()
    assert [one["what"] for one in compared["settings"]] == ["lora.r"]
    assert "train: train.jsonl" in [one["what"] for one in compared["data"]]
    assert "lora.r" in adaptml("compare", "said", "v1", "v2").out


def test_what_happened_is_told_with_what_was_logged(adaptml: Any, tmp_path: Path) -> None:
    assert adaptml("drop", folder(tmp_path / "told")).status == 0
    lines = adaptml("logs", "told", "--json").lines()
    told = [line["message"].partition(":")[0] for line in lines if line["severity"] == "STATE"]
    assert told == ["RECEIVED", "VALIDATING", "QUEUED", "STARTING", "TRAINING", "EVALUATING", "SUCCEEDED"]
    assert {"intake", "trainer"} <= {line["where"] for line in lines}
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
    assert "SUCCEEDED" in adaptml("logs", "told").out


def test_a_run_that_fails_is_told_and_makes_the_call_fail(adaptml: Any, tmp_path: Path) -> None:
    refused = adaptml("drop", folder(tmp_path / "refused", labels={"fault": "refuse"}))
    assert refused.status == 1
    assert "[nothing_to_train_on]" in refused.err
    assert adaptml("watch", "refused").status == 1


def test_a_run_is_cancelled_and_taken_up(adaptml: Any, cloud: TestCloud, tmp_path: Path) -> None:
    slow = {"steps": "200", "pause": "0.2", "checkpoints": "yes"}
    run_id = adaptml("drop", folder(tmp_path / "slow", labels=slow), "--no-watch").out.strip()
    cloud.wait(run_id, S.TRAINING)
    eventually(lambda: cloud.services.runs.get(run_id).checkpoint)
    assert adaptml("watch", run_id, "--within", "0.5").status == 3
    assert adaptml("cancel", "slow").out.startswith(f"{run_id} is asked to end")
    assert cloud.wait(run_id).state is S.CANCELLED
    assert adaptml("cancel", run_id, "--json").json() == {"run_id": run_id, "state": "CANCELLED"}
    taken_up = adaptml("resume", run_id, "--json").json()["run_id"]
    assert cloud.wait(taken_up, S.STARTING, S.TRAINING).source.resumes == run_id
    adaptml("cancel", taken_up)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("watch", "nothing"), 1, "acme has no run nothing"),
        (("promote", "nothing"), 1, "[unknown_adapter]"),
        (("runs", "--after", "acme-none-0123456789"), 1, "acme has no run acme-none"),
        (("drop", "no-such-folder"), 2, "is not a folder"),
        (("runs", "--state", "DONE"), 2, "Invalid value"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(adaptml: Any, words: tuple[str, ...], status: int, said: str) -> None:
    called = adaptml(*words)
    assert (called.status, said in called.err) == (status, True), called.err


def test_a_tenant_sees_no_run_of_another(adaptml: Any, cloud: TestCloud, tmp_path: Path) -> None:
    run_id = adaptml("drop", folder(tmp_path / "mine"), "--no-watch").out.strip()
    cloud.wait(run_id, S.SUCCEEDED)
    for words in (("watch", run_id), ("logs", run_id), ("cancel", run_id), ("adapters", "mine")):
        assert adaptml(*words, tenant="other").status == 1


def test_a_drop_without_its_data_is_not_copied(adaptml: Any, cloud: TestCloud, tmp_path: Path) -> None:
    dropped = folder(tmp_path / "half")
    (dropped / "train.jsonl").unlink()
    called = adaptml("drop", dropped)
    assert (called.status, "[file_not_found]" in called.err) == (1, True)
    assert cloud.read("acme/half/manifest.yaml") is None


def test_a_deployment_is_examined(adaptml: Any) -> None:
    called = adaptml("doctor", "--json")
    found = {line["what"]: line["verdict"] for line in called.lines()}
    for what in ("Firestore", "drops bucket", "artifacts bucket", "base models", "topics", "trainer's job", "GPUs"):
        assert found[what] == "good", called.out
    assert called.status == (1 if "bad" in found.values() else 0)
