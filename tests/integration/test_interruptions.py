"""Real processes in a local cloud, killed, terminated and cancelled while they train: the bits are the same."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from schemas import layout
from schemas.run import Run
from schemas.run_states import RunState
from tests import forked, tiny_model
from tests.apart import cloud_apart
from tests.cloud import TestCloud, chat_rows, eventually, manifest
from tests.interrupted_trainer import TINY_MODELS_DIR

pytestmark = pytest.mark.slow
S = RunState
WITHIN_S = 180
WEIGHTS = "adapter_model.safetensors"
INTERRUPTED = {"whole": "", "killed": "4 kill", "terminated": "5 terminate", "cancelled": "4 wait"}
"""Name of the drop → what happens to its attempts."""


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCloud]:
    home = tmp_path_factory.mktemp("interrupted")
    with cloud_apart(
        home,
        ADAPTML_TRAINER_COMMAND=forked.command("tests.interrupted_trainer", OMP_NUM_THREADS="1"),
        ADAPTML_CHECKPOINT_EVERY_S="0",
        ADAPTML_GPU_QUOTA="2",
        ADAPTML_LOCAL_TICK_S="1",
        OMP_NUM_THREADS="1",
        **{TINY_MODELS_DIR: str(tiny_model.lay(home / "tiny"))},
    ) as started:
        yield started


@pytest.fixture(scope="module")
def started(cloud: TestCloud) -> dict[str, str]:
    """Name → id of the run."""
    runs = {}
    for name, interrupt in INTERRUPTED.items():
        cloud.put(f"acme/{name}/train.jsonl", chat_rows(24))
        text = manifest(
            lora={"r": 4, "dropout": 0.2},
            training={"max_steps": 8, "batch_size": 6, "learning_rate": 1e-2, "max_seq_length": 96},
            labels={"interrupt": interrupt},
        )
        runs[name] = cloud.run_id("acme", name, cloud.put(f"acme/{name}/manifest.yaml", text))
    return runs


def delivered(cloud: TestCloud, run_id: str) -> tuple[Run, str]:
    """The run, and its weights' checksum."""
    run = cloud.wait(run_id, S.SUCCEEDED, within_s=WITHIN_S)
    assert run.state is S.SUCCEEDED, run.error
    assert run.artifacts is not None
    assert cloud.names(layout.checkpoint_prefix("acme", run.name, run_id)) == set()
    return run, run.artifacts.sha256[WEIGHTS]


def reasons(cloud: TestCloud, run_id: str, state: RunState) -> list[str]:
    """Why the run came into the state, each time."""
    run = cloud.services.runs.get(run_id)
    return [event.reason for event in cloud.services.runs.outbox.unannounced(run, after=0) if event.to_state is state]


@pytest.fixture(scope="module")
def weights(cloud: TestCloud, started: dict[str, str]) -> str:
    """Of the run that nothing happened to."""
    run, weights = delivered(cloud, started["whole"])
    assert run.attempt == 1
    return weights


def test_a_trainer_that_is_killed(cloud: TestCloud, started: dict[str, str], weights: str) -> None:
    run, same = delivered(cloud, started["killed"])
    assert same == weights
    assert (run.attempt, run.deaths) == (2, 1)
    logs = [path.read_text("utf-8") for path in (cloud.home / "logs").rglob("*.log")]
    (last,) = [log for log in logs if f"owning {run.run_id}, epoch 2" in log]
    assert re.search('going on after step [1-4]"', last)


def test_a_trainer_whose_machine_is_taken_away(cloud: TestCloud, started: dict[str, str], weights: str) -> None:
    run, same = delivered(cloud, started["terminated"])
    assert same == weights
    assert (run.attempt, run.deaths) == (2, 0)
    _, handed_over = reasons(cloud, run.run_id, S.QUEUED)
    assert handed_over == "attempt 1 saved step 5 (its machine was taken away); goes on from there"
    assert [point["step"] for point in cloud.services.runs.curve(run.run_id)] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_run_that_is_cancelled_and_taken_up_again(cloud: TestCloud, started: dict[str, str], weights: str) -> None:
    old = started["cancelled"]
    eventually(lambda: cloud.services.runs.get(old).progress.step == 4, within_s=WITHIN_S)
    cloud.put(f"acme/cancelled/{layout.CANCEL}", "")
    run = cloud.wait(old, S.CANCELLED, within_s=WITHIN_S)
    assert (run.state, run.checkpoint and run.checkpoint.step) == (S.CANCELLED, 4)
    cloud.put(f"acme/cancelled/{layout.RESUME}", "")
    new = eventually(lambda: next((r.run_id for r in cloud.runs_of("acme", "cancelled") if r.run_id != old), None))
    resumed, same = delivered(cloud, new)
    assert same == weights
    assert (resumed.source.resumes, resumed.resumed_step) == (old, 4)
