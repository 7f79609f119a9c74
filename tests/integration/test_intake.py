"""From objects in the bucket to a checked run, by events."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from google.cloud import storage

from adaptml.clock import utc_now
from functions.intake import advance
from schemas.manifest_reading import parse_manifest
from schemas.run import DataFile, DatasetSummary, Run, Source
from schemas.run_states import RunState
from tests.cloud import ARTIFACTS, DROPS, MODEL, PROJECT, TestCloud, chat_rows, eventually, manifest

S = RunState


def test_a_folder_copied_by_gsutil_becomes_an_adapter(cloud: TestCloud, tmp_path: Path) -> None:
    drop = tmp_path / "copied"
    drop.mkdir()
    (drop / "manifest.yaml").write_text(f"base_model: {MODEL}\ndataset: {{train: [train.jsonl]}}\n")
    (drop / "train.jsonl").write_text(chat_rows(12))
    cloud.command("gsutil", "-q", "cp", "-r", str(drop), f"gs://{DROPS}/acme/")
    (run,) = eventually(lambda: cloud.runs_of("acme", "copied") or None)
    run = cloud.wait(run.run_id, S.SUCCEEDED)
    assert run.state is S.SUCCEEDED
    assert run.dataset.train_examples == 12
    assert run.artifacts is not None
    assert run.artifacts.uri == "gs://adaptml-artifacts/acme/copied/v1/"
    status = eventually(lambda: _status(cloud, "acme/copied", S.SUCCEEDED))
    assert status["run_id"] == run.run_id
    assert status["artifacts"]["uri"] == run.artifacts.uri
    assert len(cloud.runs_of("acme", "copied")) == 1  # what we wrote beside the drop started nothing


def test_gcloud_storage_copies_a_folder_too(cloud: TestCloud, tmp_path: Path) -> None:
    drop = tmp_path / "by-gcloud"
    drop.mkdir()
    (drop / "manifest.json").write_text(manifest())
    (drop / "train.jsonl").write_text(chat_rows(12))
    cloud.command("gcloud", "storage", "cp", "-r", str(drop), f"gs://{DROPS}/acme/")
    (run,) = eventually(lambda: cloud.runs_of("acme", "by-gcloud") or None)
    assert cloud.wait(run.run_id, S.SUCCEEDED).state is S.SUCCEEDED


def test_the_manifest_may_arrive_first(cloud: TestCloud) -> None:
    generation = cloud.put("acme/early/manifest.yaml", manifest())
    run = cloud.wait(cloud.run_id("acme", "early", generation), S.AWAITING_DATA)
    assert run.dataset.missing == ["train.jsonl"]
    cloud.put("acme/early/train.jsonl", chat_rows(12))
    assert cloud.wait(run.run_id, S.SUCCEEDED).state is S.SUCCEEDED


def test_the_data_may_arrive_first(cloud: TestCloud) -> None:
    cloud.put("acme/late/train.jsonl", chat_rows(12))
    generation = cloud.put("acme/late/manifest.yaml", manifest())
    assert cloud.wait(cloud.run_id("acme", "late", generation), S.SUCCEEDED).state is S.SUCCEEDED


def test_data_that_never_comes_expires_the_run(cloud: TestCloud) -> None:
    generation = cloud.put("acme/never/manifest.yaml", manifest(dataset={"train": ["a.jsonl", "b.jsonl"]}))
    cloud.put("acme/never/a.jsonl", chat_rows(12))
    run = cloud.wait(cloud.run_id("acme", "never", generation), S.EXPIRED)
    assert run.state is S.EXPIRED
    assert run.error is not None
    assert run.error.code == "data_missing"
    assert "b.jsonl" in run.error.message
    assert "b.jsonl" in eventually(lambda: cloud.read("acme/never/REJECTED.md")).replace("\\", "")


def test_the_generation_that_was_pinned_is_what_trains(cloud: TestCloud) -> None:
    dataset = {"train": ["train.jsonl", "more.jsonl"]}
    first = cloud.put("acme/pinned/train.jsonl", chat_rows(11))
    generation = cloud.put("acme/pinned/manifest.yaml", manifest(dataset=dataset))
    run_id = cloud.run_id("acme", "pinned", generation)
    cloud.wait(run_id, S.AWAITING_DATA)
    second = cloud.put("acme/pinned/train.jsonl", "overwritten, and not JSON\n")
    cloud.put("acme/pinned/more.jsonl", chat_rows(2))
    run = cloud.wait(run_id, S.SUCCEEDED)
    assert run.state is S.SUCCEEDED
    assert first != second
    assert {f.name: f.generation for f in run.dataset.files}["train.jsonl"] == first
    assert run.dataset.train_examples == 13


def test_an_event_delivered_twice_is_one_run_and_one_training(cloud: TestCloud) -> None:
    cloud.put("acme/twice/train.jsonl", chat_rows(12))
    generation = cloud.put("acme/twice/manifest.yaml", manifest())
    for _ in range(5):
        publish_storage_event(cloud, "acme/twice/manifest.yaml", generation)
    run = cloud.wait(cloud.run_id("acme", "twice", generation), S.SUCCEEDED)
    time.sleep(2)
    assert [r.run_id for r in cloud.runs_of("acme", "twice")] == [run.run_id]
    assert [e.run_id for e in cloud.services.jobs.listed()].count(run.run_id) == 1
    assert cloud.names("acme/twice/") == {"v1/adapter_model.safetensors", "v1/SHA256SUMS"}


def test_a_new_manifest_is_a_new_run_and_the_next_version(cloud: TestCloud) -> None:
    cloud.put("acme/next-version/train.jsonl", chat_rows(12))
    for version in (1, 2):
        generation = cloud.put("acme/next-version/manifest.yaml", manifest(labels={"version": str(version)}))
        run = cloud.wait(cloud.run_id("acme", "next-version", generation), S.SUCCEEDED)
        assert run.artifacts is not None
        assert run.artifacts.version == version


@pytest.mark.parametrize(
    ("name", "text", "code", "line"),
    [
        ("no-dataset", f"base_model: {MODEL}\n", "missing_field", 1),
        ("no-model", "base_model: acme/unknown\ndataset: {train: [train.jsonl]}\n", "unknown_base_model", 1),
        ("no-yaml", "base_model: [\n", "manifest_syntax", 2),
        ("binary", b"\x89PNG\x00\x00", "manifest_not_text", 1),
        ("empty", "", "manifest_not_a_mapping", 1),
        ("escapes", f"base_model: {MODEL}\ndataset: {{train: [../other/train.jsonl]}}\n", "unsafe_path", 2),
    ],
)
def test_an_unusable_manifest_is_rejected_in_seconds(
    cloud: TestCloud, name: str, text: str | bytes, code: str, line: int | None
) -> None:
    generation = cloud.put(f"acme/{name}/manifest.yaml", text)
    run = cloud.wait(cloud.run_id("acme", name, generation), S.REJECTED, within_s=15)
    assert run.state is S.REJECTED
    assert run.error is not None
    assert (run.error.code, run.error.details[0].line) == (code, line)
    assert run.error.hint
    report = eventually(lambda: cloud.read(f"acme/{name}/REJECTED.md"))
    assert code in report.replace("\\", "")
    assert run.run_id in report


def test_broken_json_on_line_17_is_told_to_whoever_has_only_gsutil(cloud: TestCloud) -> None:
    rows = chat_rows(20).splitlines(keepends=True)
    rows[16] = '{"messages": [\n'
    cloud.put("acme/line17/train.jsonl", "".join(rows))
    generation = cloud.put("acme/line17/manifest.yaml", manifest())
    run = cloud.wait(cloud.run_id("acme", "line17", generation), S.REJECTED)
    assert run.error is not None
    assert (run.error.code, run.error.details[0].file, run.error.details[0].line) == ("invalid_json", "train.jsonl", 17)
    eventually(lambda: cloud.read("acme/line17/REJECTED.md"))
    shown = cloud.command("gsutil", "cat", f"gs://{DROPS}/acme/line17/REJECTED.md").stdout
    assert "line 17" in shown
    assert "Question" not in shown

    cloud.put("acme/line17/train.jsonl", chat_rows(20))
    mended = cloud.put("acme/line17/manifest.yaml", manifest())
    assert cloud.wait(cloud.run_id("acme", "line17", mended), S.SUCCEEDED).state is S.SUCCEEDED
    assert cloud.read("acme/line17/REJECTED.md") is None
    assert len(cloud.runs_of("acme", "line17")) == 2


def test_a_lost_event_is_found_by_the_sweep(cloud: TestCloud) -> None:
    # An upload whose notification was lost: the tenant's folder gets its objects while nobody listens.
    name, text = "acme/swept/manifest.yaml", manifest()
    cloud.put("acme/swept/train.jsonl", chat_rows(12))
    generation = cloud.put(name, text)
    run_id = cloud.run_id("acme", "swept", generation)
    cloud.wait(run_id, S.SUCCEEDED)
    forget(cloud, run_id)
    cloud.services.bus._publisher.publish(
        f"projects/{PROJECT}/topics/reconcile", json.dumps({"sweep_drops": True}).encode()
    ).result(timeout=10)
    assert cloud.wait(run_id, S.SUCCEEDED).state is S.SUCCEEDED


def _status(cloud: TestCloud, prefix: str, state: RunState) -> dict[str, Any] | None:
    text = cloud.read(f"{prefix}/STATUS.json")
    status = json.loads(text) if text else {}
    return status if status.get("state") == state else None


def forget(cloud: TestCloud, run_id: str) -> None:
    from google.cloud import firestore

    document = firestore.Client(project=PROJECT).collection("runs").document(run_id)
    for event in document.collection("events").stream():
        event.reference.delete()
    document.delete()
    for item in cloud.services.objects.list(ARTIFACTS, f"_audit/acme/{run_id}/"):
        cloud.services.objects.delete(ARTIFACTS, item.name)


def publish_storage_event(cloud: TestCloud, name: str, generation: int) -> None:
    blob = storage.Client(project=PROJECT).bucket(DROPS).get_blob(name)
    assert blob is not None
    body = {"bucket": DROPS, "name": name, "generation": str(generation), "size": str(blob.size)}
    cloud.services.bus._publisher.publish(
        f"projects/{PROJECT}/topics/storage-notifications",
        json.dumps(body).encode(),
        bucketId=DROPS,
        objectId=name,
        objectGeneration=str(generation),
        eventType="OBJECT_FINALIZE",
    ).result(timeout=10)


def test_data_that_is_copied_after_its_manifest_once_more_is_what_trains(cloud: TestCloud) -> None:
    """gsutil copies a folder by name: `manifest.yaml` is there before the new `train.jsonl` is."""
    cloud.put("acme/again/train.jsonl", chat_rows(12))
    first = cloud.run_id("acme", "again", cloud.put("acme/again/manifest.yaml", manifest()))
    assert cloud.wait(first, RunState.SUCCEEDED).state is RunState.SUCCEEDED
    second = cloud.run_id("acme", "again", cloud.put("acme/again/manifest.yaml", manifest()))
    assert "newer copy" in cloud.wait(second, RunState.AWAITING_DATA).state_reason
    copied = cloud.put("acme/again/train.jsonl", chat_rows(20))
    run = cloud.wait(second, RunState.SUCCEEDED)
    assert [file.generation for file in run.dataset.files] == [copied]
    assert run.dataset.train_examples == 20


def test_a_new_manifest_alone_takes_the_data_that_is_there(cloud: TestCloud) -> None:
    copied = cloud.put("acme/alone/train.jsonl", chat_rows(12))
    first = cloud.run_id("acme", "alone", cloud.put("acme/alone/manifest.yaml", manifest()))
    cloud.wait(first, RunState.SUCCEEDED)
    second = cloud.run_id("acme", "alone", cloud.put("acme/alone/manifest.yaml", manifest(training={"max_steps": 2})))
    run = cloud.wait(second, RunState.SUCCEEDED)
    assert run.state is RunState.SUCCEEDED
    assert [file.generation for file in run.dataset.files] == [copied]


def test_data_that_was_deleted_before_it_was_read_is_told(cloud: TestCloud) -> None:
    """A generation that is not there any more; the local server keeps each one, so one that never was."""
    now = utc_now()
    file = DataFile(name="train.jsonl", object="acme/gone/train.jsonl", generation=1, size=9, crc32c="", role="train")
    run = Run(
        run_id="acme-gone", state=RunState.VALIDATING, state_reason="", tenant="acme", name="gone",
        source=Source(bucket=DROPS), manifest=parse_manifest(manifest().encode(), file="manifest.yaml", folder="gone"),
        dataset=DatasetSummary(files=[file]), created_at=now, updated_at=now, state_since=now,
    )  # fmt: skip
    cloud.services.runs.create(run)
    advance(cloud.services, run)
    ended = cloud.services.runs.get(run.run_id)
    assert ended.state is RunState.REJECTED
    assert ended.error is not None
    assert (ended.error.code, ended.error.details[0].file) == ("data_gone", "train.jsonl")
