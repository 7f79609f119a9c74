"""An emulator stands still for a while, as a service does that does not answer. Its state is in memory: it is not
killed, it comes back."""

from __future__ import annotations

import os
import time

import pytest

from schemas.run_states import RunState
from tests.cloud import TestCloud, chat_rows, eventually, manifest

S = RunState
FREEZE_S = float(os.environ.get("FREEZE_S", "20"))
"""A minute in the long tests: longer than most time limits of Google's clients."""


@pytest.mark.parametrize("service", ["pubsub", "firestore", "storage"])
def test_work_goes_on_when_a_service_is_back(cloud: TestCloud, service: str) -> None:
    def start(name: str, **labels: str) -> str:
        cloud.put(f"frozen/{service}-{name}/train.jsonl", chat_rows(12))
        text = manifest(labels=labels, compute={"max_attempts": 5})
        return cloud.run_id("frozen", f"{service}-{name}", cloud.put(f"frozen/{service}-{name}/manifest.yaml", text))

    runs = [start("training", steps="20", pause="0.5")]
    cloud.wait(runs[0], S.TRAINING)
    runs += [start("begun"), start("waiting")]
    with cloud.frozen(service):
        time.sleep(FREEZE_S)
    runs.append(start("after"))
    for run_id in runs:
        eventually(lambda run_id=run_id: cloud.services.runs.find(run_id), within_s=60)
        run = cloud.wait(run_id, S.SUCCEEDED, within_s=150)
        assert run.state is S.SUCCEEDED, f"{run.state_reason}: {run.error}"
        assert cloud.names(f"frozen/{run.name}/") == {"v1/adapter_model.safetensors", "v1/SHA256SUMS"}
