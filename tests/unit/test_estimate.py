from __future__ import annotations

import math
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptml.planning import memory
from adaptml.planning.estimate import (
    COUNTED,
    FROM_CHARACTERS,
    PRICES,
    STARTUP_S,
    Basis,
    batch_size,
    cautions,
    cost_usd,
    estimate,
    objections,
    sampled,
    steps,
)
from adaptml.planning.memory import BF16_BYTES, NF4_BYTES, gpu_memory_bytes
from schemas.catalogue import CATALOGUE
from schemas.manifest import Manifest
from schemas.run import Estimate, to_document

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


def manifest(model: str = "google/gemma-2b-it", **parts: object) -> Manifest:
    return Manifest.model_validate({"name": "bot", "base_model": model, "dataset": {"train": ["a.jsonl"]}} | parts)


models = st.sampled_from(sorted(CATALOGUE))
lengths = st.integers(32, 131_072)
trainings = st.one_of(
    st.builds(lambda n: {"epochs": n / 10}, st.integers(1, 1000)),
    st.builds(lambda n: {"max_steps": n}, st.integers(1, 10_000)),
)
bases = st.one_of(
    st.sampled_from([COUNTED, FROM_CHARACTERS]),
    st.integers(1, 5000).flatmap(lambda of: st.builds(sampled, st.integers(1, of), st.just(of))),
)
manifests = st.builds(
    lambda model, method, r, modules, length, training: manifest(
        model,
        method=method,
        lora={"r": r, "target_modules": modules},
        training=training | {"max_seq_length": length},
    ),
    models,
    st.sampled_from(["qlora", "lora"]),
    st.integers(1, 256),
    st.sampled_from(["attention", "all-linear"]),
    lengths,
    trainings,
)
work = st.tuples(st.integers(0, 10**10), st.integers(1, 10**6))
"""Tokens of an epoch, examples."""


def changed(asked: Manifest, **values: Any) -> Manifest:
    """`training__epochs=1` sets training.epochs."""
    document = asked.model_dump(by_alias=True)
    for name, value in values.items():
        *parts, field = name.split("__")
        part = document
        for key in parts:
            part = part[key]
        part[field] = value
    return Manifest.model_validate(document)


def test_gemma_2b_has_the_parameters_of_the_original() -> None:
    shape = CATALOGUE["google/gemma-2b-it"].architecture
    assert shape.parameters() == 2_506_172_416
    assert shape.lora_parameters(16, ATTENTION) == 3_686_400


@pytest.mark.parametrize("model", sorted(CATALOGUE))
def test_every_parameter_takes_its_place_in_the_plan(model: str) -> None:
    """Quantising takes it from the linear layers' weights and from nothing else: embeddings, norms, biases stay."""
    shape = CATALOGUE[model].architecture
    qlora, lora = gpu_memory_bytes(manifest(model)), gpu_memory_bytes(manifest(model, method="lora"))
    assert lora - qlora == pytest.approx(shape.linear_parameters() * (BF16_BYTES - NF4_BYTES))
    without = shape.model_copy(update={"qkv_bias": not shape.qkv_bias})
    with patch.object(memory, "CATALOGUE", {model: CATALOGUE[model].model_copy(update={"architecture": without})}):
        others = without.parameters() - shape.parameters()
        assert others == without.bias_parameters() - shape.bias_parameters() != 0
        assert gpu_memory_bytes(manifest(model)) - qlora == pytest.approx(others * BF16_BYTES)


def test_a_context_of_128_k_tokens_is_no_small_thing() -> None:
    model = "meta-llama/Llama-3.2-1B-Instruct"
    half, whole = (gpu_memory_bytes(manifest(model, training={"max_seq_length": n})) for n in (65_536, 131_072))
    assert whole > 1.8 * half
    assert not estimate(manifest(model, training={"max_seq_length": 131_072}), 0, 1).fits


def test_quantising_shrinks_the_plan_and_length_grows_it() -> None:
    qlora, lora = gpu_memory_bytes(manifest()), gpu_memory_bytes(manifest(method="lora"))
    long = gpu_memory_bytes(manifest(training={"max_seq_length": 8192}))
    assert qlora < lora
    assert qlora < long


def test_an_hour_on_an_l4_costs_about_what_the_list_says() -> None:
    assert cost_usd("nvidia-l4", 3600) == pytest.approx(0.672 + 4 * 0.0648 + 16 * 0.0072, rel=0.01)


def test_the_original_100_samples_stay_under_a_dollar() -> None:
    planned = estimate(manifest(), tokens_per_epoch=100 * 120, examples=100)
    assert planned.cost_usd_range is not None
    assert planned.cost_usd_range[1] < 1
    assert not objections(manifest(), planned)


@given(manifests, work, bases)
def test_each_expected_value_lies_within_its_range(asked: Manifest, work: tuple[int, int], basis: Basis) -> None:
    planned = estimate(asked, *work, basis=basis)
    for name in ("gpu_memory_gb", "duration_s", "cost_usd"):
        low, high = getattr(planned, f"{name}_range")
        assert 0 <= low <= getattr(planned, name) <= high


@given(manifests, work, st.integers(0, 10**9))
def test_more_tokens_are_never_cheaper(asked: Manifest, work: tuple[int, int], more: int) -> None:
    tokens, examples = work
    less, greater = estimate(asked, tokens, examples), estimate(asked, tokens + more, examples)
    assert less.cost_usd <= greater.cost_usd
    assert less.duration_s <= greater.duration_s


@given(manifests, work, st.integers(70, 86_400))
def test_each_execution_has_a_start_up(asked: Manifest, work: tuple[int, int], timeout: int) -> None:
    planned = estimate(changed(asked, compute__timeout=timeout), *work)
    at_once = estimate(changed(asked, compute__timeout=86_400), *work)
    if planned.executions and at_once.executions == 1:
        more_s = (planned.executions - 1) * STARTUP_S.expected
        assert planned.duration_s == pytest.approx(at_once.duration_s + more_s, abs=1)
    assert not (objections(asked, planned) and cautions(asked, planned) and planned.executions == 0)


@given(manifests, lengths)
def test_a_longer_sequence_never_needs_less_memory(asked: Manifest, length: int) -> None:
    other = changed(asked, training__max_seq_length=length)
    short, long = sorted([asked, other], key=lambda one: one.training.max_seq_length)
    assert gpu_memory_bytes(short) <= gpu_memory_bytes(long)


@given(manifests)
def test_qlora_never_needs_more_memory_than_lora(asked: Manifest) -> None:
    assert gpu_memory_bytes(changed(asked, method="qlora")) <= gpu_memory_bytes(changed(asked, method="lora"))


@given(st.integers(1, 5000), st.integers(0, 5000))
def test_a_larger_sample_is_surer_and_a_whole_one_is_sure(rows: int, more: int) -> None:
    of = rows + more
    assert sampled(of, of)[1:] == COUNTED[1:]
    assert sampled(rows, of).high >= sampled(min(rows + 1, of), of).high


@pytest.mark.parametrize(("examples", "size"), [(1, 4), (80, 4), (200, 10), (100_000, 32)])
def test_batch_size_auto(examples: int, size: int) -> None:
    assert batch_size(manifest(), examples) == size


@given(trainings, st.integers(1, 10**5))
def test_steps_are_those_of_the_trainer(training: dict[str, Any], examples: int) -> None:
    asked = manifest(training=training)
    per_epoch = math.ceil(examples / batch_size(asked, examples))
    assert steps(asked, examples) == training.get("max_steps", max(1, round(training.get("epochs", 0) * per_epoch)))


def test_an_estimate_without_the_later_fields_is_read() -> None:
    old = Estimate.model_validate({"gpu_memory_gb": 6.1, "duration_s": 300.0, "cost_usd": 0.09})
    assert old.duration_s_range is None
    assert old.fits


@given(manifests, work, bases)
def test_an_estimate_survives_the_store(asked: Manifest, work: tuple[int, int], basis: Basis) -> None:
    planned = estimate(asked, *work, basis=basis)
    assert Estimate.model_validate(to_document(planned.model_dump())) == planned


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ({"training": {"max_seq_length": 131_072}}, "does_not_fit"),
        ({"compute": {"max_cost_usd": 0.01}}, "too_expensive"),
        ({"compute": {"timeout": "60s"}}, "too_long"),
    ],
)
def test_a_plan_that_cannot_be_kept_is_objected_to(parts: dict[str, Any], code: str) -> None:
    asked = manifest(**parts)
    found = objections(asked, estimate(asked, tokens_per_epoch=2_000_000, examples=4000))
    assert code in {p.code for p in found}


@settings(max_examples=60)
@given(manifests, st.integers(1, 40))
def test_only_what_fits_is_not_objected_to(asked: Manifest, memory_gb: int) -> None:
    with patch.dict(PRICES["accelerators"]["nvidia-l4"], memory_gb=memory_gb):
        planned = estimate(asked, 0, 1)
        refused = any(found.code == "does_not_fit" for found in objections(asked, planned))
    assert refused == (planned.gpu_memory_gb > memory_gb) == (not planned.fits)
