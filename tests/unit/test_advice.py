"""Suggestions are taken from the text that people read, applied, and planned again."""

from __future__ import annotations

import re
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from adaptml.planning.attempts import attempts_needed, leave_before_s, timeout_for
from adaptml.planning.estimate import (
    PRICES,
    STARTUP_S,
    cautions,
    epochs,
    estimate,
    objections,
    steps,
    training_seconds,
)
from adaptml.planning.span import Span
from schemas.catalogue import CATALOGUE
from schemas.errors import Problem
from schemas.manifest import Manifest
from tests.unit.test_estimate import manifest, manifests, trainings, work

GEMMA, SMOL = "google/gemma-2b-it", "HuggingFaceTB/SmolLM2-135M-Instruct"
amounts = st.integers(1, 1000).map(lambda cents: cents / 100)
timeouts = st.integers(60, 86_400)


def objection(code: str, asked: Manifest, work: tuple[int, int]) -> Problem | None:
    planned = estimate(asked, *work)
    found = objections(asked, planned) + cautions(asked, planned)
    return next((one for one in found if one.code == code), None)


def suggested(hint: str) -> list[dict[str, str]]:
    """Each way that the hint names: field → value, as written."""
    ways = hint[hint.index("Set ") :].split(", or ") if "Set " in hint else []
    return [dict(re.findall(r"`([\w.]+): ([^`]+)`", way)) for way in ways]


def apply(asked: Manifest, way: dict[str, Any]) -> Manifest:
    document = asked.model_dump(by_alias=True)
    for name, value in way.items():
        *parts, field = name.split(".")
        part = document
        for key in parts:
            part = part[key]
        part[field] = value
    return Manifest.model_validate(document)


def next_step_up(way: dict[str, str]) -> dict[str, Any] | None:
    """The way with its amount a step nearer to what was asked; None where there is no amount."""
    for name, value in way.items():
        match name:
            case "training.max_seq_length":
                return way | {name: int(value) + 64}
            case "training.epochs":
                return way | {name: round(float(value) + 0.1, 1)}
            case "training.max_steps":
                return way | {name: int(value) + 1}
            case "compute.max_cost_usd":
                return way | {name: round(float(value) - 0.01, 2)}
            case "compute.timeout":
                return way | {name: f"{int(value.removesuffix('m')) - 1}m"}
    return None


def check(code: str, asked: Manifest, work: tuple[int, int], found: Problem) -> None:
    for way in suggested(found.hint):
        helped = apply(asked, way)
        assert objection(code, helped, work) is None, way
        step = next_step_up(way)
        longer = int(way.get("training.max_seq_length", 0)) + 64
        if step is not None and longer <= CATALOGUE[helped.base_model].context:
            assert objection(code, apply(asked, step), work) is not None, step


@settings(deadline=None)
@given(manifests, st.integers(10, 400).map(lambda tenths: tenths / 10))
def test_what_is_suggested_fits_and_a_step_more_does_not(asked: Manifest, memory_gb: float) -> None:
    with patch.dict(PRICES["accelerators"]["nvidia-l4"], memory_gb=memory_gb):
        found = objection("does_not_fit", asked, (0, 1))
        assume(found is not None)
        assert found is not None
        assert suggested(found.hint) or "lower lora.r" in found.hint
        check("does_not_fit", asked, (0, 1), found)


@settings(deadline=None)
@given(trainings, work, amounts)
def test_what_is_suggested_is_affordable_and_a_step_more_is_not(
    training: dict[str, Any], work: tuple[int, int], limit: float
) -> None:
    asked = manifest(training=training, compute={"max_cost_usd": limit})
    found = objection("too_expensive", asked, work)
    assume(found is not None)
    assert found is not None
    check("too_expensive", asked, work, found)


@settings(deadline=None)
@given(trainings, st.integers(1, 10**6), st.integers(600, 80_000), st.floats(0, 1))
def test_what_is_suggested_ends_in_one_execution_and_a_step_more_does_not(
    training: dict[str, Any], examples: int, seconds: int, share: float
) -> None:
    """The run's steps take so many seconds, and its timeout leaves room for a share of them, but not for all."""
    whole = manifest(training=training)
    count = steps(whole, examples)
    assume(count > 1)
    a_token_s = training_seconds(whole, Span(1, 1, 1)).expected
    work = round(seconds / a_token_s / epochs(whole, examples)), examples
    at_once = max(1, min(count - 1, int(share * count)))
    timeout = timeout_for(STARTUP_S.expected + seconds * (at_once + 0.5) / count)
    asked = manifest(training=training, compute={"timeout": round(timeout)})
    found = objection("takes_several_attempts", asked, work)
    assume(found is not None)  # rounded to seconds, there may be room for one more
    assert found is not None
    for way in suggested(found.hint):
        assert estimate(apply(asked, way), *work).executions == 1, way
        step = next_step_up(way)
        assert step is not None
        assert estimate(apply(asked, step), *work).executions != 1, step


@settings(deadline=None)
@given(trainings, st.tuples(st.integers(10**6, 10**10), st.integers(1, 100)), timeouts)
def test_with_what_is_suggested_an_execution_takes_a_step(
    training: dict[str, Any], work: tuple[int, int], timeout: int
) -> None:
    asked = manifest(training=training, compute={"timeout": timeout})
    found = objection("too_long", asked, work)
    assume(found is not None)
    assert found is not None
    for way in suggested(found.hint):
        assert objection("too_long", apply(asked, way), work) is None, way
        if "compute.timeout" in way:
            assert objection("too_long", apply(asked, next_step_up(way) or {}), work) is not None


@given(timeouts)
def test_the_least_timeout_leaves_what_is_needed(needed_s: int) -> None:
    timeout_s = timeout_for(needed_s)
    assert timeout_s - leave_before_s(timeout_s) == pytest.approx(needed_s)


@given(st.integers(1, 1000), st.floats(0, 1e4), st.floats(-100, 1e5))
def test_steps_are_not_cut_by_the_end_of_an_attempt(steps: int, step_s: float, usable_s: float) -> None:
    needed = attempts_needed(steps, step_s, usable_s)
    if needed == 0:
        assert usable_s <= 0 or step_s > usable_s
    else:
        in_each = int(usable_s / step_s) if step_s * steps > usable_s else steps
        assert needed * in_each >= steps > (needed - 1) * in_each


def hint(code: str, asked: Manifest, work: tuple[int, int] = (2_000_000, 4000)) -> str:
    found = objection(code, asked, work)
    assert found is not None
    return found.hint


def test_epochs_or_money() -> None:
    asked = manifest(compute={"max_cost_usd": 0.3})
    assert hint("too_expensive", asked) == "Set `training.epochs: 0.9`, or `compute.max_cost_usd: 0.89`."


def test_time_or_epochs() -> None:
    asked = manifest(compute={"timeout": "20m"})
    told = hint("takes_several_attempts", asked)
    at_once = "For a run in one execution: Set `compute.timeout: 53m`, or `training.epochs: 1`."
    assert told == f"Nothing has to be done. {at_once}"


def test_time_or_a_smaller_batch_where_a_step_takes_too_long() -> None:
    asked = manifest(training={"batch_size": 64}, compute={"timeout": "80s"})
    assert hint("too_long", asked) == "Set `compute.timeout: 2m`, or `training.batch_size: 48`."


def test_steps_are_suggested_where_steps_were_asked() -> None:
    asked = manifest(training={"max_steps": 500}, compute={"max_cost_usd": 0.3})
    assert "`training.max_steps: " in hint("too_expensive", asked)


def test_no_limit_is_suggested_beyond_what_the_field_allows() -> None:
    asked = manifest(training={"epochs": 0.1}, compute={"timeout": "1h"})
    told = hint("too_expensive", asked, (10**12, 4000))
    assert "Set" not in told
    assert "less data" in told
    assert hint("takes_several_attempts", asked, (10**10, 400_000)) == "Nothing has to be done."
    told = hint("too_long", asked, (10**12, 4))
    assert told == "No timeout that can be set is enough; train on shorter examples."


def test_qlora_is_suggested_where_it_is_enough() -> None:
    asked = manifest(method="lora")
    with patch.dict(PRICES["accelerators"]["nvidia-l4"], memory_gb=7):
        assert {"method": "qlora"} in suggested(hint("does_not_fit", asked))


@pytest.mark.parametrize(
    ("memory_gb", "ways"),
    [
        (2, [{"base_model": "Qwen/Qwen3-0.6B"}]),
        (1.1, [{"base_model": SMOL}]),
        (1.03, [{"base_model": SMOL, "training.max_seq_length": "192"}]),
        (0.5, []),
    ],
)
def test_where_no_length_fits_a_smaller_model_is_named(memory_gb: float, ways: list[dict[str, str]]) -> None:
    with patch.dict(PRICES["accelerators"]["nvidia-l4"], memory_gb=memory_gb):
        told = hint("does_not_fit", manifest(training={"max_seq_length": 256}))
    assert f"No training.max_seq_length is short enough for {GEMMA}" in told
    assert suggested(told) == ways


def test_what_is_suggested_is_not_cut() -> None:
    lora = {"r": 256, "target_modules": "all-linear"}
    asked = manifest("meta-llama/Llama-3.1-8B-Instruct", method="lora", lora=lora, training={"max_seq_length": 442})
    with patch.dict(PRICES["accelerators"]["nvidia-l4"], memory_gb=2.3):
        told = hint("does_not_fit", asked)
    (way,) = suggested(told)
    assert list(way) == ["base_model", "method", "training.max_seq_length"]
    assert told.endswith("`.")


def test_a_model_that_cannot_chat_does_not_stand_in_for_one_that_can() -> None:
    with patch.dict(PRICES["accelerators"]["nvidia-l4"], memory_gb=4):
        (way,) = suggested(hint("does_not_fit", manifest("Qwen/Qwen3-8B")))
    assert CATALOGUE[way["base_model"]].chat is not None


def test_a_suggestion_stays_within_the_models_context() -> None:
    asked = manifest(SMOL, training={"max_seq_length": 131_072})
    with patch.dict(PRICES["accelerators"]["nvidia-l4"], memory_gb=4):
        for way in suggested(hint("does_not_fit", asked)):
            assert int(way["training.max_seq_length"]) <= CATALOGUE[SMOL].context
