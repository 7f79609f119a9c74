"""Prepared models in the models bucket: laid there once, read by trainers that have none of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.cloud import storage

from schemas.catalogue import CATALOGUE
from schemas.errors import Refused
from schemas.manifest import Manifest
from schemas.run_states import RunState
from tests import tiny_model
from tests.apart import cloud_apart
from tests.cloud import MODEL, PROJECT, ROOT, TestCloud, chat_rows, manifest
from tests.offline_trainer import REACHED
from tests.unit.exported import CPU
from trainer import prepared, quantise
from trainer.models_bucket import Damaged, fetch, is_published, publish
from trainer.prepare import main
from trainer.prepared import Origin

pytestmark = pytest.mark.slow
ROW = CATALOGUE[MODEL]
BUCKET = "adaptml-models"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCloud]:
    home = tmp_path_factory.mktemp("offline")
    with cloud_apart(
        home,
        ADAPTML_TRAINER_COMMAND=f"{sys.executable} -m tests.offline_trainer",
        ADAPTML_LOCAL_TICK_S="1",
        OMP_NUM_THREADS="1",
    ) as started:
        yield started


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model in the place of the local one, prepared."""
    folder = tiny_model.lay(tmp_path_factory.mktemp("models"))
    quantise.write_nf4(folder / ROW.folder, CPU)
    prepared.seal(folder / ROW.folder, Origin(model=ROW.id, revision=ROW.revision, source="test"))
    return folder


@pytest.fixture
def bucket(cloud: TestCloud, request: pytest.FixtureRequest) -> str:
    name = f"models-{abs(hash(request.node.name)) % 10**9}"
    storage.Client(project=PROJECT).create_bucket(name)
    return name


def asked(**settings: Any) -> Manifest:
    return Manifest.model_validate({"name": "t", "base_model": MODEL, "dataset": {"train": ["t.jsonl"]}} | settings)


def nothing() -> None:
    """A heartbeat that nobody hears."""


def test_what_is_published_is_fetched_bit_for_bit_and_only_what_is_needed(
    cloud: TestCloud, bucket: str, models: Path, tmp_path: Path
) -> None:
    objects, folder = cloud.services.objects, models / ROW.folder
    assert not is_published(objects, bucket, ROW)
    assert publish(objects, bucket, ROW, folder) == len(prepared.listed(folder) or {}) + 1
    assert is_published(objects, bucket, ROW)
    assert publish(objects, bucket, ROW, folder) == 0

    for name, settings, (variant, other) in (
        ("qlora", {"method": "qlora"}, ("nf4", "bf16")),
        ("lora", {"method": "lora"}, ("bf16", "nf4")),
    ):
        into = tmp_path / name
        fetch(objects, bucket, ROW, asked(**settings), into, nothing)
        assert prepared.has(into / ROW.folder, variant)  # type: ignore[arg-type]
        assert not prepared.has(into / ROW.folder, other)  # type: ignore[arg-type]
        for path in (path for path in (into / ROW.folder).rglob("*") if path.is_file() and path.name != "SHA256SUMS"):
            assert path.read_bytes() == (folder / path.relative_to(into / ROW.folder)).read_bytes()
    fetch(objects, bucket, ROW, asked(export=["adapter", "merged"]), tmp_path / "both", nothing)
    both = tmp_path / "both" / ROW.folder
    subprocess.run(["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"], cwd=both, check=True)
    assert prepared.is_prepared(both, ROW)


def test_a_model_that_is_not_whole_in_the_bucket_is_not_there(
    cloud: TestCloud, bucket: str, models: Path, tmp_path: Path
) -> None:
    objects = cloud.services.objects
    publish(objects, bucket, ROW, models / ROW.folder)
    objects.delete(bucket, f"{ROW.folder}/SHA256SUMS")
    assert not is_published(objects, bucket, ROW)
    with pytest.raises(Refused) as refused:
        fetch(objects, bucket, ROW, asked(), tmp_path, nothing)
    assert [found.code for found in refused.value.problems] == ["base_model_unavailable"]


def test_what_the_checksums_do_not_name_is_never_taken(
    cloud: TestCloud, bucket: str, models: Path, tmp_path: Path
) -> None:
    objects = cloud.services.objects
    publish(objects, bucket, ROW, models / ROW.folder)
    name = f"{ROW.folder}/nf4/model.safetensors"
    blob = storage.Client(project=PROJECT).bucket(bucket).blob(name)
    true = blob.download_as_bytes()
    blob.upload_from_string(true[:-1] + bytes([true[-1] ^ 1]))
    with pytest.raises(Damaged, match=r"nf4/model\.safetensors"):
        fetch(objects, bucket, ROW, asked(), tmp_path, nothing)
    assert not prepared.has(tmp_path / ROW.folder, "nf4")
    objects.delete(bucket, name)
    with pytest.raises(Damaged, match="missing"):
        fetch(objects, bucket, ROW, asked(), tmp_path, nothing)
    assert publish(objects, bucket, ROW, models / ROW.folder) == 1  # mended: what is right stays as it is
    fetch(objects, bucket, ROW, asked(), tmp_path, nothing)
    assert prepared.has(tmp_path / ROW.folder, "nf4")


def test_files_of_another_revision_do_not_stay(cloud: TestCloud, bucket: str, models: Path, tmp_path: Path) -> None:
    objects = cloud.services.objects
    left = tmp_path / "special_tokens_map.json"
    left.write_text("{}")
    objects.replace(bucket, f"{ROW.folder}/{left.name}", left)
    publish(objects, bucket, ROW, models / ROW.folder)
    names = {item.name.removeprefix(f"{ROW.folder}/") for item in objects.list(bucket)}
    assert names == {*(prepared.listed(models / ROW.folder) or {}), "SHA256SUMS"}


def test_an_attempt_that_must_stop_stops_a_download(
    cloud: TestCloud, bucket: str, models: Path, tmp_path: Path
) -> None:
    class Told(Exception):  # noqa: N818
        pass

    def stop() -> None:
        raise Told

    publish(cloud.services.objects, bucket, ROW, models / ROW.folder)
    with pytest.raises(Told):
        fetch(cloud.services.objects, bucket, ROW, asked(), tmp_path, stop)
    assert not prepared.has(tmp_path / ROW.folder, "nf4")


def test_the_command_lays_a_model_into_the_bucket_and_does_nothing_twice(
    cloud: TestCloud, bucket: str, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [MODEL, "--into", str(models), "--to", f"gs://{bucket}"]
    assert main(words) == 0
    assert is_published(cloud.services.objects, bucket, ROW)
    monkeypatch.setattr("trainer.prepare.prepare", None)
    assert main(words) == 0


def test_a_run_reads_its_model_from_the_bucket_and_reaches_nothing_outside(cloud: TestCloud, models: Path) -> None:
    publish(cloud.services.objects, BUCKET, ROW, models / ROW.folder)
    cloud.put("acme/offline/train.jsonl", chat_rows(12))
    text = manifest(lora={"r": 4}, training={"max_steps": 2, "batch_size": 4, "max_seq_length": 96})
    run_id = cloud.run_id("acme", "offline", cloud.put("acme/offline/manifest.yaml", text))
    run = cloud.wait(run_id, RunState.SUCCEEDED, within_s=180)
    logs = "".join(path.read_text("utf-8") for path in (cloud.home / "logs" / "executions").glob("*"))
    assert run.state is RunState.SUCCEEDED, (run.error, logs[-2000:])
    assert "from the models bucket" in logs
    assert "quantising while loading" not in logs
    assert REACHED not in logs


def test_a_trainer_that_reached_outside_would_be_ended() -> None:
    """So that the run above proves something: the hub's own client, let loose, does not get far."""
    code = (
        "import sys; from tests.offline_trainer import only_here; sys.addaudithook(only_here)\n"
        "from huggingface_hub import HfApi; HfApi().model_info('acme/model')"
    )
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, env=_online())
    assert (ended.returncode, REACHED in ended.stdout) == (3, True), ended.stderr


def test_a_trainer_of_its_own_sets_that_no_hub_is_asked() -> None:
    code = "import runpy; runpy.run_module('trainer'); import huggingface_hub; print(huggingface_hub.is_offline_mode())"
    command = [sys.executable, "-c", code]
    environment = _online() | {"HF_HUB_OFFLINE": "0"}
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, env=environment)
    assert ended.stdout.strip() == "True", ended.stderr


def _online() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
