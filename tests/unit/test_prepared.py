"""What a prepared folder holds, and when it counts as whole."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.catalogue import CATALOGUE
from schemas.manifest import Manifest
from tests.cloud import MODEL
from trainer import prepared
from trainer.export_merge import _COPIED
from trainer.models_bucket import has_what_it_needs, variants
from trainer.prepared import ORIGIN, QUANTISATION, STAMP, Origin, Stamp, choose, has, is_prepared, needed, unreadable

ROW = CATALOGUE[MODEL]
ORIGINAL = Origin(model=ROW.id, revision=ROW.revision, source="hub")
STAMPED = Stamp(bitsandbytes="0.50.2", torch="2.13.0", transformers="5.23.0", device="cpu")
BESIDE = ["config.json", "tokenizer.json", "LICENSE"]
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
IN_NF4 = ["nf4/config.json", "nf4/model.safetensors", STAMP]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / ROW.folder
    (made / "nf4").mkdir(parents=True)
    for name in (*BESIDE, *SHARDS, *IN_NF4):
        (made / name).write_text(name)
    (made / STAMP).write_text(STAMPED.model_dump_json())
    (made / SHARDS[2]).write_text(json.dumps({"weight_map": dict(enumerate(SHARDS[:2]))}))
    prepared.seal(made, ORIGINAL)
    return made


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def install(version: str) -> None:
        monkeypatch.setattr("trainer.prepared.metadata.version", lambda _: version)

    install("0.50.2")
    return install


def asked(method: str, *export: str) -> Manifest:
    settings = {"name": "t", "base_model": MODEL, "dataset": {"train": ["t.jsonl"]}, "method": method}
    return Manifest.model_validate(settings | {"export": ["adapter", *export]})


def test_each_variant_needs_its_own_weights_and_what_lies_beside_them() -> None:
    names = [*BESIDE, *SHARDS, *IN_NF4]
    assert needed(names, "nf4") == sorted([*BESIDE, *IN_NF4])
    assert needed(names, "bf16") == sorted([*BESIDE, *SHARDS])
    assert needed(names, "bf16", "nf4") == sorted(names)


def test_checksums_are_those_of_sha256sum(folder: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"], cwd=folder, check=True)
    sums = prepared.listed(folder)
    assert sums is not None
    assert set(sums) == {*BESIDE, *SHARDS, *IN_NF4, ORIGIN}
    assert sums["LICENSE"] == hashlib.sha256(b"LICENSE").hexdigest()


@pytest.mark.parametrize("line", ["x", f"{'0' * 64}  ../x", f"{'0' * 64}  a/../x", f"{'0' * 64}  /x", f"{'0' * 64} *x"])
def test_checksums_that_name_what_lies_elsewhere_are_damaged(folder: Path, line: str) -> None:
    (folder / "SHA256SUMS").write_text(line + "\n")
    assert prepared.listed(folder) is None
    assert choose(folder, quantise=True) is None


def test_a_folder_without_checksums_is_not_there(folder: Path) -> None:
    (folder / "SHA256SUMS").unlink()
    assert not has(folder, "bf16")
    assert not has(folder, "nf4")
    assert choose(folder, quantise=False) is None


def test_nf4_is_read_for_qlora_and_bf16_for_lora(folder: Path) -> None:
    assert choose(folder, quantise=True) == prepared.Weights(folder / "nf4", are_quantised=True)
    assert choose(folder, quantise=False) == prepared.Weights(folder, are_quantised=False)


@pytest.mark.parametrize("are_listed", [True, False])
def test_a_folder_of_nf4_alone_serves_qlora_alone(folder: Path, are_listed: bool) -> None:
    for name in SHARDS:
        (folder / name).unlink()
    if not are_listed:
        prepared.seal(folder, ORIGINAL)
    weights = choose(folder, quantise=True)
    assert weights is not None
    assert weights.are_quantised
    assert choose(folder, quantise=False) is None
    assert has_what_it_needs(folder, asked("qlora"))
    assert not has_what_it_needs(folder, asked("qlora", "merged"))
    assert not has_what_it_needs(folder, asked("lora"))


@pytest.mark.parametrize(
    ("stamp", "why"),
    [
        (None, "not prepared"),
        ("{}", "stamp"),
        ("half a", "stamp"),
        (STAMPED.model_copy(update={"format": 2}).model_dump_json(), "format 2"),
        (STAMPED.model_copy(update={"quantisation": QUANTISATION | {"type": "fp4"}}).model_dump_json(), "another way"),
        (STAMPED.model_copy(update={"bitsandbytes": "0.51.0"}).model_dump_json(), r"0\.51\.0, and 0\.50\.2"),
    ],
)
def test_nf4_that_may_not_be_read_is_quantised_anew(folder: Path, stamp: str | None, why: str) -> None:
    if stamp is None:
        (folder / STAMP).unlink()
        assert not has(folder, "nf4")
    else:
        (folder / STAMP).write_text(stamp)
    reason = unreadable(stamp)
    assert reason is not None
    assert re.search(why, reason)
    weights = choose(folder, quantise=True)
    assert weights is not None
    assert (weights.folder, weights.are_quantised) == (folder, False)
    assert weights.why_not
    assert not is_prepared(folder, ROW)


def test_a_patch_of_bitsandbytes_changes_nothing(folder: Path, installed: Callable[[str], None]) -> None:
    installed("0.50.9")
    assert is_prepared(folder, ROW)
    installed("0.51.0")
    assert not is_prepared(folder, ROW)


def test_another_revision_is_prepared_anew(folder: Path) -> None:
    assert is_prepared(folder, ROW)
    assert not is_prepared(folder, ROW.model_copy(update={"revision": "0" * 40}))
    assert not is_prepared(folder, CATALOGUE["google/gemma-2b"])


@pytest.mark.parametrize(
    ("method", "export", "why_not", "read"),
    [
        ("qlora", [], None, ["nf4"]),
        ("qlora", [], "too old", ["bf16"]),
        ("qlora", ["gguf"], None, ["nf4", "bf16"]),
        ("qlora", ["merged"], "too old", ["bf16"]),
        ("lora", [], None, ["bf16"]),
        ("lora", ["merged"], None, ["bf16"]),
    ],
)
def test_a_run_reads_no_more_than_it_needs(
    method: str, export: list[str], why_not: str | None, read: list[str]
) -> None:
    assert variants(asked(method, *export), why_not) == read


def test_what_says_how_the_base_was_prepared_goes_with_no_merged_model(folder: Path) -> None:
    assert [name for name in (ORIGIN, "SHA256SUMS") if _COPIED.fullmatch(name)] == []
