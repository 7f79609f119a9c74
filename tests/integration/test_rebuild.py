"""Firestore is lost, and its documents come back."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from google.cloud import firestore

from adaptml import adapters
from adaptml.rebuild import plan
from schemas import layout
from schemas.adapter import Adapter, AdapterState, Move
from schemas.run import Run
from schemas.run_states import RunState
from tests import forked
from tests.apart import cloud_apart
from tests.cloud import ARTIFACTS, PROJECT, TestCloud, chat_rows, eventually, manifest

S = RunState
SWEEP_S = 7
Documents = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCloud]:
    with cloud_apart(
        tmp_path_factory.mktemp("lost"),
        ADAPTML_TRAINER_COMMAND=forked.command("tests.recorded_trainer"),
        ADAPTML_SETTLE_S="1",
        ADAPTML_STUCK_AFTER_S="5",
        ADAPTML_LOCAL_TICK_S="1",
        ADAPTML_GPU_QUOTA="2",
    ) as started:
        yield started


def start(cloud: TestCloud, name: str, *, attempts: int = 3, rows: int = 12, **labels: str) -> str:
    cloud.put(f"acme/{name}/train.jsonl", chat_rows(rows))
    text = manifest(labels=labels, compute={"max_attempts": attempts})
    return cloud.run_id("acme", name, cloud.put(f"acme/{name}/manifest.yaml", text))


def documents() -> Documents:
    """Every document: path → fields."""
    client = firestore.Client(project=PROJECT)
    found: Documents = {}
    for collection in client.collections():
        for document in collection.stream():
            found[document.reference.path] = document.to_dict()
            for below in document.reference.collections():
                found |= {one.reference.path: one.to_dict() for one in below.stream()}
    return found


def lasting(fields: dict[str, Any]) -> dict[str, Any]:
    """All but when a run was last looked after: the sweep notes that, no audit trail does, and what it did it may do
    again."""
    return {name: value for name, value in fields.items() if name not in ("updated_at", "sweep_at")}


def lose_everything() -> None:
    url = f"http://{os.environ['FIRESTORE_EMULATOR_HOST']}/emulator/v1/projects/{PROJECT}/databases/(default)/documents"
    requests.delete(url, timeout=30).raise_for_status()


def rebuild(cloud: TestCloud, *options: str) -> tuple[int, str]:
    done = cloud.command(sys.executable, "-m", "adaptml.cli", "rebuild", *options, check=False)
    return done.returncode, done.stdout + done.stderr


def versions(cloud: TestCloud, name: str) -> set[str]:
    return {file.partition("/")[0] for file in cloud.names(f"acme/{name}/") if file.startswith("v")}


def _aliases(cloud: TestCloud, moved: int) -> tuple[Adapter, list[Move]] | None:
    """The adapter `done`, once its aliases were moved so often and the bucket knows of it, too."""
    shown = adapters.show(cloud.services, "acme", "done")
    told = AdapterState.model_validate_json(cloud.read(layout.aliases_object("acme", "done"), ARTIFACTS) or "")
    # The adapter and its moves are read one after the other: a move may have come between.
    counts = {shown.adapter.alias_revision, len(shown.moves), len(told.moves)}
    return (shown.adapter, shown.moves) if counts == {moved} else None


def settled(cloud: TestCloud, run_id: str) -> Run:
    eventually(lambda: not cloud.services.runs.get(run_id).outbox_pending)
    return cloud.services.runs.get(run_id)


def test_runs_come_back_as_they_were_and_open_ones_reach_their_ends(cloud: TestCloud) -> None:
    done = start(cloud, "done")
    cloud.wait(done, S.SUCCEEDED)
    done_again = start(cloud, "done", rows=13)
    published = start(cloud, "published")
    failed = start(cloud, "failed", attempts=1, fault="raise")
    cloud.put("acme/rejected/manifest.yaml", "nonsense: true\n")
    ended = [done, done_again, published, failed]
    for run_id in ended:
        assert cloud.wait(run_id).state.is_final
        settled(cloud, run_id)
    cloud.put("acme/done/PROMOTE", "v1")
    eventually(lambda: cloud.read(f"acme/done/{layout.ALIASES}", ARTIFACTS))
    cloud.put("acme/done/PROMOTE", "v2")
    aliases = eventually(lambda: _aliases(cloud, moved=2))
    firestore.Client(project=PROJECT).collection("tenants").document("acme").update({"limits.max_running": 3})

    with cloud.frozen("reconcile"):
        staged = start(cloud, "staged", fault="die-staged")
        cloud.wait(staged, S.EVALUATING)
        eventually(lambda: any(name.endswith("SHA256SUMS") for name in cloud.names("acme/staged/.staging/")))
        training = start(cloud, "training", steps="80", pause="0.3", checkpoints="yes")
        cloud.wait(training, S.TRAINING)
        queued = start(cloud, "queued")
        cloud.wait(queued, S.QUEUED)
        for run_id in (training, queued, staged):
            settled(cloud, run_id)
        # As if the reader of the audit trail came before the last change was in it.
        last = settled(cloud, published).revision
        cloud.services.objects.delete(ARTIFACTS, f"_audit/acme/{published}/{last:06d}.json")
        before = documents()
        lose_everything()

    # Neither the sweep nor a new drop begins anew what is only lost.
    newcomer = start(cloud, "newcomer")
    time.sleep(SWEEP_S)
    assert documents().keys() <= {"pools/nvidia-l4"}

    status, said = rebuild(cloud)
    assert status == 0, said
    assert "nothing was written" in said
    assert not [path for path in documents() if path.startswith("runs/")]
    status, said = rebuild(cloud, "--write")
    assert status == 0, said
    assert "8 runs written" in said
    after = documents()

    for run_id in (done, done_again, failed):
        path = f"runs/{run_id}"
        assert lasting(after[path]) == lasting(before[path])
        trail = {p for p in before if p.startswith(f"{path}/events/")}
        assert trail
        assert {p: after[p] for p in trail} == {p: before[p] for p in trail}
    by_version = cloud.services.runs.get(published)
    assert by_version.state is S.SUCCEEDED
    assert by_version.artifacts == Run.model_validate(before[f"runs/{published}"]).artifacts
    assert [p for p in after if p.startswith(f"runs/{published}/events/")]
    for name, last_version in (("done", 2), ("published", 1)):
        assert after[f"adapters/acme~{name}"] == before[f"adapters/acme~{name}"]
        for number in range(1, last_version + 1):
            path = f"adapters/acme~{name}/versions/v{number}"
            assert after[path]["run_id"] == before[path]["run_id"]
    assert _aliases(cloud, moved=2) == aliases
    for path in (p for p in before if p.startswith("drops/")):
        assert after[path] == before[path]
    assert "limits" not in after["tenants/acme"]  # what nobody can know

    for run_id in (training, queued, staged, newcomer):
        assert cloud.wait(run_id, S.SUCCEEDED, within_s=120).state is S.SUCCEEDED, run_id
    assert [e.run_id for e in cloud.services.jobs.listed()].count(staged) == 1  # finished, not trained again
    for name in ("training", "queued", "staged", "newcomer", "published"):
        assert versions(cloud, name) == {"v1"}, name
    assert versions(cloud, "done") == {"v1", "v2"}
    assert cloud.services.runs.ledger.pool("nvidia-l4").slots == {}
    months = cloud.services.runs.ledger.account("acme").months.values()
    cost = [fields["cost_usd"] for path, fields in documents().items() if "state" in fields]
    assert sum(month.spent_usd for month in months) == pytest.approx(sum(cost), abs=1e-5)
    assert sum(month.reserved_usd for month in months) == pytest.approx(0.0, abs=1e-5)


def test_what_is_stored_stays(cloud: TestCloud) -> None:
    run_id = start(cloud, "stays")
    cloud.wait(run_id, S.SUCCEEDED)
    settled(cloud, run_id)
    document = firestore.Client(project=PROJECT).collection("runs").document(run_id)
    document.update({"state_reason": "newer than the audit trail"})
    before = documents()
    status, said = rebuild(cloud, "--write")
    assert status == 1
    assert "--missing-only" in said
    status, said = rebuild(cloud, "--write", "--missing-only")
    assert status == 0
    assert "0 runs written" in said
    after = documents()
    assert {path: lasting(after[path]) for path in before} == {path: lasting(before[path]) for path in before}
    assert plan(cloud.services).missing == []


def test_one_run_that_was_deleted_by_hand_comes_back_alone(cloud: TestCloud) -> None:
    run_id = start(cloud, "alone")
    cloud.wait(run_id, S.SUCCEEDED)
    run = settled(cloud, run_id)
    spent = cloud.services.runs.ledger.account("acme").months
    firestore.Client(project=PROJECT).collection("runs").document(run_id).delete()
    status, said = rebuild(cloud, "--write", "--missing-only")
    assert status == 0, said
    assert "1 runs written" in said
    assert lasting(cloud.services.runs.get(run_id).model_dump()) == lasting(run.model_dump())
    assert cloud.services.runs.ledger.account("acme").months == spent  # what it cost was not lost
