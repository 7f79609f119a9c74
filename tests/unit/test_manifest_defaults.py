"""`_defaults.yaml` of a tenant completes its manifests."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.errors import Problem, Refused
from schemas.manifest import Manifest
from schemas.manifest_reading import declared_name, parse_inline, parse_manifest

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
DROP = f"base_model: {MODEL}\n"


def parse(text: str, defaults: str) -> Manifest:
    return parse_manifest(text.encode(), file="manifest.yaml", folder="bot", defaults=defaults.encode())


def refused(text: str, defaults: str) -> list[Problem]:
    with pytest.raises(Refused) as caught:
        parse(text, defaults)
    return caught.value.problems


def test_a_drop_may_be_data_and_a_base_model() -> None:
    manifest = parse(DROP, "dataset: {train: [train.jsonl]}\nnum_epochs: 2\nlabels: {team: support}\n")
    assert manifest.dataset.train == ["train.jsonl"]
    assert manifest.training.epochs == 2
    assert manifest.labels == {"team": "support"}
    assert manifest.name == "bot"


@pytest.mark.parametrize(
    ("drop", "defaults", "part", "expected"),
    [
        ("training: {epochs: 1}", "training: {epochs: 2, seed: 7}", "training", {"epochs": 1.0, "seed": 7}),
        ("labels: {a: x}", "labels: {a: y, b: z}", "labels", {"a": "x", "b": "z"}),
        ("max_steps: 5", "num_epochs: 2", "training", {"max_steps": 5}),
        ("n_epochs: 2", "training: {max_steps: 5}", "training", {"epochs": 2.0}),
        ("num_epochs: 2", "training: {epochs: 5, seed: 7}", "training", {"epochs": 2.0, "seed": 7}),
        ("training: {epochs: null}", "training: {epochs: 5}", "training", None),
        ("training: {early_stopping: null}", "early_stopping_patience: 2", "training", None),
        ("lora: {r: 8}", "lora: {alpha: 8}", "lora", {"r": 8, "alpha": 8}),
        ("lora: {}", "lora: {alpha: 8}", "lora", {"alpha": 8}),
        ("lora: {target_modules: q_proj}", "lora: {target_modules: [k_proj]}", "lora", {"target_modules": ["q_proj"]}),
        ("compute: {timeout: 1h}", "compute: {timeout: 2h, max_cost_usd: 1}", "compute", {"max_cost_usd": 1.0}),
    ],
)
def test_the_manifest_goes_first(drop: str, defaults: str, part: str, expected: dict[str, Any] | None) -> None:
    manifest = parse(f"{DROP}dataset: {{train: [a]}}\n{drop}\n", defaults)
    assert manifest.model_dump(mode="json", exclude_defaults=True).get(part) == expected


def test_held_out_files_replace_a_default_split() -> None:
    manifest = parse(f"{DROP}validation: v.jsonl\n", "dataset: {train: t.jsonl, validation_split: 0.1}")
    assert (manifest.dataset.validation, manifest.dataset.validation_split) == (["v.jsonl"], None)


@pytest.mark.parametrize("defaults", ["", "# nothing yet\n", "{}"])
def test_empty_defaults_say_nothing(defaults: str) -> None:
    assert parse(f"{DROP}train: a\n", defaults) == parse(f"{DROP}train: a\n", "{}")


@pytest.mark.parametrize(
    ("defaults", "code", "line"),
    [
        ("train: a\ntraining:\n  epochs: -1\n", "invalid_value", 3),
        ("train: a\nepohcs: 3\n", "unknown_field", 2),
        ("train: a\nepochs: 3\nmax_steps: 3\n", "conflicting_fields", 3),
        ("train: a\nname: ours\n", "invalid_value", 2),
        ("train: ../a\n", "unsafe_path", 1),
        ("train: a\nlora: {target_modules: kproj}\n", "unknown_target_module", 2),
        ("- a\n", "manifest_not_a_mapping", 1),
        ("a: &x 1\n", "manifest_unsafe_yaml", 1),
        ("\x00", "manifest_not_text", 1),
    ],
)
def test_a_mistake_in_the_defaults_names_their_file(defaults: str, code: str, line: int) -> None:
    assert [(p.file, p.code, p.line) for p in refused(DROP, defaults)] == [("_defaults.yaml", code, line)]


def test_mistakes_of_both_files_are_told_at_once_the_manifests_first() -> None:
    found = refused(f"{DROP}train: a\nepohcs: 1\n", "lora: {r: 0}\n")
    assert [(p.file, p.code) for p in found] == [
        ("manifest.yaml", "unknown_field"),
        ("_defaults.yaml", "invalid_value"),
    ]


def test_a_request_is_completed_too_and_its_files_go_first() -> None:
    manifest = parse_inline(
        f"name: nightly\n{DROP}", file="request", folder="nightly", train=["x.jsonl"], defaults=b"train: a\nseed: 7\n"
    )
    assert (manifest.dataset.train, manifest.training.seed) == (["x.jsonl"], 7)


@pytest.mark.parametrize(("text", "name"), [("name: a", "a"), ("suffix: b", "b")])
def test_a_text_may_declare_a_name(text: str, name: str) -> None:
    assert declared_name(text) == name


@pytest.mark.parametrize("text", ["name: A B", "name: [a]", "name: 1", "a: [", ""])
def test_a_text_may_declare_none(text: str) -> None:
    assert declared_name(text) is None
