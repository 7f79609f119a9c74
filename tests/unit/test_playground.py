from __future__ import annotations

import hashlib
from http import HTTPStatus
from pathlib import Path

import pytest
import torch

from schemas.catalogue import CATALOGUE
from schemas.errors import Refused
from schemas.manifest import Dataset, Manifest
from schemas.playground import Question
from tests import tiny_model
from tests.cloud import MODEL
from tests.unit.bucket import Bucket
from trainer import artifacts, playground
from trainer.model import load_base, with_lora
from trainer.prepared import MODELS_DIR
from trainer.side_by_side import CONFIG, WEIGHTS, SideBySide

ROW = CATALOGUE[MODEL]
CPU = torch.device("cpu")


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """Two versions of an adapter, of random weights that change something, on a tiny base model."""
    models = tmp_path / "models"
    tiny_model.lay(models)
    monkeypatch.setenv(MODELS_DIR, str(models))
    found = Bucket()
    for version in (1, 2):
        _lay_version(found, tmp_path / f"v{version}", version)
    return found


def _lay_version(bucket: Bucket, folder: Path, version: int) -> None:
    manifest = Manifest(name="desk", base_model=MODEL, dataset=Dataset(train=["train.jsonl"]))
    base, tokenizer = load_base(ROW, quantise=True, device=CPU)
    model = with_lora(base, manifest, ROW)
    torch.manual_seed(version)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=3.0)
    folder.mkdir()
    artifacts.write(folder, model, tokenizer)
    files = {file: (folder / file).read_bytes() for file in (CONFIG, WEIGHTS)}
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {file}\n" for file, content in files.items())
    for file, content in (files | {"SHA256SUMS": sums.encode()}).items():
        bucket.objects[f"acme/desk/v{version}/{file}"] = content


def _side_by_side(bucket: Bucket, folder: Path) -> SideBySide:
    return SideBySide(bucket, "artifacts", None, folder / "fetched")  # type: ignore[arg-type]


def _question(version: int) -> Question:
    return Question(tenant="acme", name="desk", version=version, prompt="My kettle leaks.", max_new_tokens=12)


def test_base_and_adapters_answer_each_for_itself(bucket: Bucket, tmp_path: Path) -> None:
    asked = _side_by_side(bucket, tmp_path)
    first, second, again = (asked.ask(_question(version)) for version in (1, 2, 1))
    assert first.base == second.base == again.base
    assert first.adapter != first.base
    assert second.adapter != first.adapter
    assert again.adapter == first.adapter


def test_an_adapter_that_is_not_what_its_checksums_say_is_not_loaded(bucket: Bucket, tmp_path: Path) -> None:
    bucket.objects[f"acme/desk/v1/{WEIGHTS}"] += b"x"
    with pytest.raises(Refused) as refused:
        _side_by_side(bucket, tmp_path).ask(_question(1))
    assert refused.value.problems[0].code == "version_not_ready"


def test_a_version_that_is_not_there_is_said_so(bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(Refused):
        _side_by_side(bucket, tmp_path).ask(_question(3))


@pytest.mark.parametrize(
    "body",
    [
        b"no json",
        b'{"tenant": "acme"}',
        b'{"tenant": "../x", "name": "desk", "version": 1, "prompt": "?"}',
        b'{"tenant": "acme", "name": "desk", "version": 0, "prompt": "?"}',
        b'{"tenant": "acme", "name": "desk", "version": 1, "prompt": "?", "max_new_tokens": 100000}',
    ],
)
def test_what_is_no_question_is_refused_before_torch_is_loaded(body: bytes) -> None:
    status, said = playground.answer(body)
    assert status is HTTPStatus.BAD_REQUEST
    assert "../x" not in said["error"]
