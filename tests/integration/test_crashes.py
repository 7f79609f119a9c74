"""Processes are killed at each named point, in turn, while runs are under way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.cloud import firestore

from schemas.run import Run
from schemas.run_states import RunState
from tests.cloud import PROJECT, TestCloud, chat_rows, eventually, manifest
from tests.crashing import FOLDER, POINTS, RECONCILER_POINTS, arrange, was_met

S = RunState
GROUPS = 7


@pytest.fixture
def crashes() -> Iterator[Path]:
    folder = Path(os.environ[FOLDER])
    yield folder
    for file in folder.iterdir():
        file.unlink()


def ended_as_it_must(cloud: TestCloud, run_id: str) -> None:
    """SUCCEEDED, with one whole version, every change announced, nothing held."""
    run = cloud.wait(run_id, S.SUCCEEDED, within_s=150)
    assert run.state is S.SUCCEEDED, f"{run.state_reason}: {run.error}"
    assert cloud.names(f"{run.tenant}/{run.name}/") == {"v1/adapter_model.safetensors", "v1/SHA256SUMS"}
    eventually(lambda: not cloud.services.runs.get(run_id).outbox_pending, within_s=60)
    assert run_id not in cloud.services.runs.ledger.pool("nvidia-l4").slots
    assert revisions(run) == list(range(1, run.revision + 1))


def revisions(run: Run) -> list[int]:
    events = firestore.Client(project=PROJECT).collection("runs").document(run.run_id).collection("events")
    return [e.to_dict()["revision"] for e in events.order_by("revision").stream()]


def start(cloud: TestCloud, name: str, **labels: str) -> str:
    cloud.put(f"crash/{name}/train.jsonl", chat_rows(12))
    text = manifest(labels=labels, compute={"max_attempts": 10})
    return cloud.run_id("crash", name, cloud.put(f"crash/{name}/manifest.yaml", text))


@pytest.mark.parametrize("group", range(GROUPS))
def test_whatever_dies_where_the_run_ends_as_it_must(cloud: TestCloud, crashes: Path, group: int) -> None:
    points = POINTS[group::GROUPS]
    for point in points:
        arrange(crashes, point)
    runs = [start(cloud, f"group-{group}-{i}") for i in range(3)]
    for run_id in runs:
        ended_as_it_must(cloud, run_id)
    missed = [point for point in points if not was_met(crashes, point)]
    assert not missed


@pytest.mark.parametrize("point", RECONCILER_POINTS)
def test_the_reconciler_may_die_while_it_makes_up_for_others(cloud: TestCloud, crashes: Path, point: str) -> None:
    arrange(crashes, point)
    with cloud.frozen("dispatch"):
        run_id = start(cloud, point.replace(":", "-").replace(".", "-"), fault="die-training", faults="1")
        eventually(lambda: was_met(crashes, point), within_s=60)
    ended_as_it_must(cloud, run_id)
