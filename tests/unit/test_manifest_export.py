from __future__ import annotations

import pytest

from schemas.catalogue import CATALOGUE
from schemas.errors import Problem, Refused
from schemas.exports import GGUF_ARCHITECTURES
from schemas.manifest import Manifest
from schemas.manifest_reading import parse_manifest


def parse(export: str, model: str = "google/gemma-2b-it") -> Manifest:
    text = f"base_model: {model}\ndataset: {{train: [a.jsonl]}}\nexport: {export}\n"
    return parse_manifest(text.encode(), file="manifest.yaml", folder="bot")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("adapter", ["adapter"]),
        ("merged", ["merged"]),
        ("[adapter, merged, gguf]", ["adapter", "merged", "gguf"]),
        ("[gguf]", ["gguf"]),
    ],
)
def test_forms_are_named(written: str, read: list[str]) -> None:
    assert parse(written).export == read


def refused(export: str, model: str = "google/gemma-2b-it") -> Problem:
    with pytest.raises(Refused) as refusal:
        parse(export, model)
    (found,) = refusal.value.problems
    return found


def test_an_unknown_form_is_refused_with_the_nearest() -> None:
    found = refused("[adapter, gguff]")
    assert (found.code, found.field, found.hint) == ("invalid_value", "/export/1", "Did you mean gguf?")


@pytest.mark.parametrize("written", ["gguf", "[merged, gguf]"])
def test_gguf_of_an_architecture_that_cannot_be_checked_is_refused_at_intake(
    written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = CATALOGUE["Qwen/Qwen3-0.6B"]
    strange = row.model_copy(update={"architecture": row.architecture.model_copy(update={"model_type": "mamba"})})
    monkeypatch.setattr("schemas.manifest_reading.CATALOGUE", {**CATALOGUE, row.id: strange})
    found = refused(written, row.id)
    assert (found.code, found.line, found.field) == ("export_not_supported", 3, "/export")
    assert "architecture mamba" in found.message
    assert parse("merged", row.id).export == ["merged"]


def test_only_known_architectures_are_exported_as_gguf() -> None:
    for row in CATALOGUE.values():
        if row.architecture.model_type in GGUF_ARCHITECTURES:
            assert parse("gguf", row.id).export == ["gguf"]
