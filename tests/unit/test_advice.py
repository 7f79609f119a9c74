"""Suggestions are taken from the text that people read, applied, and planned again."""

from __future__ import annotations

import re
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from adaptml.planning.estimate import PRICES, estimate, objections
from schemas.catalogue import CATALOGUE
from schemas.errors import Problem
from schemas.manifest import Manifest
from tests.unit.test_estimate import manifest, manifests, trainings, work

GEMMA, SMOL = "google/gemma-2b-it", "HuggingFaceTB/SmolLM2-135M-Instruct"
amounts = st.integers(1, 1000).map(lambda cents: cents / 100)
timeouts = st.integers(60, 86_400)


def objection(code: str, asked: Manifest, work: tuple[int, int]) -> Problem | None:
    found = objections(asked, estimate(asked, *work))
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
@given(trainings, work, timeouts)
def test_what_is_suggested_ends_in_time_and_a_step_more_does_not(
    training: dict[str, Any], work: tuple[int, int], timeout: int
) -> None:
    asked = manifest(training=training, compute={"timeout": timeout})
    found = objection("too_long", asked, work)
    assume(found is not None)
    assert found is not None
    check("too_long", asked, work, found)


def hint(code: str, asked: Manifest, work: tuple[int, int] = (2_000_000, 4000)) -> str:
    found = objection(code, asked, work)
    assert found is not None
    return found.hint


def test_epochs_or_money() -> None:
    asked = manifest(compute={"max_cost_usd": 0.3})
    assert hint("too_expensive", asked) == "Set `training.epochs: 0.9`, or `compute.max_cost_usd: 0.89`."


def test_time_or_epochs() -> None:
    asked = manifest(compute={"timeout": "20m"})
    assert hint("too_long", asked) == "Set `compute.timeout: 51m`, or `training.epochs: 1.1`."


def test_steps_are_suggested_where_steps_were_asked() -> None:
    asked = manifest(training={"max_steps": 500}, compute={"max_cost_usd": 0.3})
    assert "`training.max_steps: " in hint("too_expensive", asked)


def test_no_limit_is_suggested_beyond_what_the_field_allows() -> None:
    asked = manifest(training={"epochs": 0.1}, compute={"timeout": "1h"})
    told = hint("too_long", asked, (10**12, 4000))
    assert "Set" not in told
    assert "less data" in told


def test_qlora_is_suggested_where_it_is_enough() -> None:
    asked = manifest(method="lora")
    with patch.dict(PRICES["accelerators"]["nvidia-l4"], memory_gb=7):
        assert {"method": "qlora"} in suggested(hint("does_not_fit", asked))


@pytest.mark.parametrize(("memory_gb", "ways"), [(2, [{"base_model": SMOL}]), (0.5, [])])
def test_where_no_length_fits_a_smaller_model_is_named(memory_gb: float, ways: list[dict[str, str]]) -> None:
    with patch.dict(PRICES["accelerators"]["nvidia-l4"], memory_gb=memory_gb):
        told = hint("does_not_fit", manifest(training={"max_seq_length": 256}))
    assert f"No training.max_seq_length is short enough for {GEMMA}" in told
    assert suggested(told) == ways


def test_a_suggestion_stays_within_the_models_context() -> None:
    asked = manifest(SMOL, training={"max_seq_length": 131_072})
    with patch.dict(PRICES["accelerators"]["nvidia-l4"], memory_gb=4):
        for way in suggested(hint("does_not_fit", asked)):
            assert int(way["training.max_seq_length"]) <= CATALOGUE[SMOL].context
