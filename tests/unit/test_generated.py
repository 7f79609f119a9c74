"""What docs/generate.py makes for editors."""

from __future__ import annotations

import pytest

from docs.generate import ROOT, manifest_schema
from schemas import yaml_strict
from schemas.aliases import SECTIONS, fields_of


@pytest.mark.parametrize(("section", "part"), [(s, model.__name__) for s, model in SECTIONS.items()])
def test_the_schema_describes_every_field(section: str, part: str) -> None:
    schema = manifest_schema()
    described = (schema["$defs"][part] if section else schema)["properties"]
    assert list(described) == fields_of(section)
    assert all("description" in field or "$ref" in field for field in described.values())


def test_only_the_base_model_and_the_data_are_required() -> None:
    schema = manifest_schema()
    assert schema["required"] == ["base_model", "dataset"]
    assert schema["$defs"]["Dataset"]["required"] == ["train"]


def test_the_demo_names_the_schema_for_editors() -> None:
    manifest = ROOT / "demo" / "support-bot" / "manifest.yaml"
    first = manifest.read_text("utf-8").splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert (manifest.parent / first.partition("=")[2]).resolve() == ROOT / "schemas" / "manifest.schema.json"
    yaml_strict.load(manifest.read_bytes(), file=manifest.name)
