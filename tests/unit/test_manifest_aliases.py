"""The names of other tools: each resolves to the canonical setting, or is refused with a reason."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.aliases import ALIASES, DECIDED, KINDS, SECTIONS, WRAPPERS, fields_of, names_in
from schemas.errors import Refused
from schemas.manifest import Manifest
from schemas.manifest_reading import parse_manifest

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
BASE = {"base_model": MODEL, "dataset": {"train": ["a.jsonl"]}}


def parse(settings: Any) -> Manifest:
    return parse_manifest(json.dumps(settings).encode(), file="manifest.json", folder="bot")


def refused(settings: Any) -> list[tuple[str, str | None, str]]:
    with pytest.raises(Refused) as caught:
        parse(settings)
    return [(found.code, found.field, found.hint) for found in caught.value.problems]


VALUES: dict[str, Any] = {
    "name": "other",
    "base_model": "google/gemma-2b-it",
    "dataset.train": ["b.jsonl"],
    "dataset.validation": ["c.jsonl"],
    "method": "lora",
    "lora.r": 8,
    "lora.alpha": 24,
    "lora.dropout": 0.25,
    "lora.target_modules": "all-linear",
    "training.epochs": 2.5,
    "training.learning_rate": 4.0e-4,
    "training.lr_scheduler": "constant",
    "training.max_grad_norm": 2.0,
    "training.batch_size": 6,
    "training.max_seq_length": 512,
    "training.packing": False,
    "training.seed": 7,
    "training.train_on": "all",
    "training.early_stopping.patience": 5,
    "labels": {"team": "support"},
}
"""A value of each setting that has aliases and excludes no other here."""
WRITTEN: dict[str, Any] = {
    "load_in_4bit": False,
    "lora_target": "all",
    "lora_target_linear": True,
    "learning_rate_multiplier": 2.0,
    "lr_scheduler_type": "constant_with_warmup",
    "train_on_inputs": True,
    "train_on_prompt": True,
    "completion_only_loss": False,
    "assistant_only_loss": False,
}
"""How an alias writes that value, where it does not write it as it is."""
OTHER_VALUE = {"quantization_bit", "gradient_accumulation_steps"}
"""Aliases that cannot say that value by themselves."""


def put(settings: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    *sections, name = path.split(".")
    part = settings
    for section in sections:
        part = part.setdefault(section, {})
    part[name] = value
    return settings


def nested(values: dict[str, Any]) -> dict[str, Any]:
    settings = json.loads(json.dumps(BASE))
    for path, value in values.items():
        put(settings, path, value)
    return settings


def spellings(path: str) -> list[tuple[str, Any]]:
    """Each (path, value) that says VALUES[path]: every name, in its section and at the top level."""
    section, _, own = path.rpartition(".")
    names = [name for a in ALIASES if a.setting == path for name in a.names.split() if name not in OTHER_VALUE]
    flat = [own] if section in {"lora", "training"} else []
    places = [path, *flat, *names, *(f"{section}.{name}" for name in names if section)]
    return [(place, WRITTEN.get(place.rpartition(".")[2], VALUES[path])) for place in places]


ALL_SPELLINGS = [(path, spelt, value) for path in VALUES for spelt, value in spellings(path)]


@pytest.mark.parametrize(("path", "spelt", "value"), ALL_SPELLINGS)
def test_every_name_says_the_same(path: str, spelt: str, value: Any) -> None:
    canonical = nested({path: VALUES[path]})
    other = json.loads(json.dumps(BASE))
    *sections, last = path.split(".")
    part = other
    for section in sections:
        part = part.get(section, {})
    part.pop(last, None)
    assert parse(put(other, spelt, value)) == parse(canonical)


@st.composite
def spelt_manifests(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same settings twice: under their canonical names, and under names drawn for each."""
    chosen = draw(st.lists(st.sampled_from(sorted(VALUES)), unique=True))
    values = {"base_model": MODEL, "dataset.train": ["a.jsonl"]} | {path: VALUES[path] for path in chosen}
    settings: dict[str, Any] = {}
    for path in chosen:
        put(settings, *draw(st.sampled_from(spellings(path))))
    for path in values.keys() - set(chosen):
        put(settings, path, values[path])
    return nested(values), settings


@given(spelt_manifests())
def test_any_spelling_of_a_manifest_is_the_same_manifest(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
    canonical, spelt = pair
    assert parse(spelt) == parse(canonical)


@given(spelt_manifests(), st.booleans())
def test_the_canonical_manifest_says_itself(pair: tuple[dict[str, Any], dict[str, Any]], by_alias: bool) -> None:
    manifest = parse(pair[1])
    assert parse(manifest.model_dump(mode="json", by_alias=by_alias)) == manifest


_NAMES = sorted(
    {name.rpartition(".")[2] for name in [*WRAPPERS, *KINDS]}
    | {name for section in SECTIONS for name in names_in(section)}
    | {"", "foo", "a.b", "training.epochs", "output_dir", "a/b~c", "$ref", "q_proj"}
)
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(
        [10**60, -1, 0, 1, 2, 1e308, "auto", "nan", "1h", "9" * 90, "", "a,b", "all", "lora", MODEL, "\u202e"]
    )
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=5),
    max_leaves=15,
)


@given(st.dictionaries(st.sampled_from(_NAMES), _VALUES, max_size=8), st.none() | _VALUES, st.booleans())
@example({"finetuning_type": [], "adapter": []}, None, False)
@example({"finetuning_type": {}, "method": "lora"}, None, True)
def test_no_settings_raise_anything_but_refused(settings: dict[str, Any], defaults: Any, complete: bool) -> None:
    text = json.dumps((BASE if complete else {}) | settings).encode()
    base = None if defaults is None else json.dumps(defaults).encode()
    with contextlib.suppress(Refused):
        manifest = parse_manifest(text, file="m", folder="bot", defaults=base)
        assert parse(manifest.model_dump(mode="json")) == manifest


def test_a_job_of_openai_is_a_manifest() -> None:
    hyperparameters = {"n_epochs": "auto", "batch_size": 8, "learning_rate_multiplier": 0.5}
    manifest = parse(
        {
            "model": MODEL,
            "training_file": "a.jsonl",
            "validation_file": "b.jsonl",
            "suffix": "mine",
            "seed": 7,
            "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
            "metadata": {"team": "support"},
        }
    )
    assert (manifest.name, manifest.dataset.train, manifest.dataset.validation) == ("mine", ["a.jsonl"], ["b.jsonl"])
    assert (manifest.training.epochs, manifest.training.batch_size, manifest.training.learning_rate) == (3, 8, 1e-4)
    assert (manifest.training.seed, manifest.labels) == (7, {"team": "support"})


def test_a_job_of_together_is_a_manifest() -> None:
    manifest = parse(
        {
            "model": MODEL,
            "training_file": "a.jsonl",
            "training_type": {"type": "Lora", "lora_r": 8, "lora_alpha": 8, "lora_trainable_modules": "all-linear"},
            "training_method": {"method": "sft", "train_on_inputs": "auto"},
        }
    )
    assert (manifest.lora.r, manifest.lora.alpha, manifest.lora.target_modules) == (8, 8, "all-linear")
    assert manifest.training.train_on == "completions"


@pytest.mark.parametrize(
    ("settings", "batch_size"),
    [
        ({"micro_batch_size": 2, "gradient_accumulation_steps": 4}, 8),
        ({"per_device_train_batch_size": 3}, 3),
        ({"micro_batch_size": "0002"}, 2),
        ({"micro_batch_size": 2, "gradient_accumulation_steps": 4, "training": {"batch_size": 8}}, 8),
        ({"gradient_accumulation_steps": 1}, "auto"),
    ],
)
def test_micro_batches_times_accumulation_are_the_batch(settings: dict[str, Any], batch_size: object) -> None:
    assert parse(BASE | settings).training.batch_size == batch_size


@pytest.mark.parametrize(
    ("settings", "method"),
    [
        ({"finetuning_type": "lora"}, "lora"),
        ({"finetuning_type": "lora", "quantization_bit": 4}, "qlora"),
        ({"adapter": "qlora", "load_in_4bit": True}, "qlora"),
    ],
)
def test_four_bits_are_qlora(settings: dict[str, Any], method: str) -> None:
    assert parse(BASE | settings).method == method


@pytest.mark.parametrize(
    ("settings", "code", "field"),
    [
        ({"num_epochs": 1, "training": {"epochs": 2}}, "conflicting_fields", "/training/epochs"),
        ({"num_epochs": 1, "training": {"max_steps": 2}}, "conflicting_fields", "/training/max_steps"),
        ({"training_file": "b.jsonl"}, "conflicting_fields", "/training_file"),
        ({"batch_size": 4, "micro_batch_size": 2}, "conflicting_fields", "/micro_batch_size"),
        ({"adapter": "lora", "load_in_4bit": True}, "conflicting_fields", "/load_in_4bit"),
        ({"gradient_accumulation_steps": 4}, "invalid_value", "/gradient_accumulation_steps"),
        ({"micro_batch_size": 0}, "invalid_value", "/micro_batch_size"),
        ({"micro_batch_size": "0000000001" + "9" * 5000}, "invalid_value", "/micro_batch_size"),
        ({"learning_rate_multiplier": "much"}, "invalid_value", "/learning_rate_multiplier"),
        ({"quantization_bit": 8}, "invalid_value", "/quantization_bit"),
        ({"finetuning_type": "full"}, "invalid_value", "/finetuning_type"),
        ({"cutoff_len": 9000}, "context_exceeded", "/cutoff_len"),
        ({"stage": "dpo"}, "unsupported_method", "/stage"),
        ({"method": {"type": "reinforcement"}}, "unsupported_method", "/method/type"),
        ({"training_type": {"type": "Full"}}, "unsupported_method", "/training_type/type"),
    ],
)
def test_a_problem_is_told_where_and_as_it_was_written(settings: dict[str, Any], code: str, field: str) -> None:
    assert [(found, place) for found, place, _ in refused(BASE | settings)] == [(code, field)]


@pytest.mark.parametrize("name", [n.replace("*", "x") for names in DECIDED.values() for n in names.split()])
def test_what_adaptml_decides_itself_is_refused_with_that_reason(name: str) -> None:
    ((code, field, hint),) = refused(BASE | {name: 1})
    assert (code, field) == ("unknown_field", f"/{name}")
    assert hint.startswith("AdaptML decides this itself")


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"epoch": 1}, "Did you mean epochs?"),
        ({"timeout": "1h"}, "Did you mean compute.timeout?"),
        ({"training": {"rank": 8}}, "Did you mean lora.r?"),
        ({"training": {"num_epoch": 8}}, "Did you mean num_epochs (training.epochs)?"),
        ({"training.epochs": 3}, "Write it as `training: {epochs: …}`."),
        ({"compute": {"zzz": 3}}, "Known fields here: accelerator, max_attempts, max_cost_usd, timeout."),
    ],
)
def test_an_unknown_name_suggests_what_was_meant(settings: dict[str, Any], hint: str) -> None:
    assert [(code, found) for code, _, found in refused(BASE | settings)] == [("unknown_field", hint)]


def test_no_name_means_two_settings() -> None:
    for section in SECTIONS:
        here = [a for a in ALIASES if not section or a.target.startswith(section + ".")]
        names = [name for a in here for name in a.names.split()]
        assert len(names) == len(set(names))
        assert all(
            a.setting == f"{section}.{own}".strip(".")
            for own in fields_of(section)
            for a in here
            if own in a.names.split()
        )
