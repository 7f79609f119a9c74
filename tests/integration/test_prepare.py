"""Preparing base models from a hub: the hub's own client, over HTTP, against a hub that has faults on demand."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest

from adaptml.secret import EMULATOR_HOST
from schemas.catalogue import BaseModelRow
from schemas.errors import Refused
from tests.cloud import ROOT
from tests.hub import TOKEN, Repository, TestHub, serving
from tests.secrets import holding
from tests.unit.exported import CPU, ROWS, small
from trainer import prepared
from trainer.hub import Hub
from trainer.model import chat_tokenizer, load_base
from trainer.prepare import Source, main, prepare
from trainer.prepared import MODELS_DIR, is_prepared

OPEN, GATED = ROWS["qwen2"], ROWS["gemma"]
SECRET = "projects/p/secrets/hub/versions/latest"
UNWANTED = {
    "pytorch_model.bin": b"pickle",
    "modeling_own.py": b"raise SystemExit",
    "consolidated.safetensors": b"the same weights again",
    "model.gguf": b"and again",
    "onnx/model.safetensors": b"in a folder",
    "README.md": b"a card",
}


def repository(row: BaseModelRow, into: Path) -> Repository:
    made = small(row.architecture.model_type, lambda *_: None, into)
    files = {path.name: path.read_bytes() for path in made.base.iterdir()}
    own = {name: files[name] for name in files if name not in {"SHA256SUMS", prepared.ORIGIN}}
    assert row.revision is not None
    return Repository(row.id, row.revision, {**own, "LICENSE": b"as is", **UNWANTED}, row.gated)


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_ENDPOINT", EMULATOR_HOST):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[TestHub]:
    with serving(repository(OPEN, tmp_path / "open"), repository(GATED, tmp_path / "gated")) as served:
        yield served


def problem_of(row: BaseModelRow, hub: TestHub, into: Path, token: str | None = None) -> tuple[str, str]:
    with pytest.raises(Refused) as refused:
        Hub(token, hub.url).download(row, into)
    (found,) = refused.value.problems
    return found.code, str(found)


def command(hub: TestHub, *arguments: str | Path, **env: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "trainer.prepare", *map(str, arguments)]
    environment = os.environ | {"HF_ENDPOINT": hub.url} | env
    return subprocess.Popen(
        words, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def test_only_weights_without_pickle_configuration_tokenizer_and_licence_are_asked_for(
    hub: TestHub, tmp_path: Path
) -> None:
    names = Hub(None, hub.url).download(OPEN, tmp_path / "m")
    assert not set(hub.asked) & set(UNWANTED)
    assert {"config.json", "tokenizer.json", "LICENSE", "model.safetensors.index.json"} <= set(names)
    for name in names:
        assert (tmp_path / "m" / name).read_bytes() == hub.repositories[OPEN.id].files[name]


def test_what_is_there_is_not_fetched_again(hub: TestHub, tmp_path: Path) -> None:
    for _ in range(2):
        Hub(None, hub.url).download(OPEN, tmp_path / "m")
    assert set(hub.asked.values()) == {1}


@pytest.mark.parametrize("name", ["model-00001-of-00003.safetensors", "config.json"])
def test_a_file_that_is_not_what_the_hub_says_is_deleted_and_told(hub: TestHub, tmp_path: Path, name: str) -> None:
    name = (
        name
        if name in hub.repositories[OPEN.id].files
        else next(file for file in hub.repositories[OPEN.id].files if file.startswith("model-00001"))
    )
    true = hub.repositories[OPEN.id].files[name]
    hub.sent[name] = bytes([true[0] ^ 1]) + true[1:]
    code, text = problem_of(OPEN, hub, tmp_path / "m")
    assert code == "model_file_differs"
    assert name in text
    assert not (tmp_path / "m" / name).exists()
    hub.sent.clear()
    Hub(None, hub.url).download(OPEN, tmp_path / "m")
    assert (tmp_path / "m" / name).read_bytes() == true


def test_a_download_that_is_always_cut_off_is_told(
    hub: TestHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    hub.cut.add("tokenizer.json")
    code, _ = problem_of(OPEN, hub, tmp_path / "m")
    assert code in {"hub_unreachable", "model_file_differs"}
    assert not (tmp_path / "m" / "tokenizer.json").exists()
    hub.cut.clear()
    Hub(None, hub.url).download(OPEN, tmp_path / "m")


@pytest.mark.parametrize(("token", "why"), [(None, "no token was given"), ("hf_of_another", "has not accepted")])
def test_a_gated_model_asks_to_accept_conditions_and_for_a_token(
    hub: TestHub, tmp_path: Path, token: str | None, why: str
) -> None:
    code, text = problem_of(GATED, hub, tmp_path / "m", token)
    assert code == "model_gated"
    assert why in text
    assert f"https://huggingface.co/{GATED.id}" in text
    assert "--token-secret or HF_TOKEN" in text
    assert "hf_" not in text.lower().replace("hf_token", "")


def test_a_revision_that_the_hub_does_not_have_is_told(hub: TestHub, tmp_path: Path) -> None:
    code, text = problem_of(OPEN.model_copy(update={"revision": "0" * 40}), hub, tmp_path / "m")
    assert (code, "0" * 40 in text) == ("model_revision_missing", True)


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "model"])
def test_a_model_without_what_is_needed_is_told(hub: TestHub, tmp_path: Path, name: str) -> None:
    files = hub.repositories[OPEN.id].files
    for file in [file for file in files if file.startswith(name)]:
        del files[file]
    assert problem_of(OPEN, hub, tmp_path / "m")[0] == "model_incomplete"
    assert not hub.asked


def test_a_disk_that_is_too_small_is_told_before_anything_is_downloaded(
    hub: TestHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 0))
    assert problem_of(OPEN, hub, tmp_path / "m")[0] == "models_disk_full"
    assert not hub.asked


def test_a_hub_that_cannot_be_used_is_told(hub: TestHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    hub.is_down = True
    assert problem_of(OPEN, hub, tmp_path / "m")[0] == "hub_unreachable"
    hub.url = "http://127.0.0.1:9"
    assert problem_of(OPEN, hub, tmp_path / "m")[0] == "hub_unreachable"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    code, text = problem_of(OPEN, hub, tmp_path / "m")
    assert (code, "HF_HUB_OFFLINE" in text) == ("hub_unreachable", True)


def test_the_secrets_token_comes_before_the_environments_and_both_are_stripped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment = {"HF_TOKEN": " of-the-environment\n"}
    assert Source(env=environment).token() == "of-the-environment"
    assert Source(env={"HF_TOKEN": "\n"}).token() is None
    assert Source(env={}).token() is None
    with holding(SECRET, b"\tof-the-secret \r\n") as host:
        monkeypatch.setenv(EMULATOR_HOST, host)
        assert Source(SECRET, environment).token() == "of-the-secret"


@pytest.mark.parametrize(
    ("value", "crc32c", "version", "why"),
    [
        (b"x", None, "projects/p/secrets/other/versions/1", "no such version"),
        (b"x", 1, SECRET, "damaged"),
        (b"\xff\xfe", None, SECRET, "no text"),
    ],
)
def test_a_secret_that_cannot_be_read_is_told(
    value: bytes, crc32c: int | None, version: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with holding(SECRET, value, crc32c=crc32c) as host:
        monkeypatch.setenv(EMULATOR_HOST, host)
        with pytest.raises(Refused) as refused:
            Source(version).token()
    (found,) = refused.value.problems
    assert found.code == "model_token_unreadable"
    assert why in found.message


@pytest.mark.slow
def test_a_gated_model_is_prepared_by_the_command_and_trained_on(
    hub: TestHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with holding(SECRET, f"{TOKEN}\n".encode()) as host:
        process = command(
            hub, GATED.id, "--into", tmp_path / "models", "--token-secret", SECRET, **{EMULATOR_HOST: host}
        )
        output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert hub.tokens == {TOKEN}
    assert TOKEN not in output
    folder = tmp_path / "models" / GATED.folder
    assert is_prepared(folder, GATED)
    subprocess.run(["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"], cwd=folder, check=True)
    assert {path.name for path in folder.iterdir()} & {".hub", *UNWANTED} == set()
    for name, content in hub.repositories[GATED.id].files.items():
        if name.endswith(".safetensors") and name.startswith("model-"):
            assert (folder / name).read_bytes() == content
    monkeypatch.setenv(MODELS_DIR, str(tmp_path / "models"))
    load_base(GATED, quantise=True, device=CPU)
    chat_tokenizer(GATED)

    asked = hub.asked.total()
    assert main([GATED.id, "--into", str(tmp_path / "models")]) == 0
    assert hub.asked.total() == asked


@pytest.mark.slow
def test_a_download_goes_on_after_the_process_was_killed(hub: TestHub, tmp_path: Path) -> None:
    models = tmp_path / "models"
    hub.stalls.add("tokenizer.json")
    process = command(hub, OPEN.id, "--into", models)
    assert hub.standing.wait(60)
    others = [name for name in hub.repositories[OPEN.id].files if name.startswith("model-")]
    work = models / f".{OPEN.folder}.preparing" / ".hub"
    for _ in range(600):
        if all((work / name).is_file() for name in others):
            break
        process.poll()
        hub.go_on.wait(0.05)
    process.kill()
    process.communicate(timeout=60)
    assert not (models / OPEN.folder).exists()
    hub.stalls.clear()
    hub.go_on.set()
    assert prepare(OPEN, models, Source(env={"HF_ENDPOINT": hub.url}))
    assert is_prepared(models / OPEN.folder, OPEN)
    assert {hub.asked[name] for name in others} == {1}
    assert not list(models.rglob("*.incomplete"))
    assert not prepare(OPEN, models, Source(env={"HF_ENDPOINT": "http://127.0.0.1:9"}))


def test_one_model_that_fails_keeps_no_other_from_being_prepared(
    hub: TestHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setattr("trainer.prepare._quantise", lambda folder, *_: (folder / "config.json").write_text("{}"))
    assert main([GATED.id, OPEN.id, "--into", str(tmp_path)]) == 1
    assert "[model_gated]" in capsys.readouterr().out
    assert (tmp_path / OPEN.folder / "config.json").is_file()


def test_a_model_that_the_catalogue_lacks_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["acme/model"], ["--to", "gs://bucket/folder"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
    assert "not in the catalogue" in capsys.readouterr().err
