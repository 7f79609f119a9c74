"""Attacks against Google's emulators and the functions as they run; more of them are in tests/unit/test_threats_*."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from google.cloud import firestore

from schemas import layout
from schemas.run_states import RunState
from tests.cloud import PROJECT, TestCloud, chat_rows, manifest

S = RunState


def runs() -> Any:
    return firestore.Client(project=PROJECT).collection("runs")


def drop(cloud: TestCloud, folder: str, **settings: Any) -> str:
    tenant, name = folder.split("/")
    cloud.put(f"{folder}/train.jsonl", chat_rows(12))
    return cloud.run_id(tenant, name, cloud.put(f"{folder}/manifest.yaml", manifest(**settings)))


@pytest.mark.parametrize(
    "name",
    [
        "%2e%2e/%2e%2e/victim/bot/train.jsonl",
        "..%2f..%2fvictim%2fbot%2ftrain.jsonl",
        "．．/．．/victim/bot/train.jsonl",
    ],
)
def test_a_name_that_looks_as_if_it_led_out_finds_no_object_of_another(cloud: TestCloud, name: str) -> None:
    """The bucket's server decodes addresses, and an object's name is not one."""
    cloud.put("victim/bot/train.jsonl", chat_rows(12))
    folder = f"attacker/{layout.slug(name)}"
    generation = cloud.put(f"{folder}/manifest.yaml", manifest(dataset={"train": [name]}))
    run = cloud.wait(cloud.run_id("attacker", folder.split("/")[1], generation), S.EXPIRED)
    assert run.error is not None
    assert run.error.code == "data_missing"
    assert run.dataset.files == []


ODD: dict[str, dict[str, Any]] = {
    "tenant-is-a-number": {"tenant": 7},
    "tenant-is-gone": {"tenant": firestore.DELETE_FIELD},
    "created-is-a-text": {"created_at": "yesterday"},
    "revision-is-a-text": {"revision": "x"},
    "state-is-a-list": {"state": ["QUEUED"]},
    "no-zone": {"updated_at": "2026-01-01T00:00:00", "outbox_pending": True},
    "epoch-is-huge": {"epoch": 2**63 - 1},
    "never-trained": {"artifacts": {"version": 1, "staged": "x/", "size_bytes": 1, "sha256": {}}},
    "path": {"name": "../../victim/bot"},
}


def test_documents_that_cannot_be_hold_up_nobody(cloud: TestCloud) -> None:
    """All of them at once, older than the run that goes on and of its tenant."""
    model = cloud.wait(drop(cloud, "clumsier/model", dry_run=True), S.VALIDATED)
    for state in ("QUEUED", "TRAINING"):
        for name, fields in ODD.items():
            reference = runs().document(f"odd-{name}-{state.lower()}")
            reference.set(
                model.to_document()
                | {"state": state, "run_id": reference.id, "created_at": model.created_at - timedelta(days=1)}
            )
            reference.update(fields)
    try:
        run = cloud.wait(drop(cloud, "clumsier/bot", labels={"fault": "die-training", "faults": "1"}), S.SUCCEEDED)
        assert run.state is S.SUCCEEDED
        assert run.attempt == 2  # so the reconciler went on, too
        assert not [e for e in cloud.services.jobs.listed() if e.run_id.startswith("odd-")]
    finally:
        for name in ODD:
            for state in ("queued", "training"):
                runs().document(f"odd-{name}-{state}").delete()


def test_a_revision_that_was_lowered_is_raised_again(cloud: TestCloud) -> None:
    run_id = drop(cloud, "lowered/bot", labels={"steps": "8", "pause": "0.5"})
    cloud.wait(run_id, S.TRAINING)
    runs().document(run_id).update({"revision": 1})
    run = cloud.wait(run_id, S.SUCCEEDED)
    assert run.state is S.SUCCEEDED
    assert run.attempt == 1
