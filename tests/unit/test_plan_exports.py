from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from adaptml.planning import exports
from adaptml.planning.attempts import attempts_needed
from adaptml.planning.estimate import PRICES, STARTUP_S, cautions, estimate, objections
from adaptml.planning.wording import describe
from schemas.catalogue import CATALOGUE
from schemas.errors import Problem
from schemas.manifest import Manifest
from tests.unit.test_advice import apply
from tests.unit.test_estimate import changed, manifest, manifests, work

GEMMA, LARGE = "google/gemma-2b-it", "meta-llama/Llama-3.1-8B-Instruct"
FORMS = (["adapter"], ["merged"], ["gguf"], ["adapter", "merged", "gguf"])
asked_forms = st.sampled_from(FORMS)


def of_code(code: str, asked: Manifest, work: tuple[int, int] = (36_000, 100)) -> Problem | None:
    return next((one for one in objections(asked, estimate(asked, *work)) if one.code == code), None)


def suggested(hint: str) -> list[dict[str, Any]]:
    """Each way that the hint names: field → value."""
    ways = [way.strip("` .").split(": ", 1) for way in hint.removeprefix("Set ").split(", or ")]
    return [{field: _value(value) for field, value in (way,)} for way in ways]


def _value(text: str) -> Any:
    return text.strip("[]").split(", ") if text.startswith("[") else text


@given(manifests, work, asked_forms, asked_forms)
def test_more_exports_are_never_cheaper(
    asked: Manifest, work: tuple[int, int], one: list[str], more: list[str]
) -> None:
    fewer = changed(asked, export=one)
    all_of_them = changed(asked, export=list(dict.fromkeys([*one, *more])))
    less, greater = estimate(fewer, *work), estimate(all_of_them, *work)
    assert less.scratch_gb <= greater.scratch_gb
    if not greater.executions:  # refused: there is no time for it
        return
    assert 0 < less.executions <= greater.executions
    assert less.duration_s <= greater.duration_s
    assert less.cost_usd <= greater.cost_usd
    codes = [{found.code for found in objections(*plan)} for plan in ((fewer, less), (all_of_them, greater))]
    assert codes[0] & {"exports_do_not_fit", "exports_too_long"} <= codes[1]


@given(manifests, asked_forms)
def test_each_expected_value_lies_within_its_range(asked: Manifest, forms: list[str]) -> None:
    asked = changed(asked, export=forms)
    spans = [exports.fetch_seconds(asked), exports.scratch_bytes(asked), *exports.seconds(asked).values()]
    assert all(0 <= span.low <= span.expected <= span.high for span in spans)
    total = exports.total_seconds(asked)
    assert total.expected == pytest.approx(sum(span.expected for span in exports.seconds(asked).values()))


@given(manifests)
def test_the_adapter_alone_takes_nothing(asked: Manifest) -> None:
    assert exports.scratch_bytes(asked) == exports.total_seconds(asked) == exports.fetch_seconds(asked) == (0, 0, 0)
    assert not exports.seconds(asked)
    assert "of the instance's memory" not in describe(estimate(asked, 1000, 10))


@given(manifests, st.sampled_from(["merged", "gguf"]))
def test_a_larger_model_takes_longer_and_more(asked: Manifest, form: str) -> None:
    asked = changed(asked, export=[form])
    for other in CATALOGUE.values():
        if other.architecture.parameters() > CATALOGUE[asked.base_model].architecture.parameters():
            larger = changed(asked, base_model=other.id)
            assert exports.seconds(larger)[form].expected > exports.seconds(asked)[form].expected


def test_gemma_2b_by_hand() -> None:
    asked = manifest(GEMMA, export=["merged"])
    size = 2 * 2_506_172_416
    (span,) = exports.seconds(asked).values()
    assert span.expected == pytest.approx(size / 150e6 + size / 100e6)
    assert exports.fetch_seconds(asked).expected == pytest.approx(size / 300e6)
    linear = CATALOGUE[GEMMA].architecture.linear_parameters()
    nf4 = linear * (0.5 + 8.25 / 512) + (2_506_172_416 - linear) * 2
    lora = 3_686_400 * 2
    embedding = 256_000 * 2048 * 2
    whole = 2 * size + nf4 + lora + 2.5e9 + 2 * max(2**30, embedding)
    assert exports.scratch_bytes(asked).expected == pytest.approx(whole)


def test_bf16_training_reads_the_weights_that_exports_need() -> None:
    lora, qlora = (manifest(GEMMA, export=["merged"], method=method) for method in ("lora", "qlora"))
    assert exports.fetch_seconds(lora).expected == 0 < exports.fetch_seconds(qlora).expected
    assert exports.scratch_bytes(lora).expected < exports.scratch_bytes(qlora).expected


def test_weights_of_the_image_take_no_memory() -> None:
    asked = manifest(GEMMA, export=["merged"])
    assert exports.scratch_bytes(asked).low < exports.scratch_bytes(asked).expected - 2 * 2_506_172_416


@pytest.mark.parametrize(
    ("model", "forms", "hint"),
    [
        (GEMMA, ["merged", "gguf"], "Set `export: [merged]`, or `base_model: Qwen/Qwen3-1.7B`."),
        (LARGE, ["adapter", "merged"], "Set `export: [adapter]`, or `base_model: google/gemma-2b-it`."),
    ],
)
def test_files_that_outgrow_the_instance_are_objected_to(model: str, forms: list[str], hint: str) -> None:
    found = of_code("exports_do_not_fit", manifest(model, export=forms))
    assert found is not None
    assert found.hint == hint
    assert "17.18 GB of memory" in found.message
    assert of_code("exports_do_not_fit", manifest(GEMMA, export=["merged"])) is None


def test_a_larger_instance_holds_more() -> None:
    asked = manifest(GEMMA, export=["merged", "gguf"])
    with patch.dict(PRICES["accelerators"]["nvidia-l4"], memory_gib=32):
        assert of_code("exports_do_not_fit", asked) is None


@given(manifests, st.sampled_from(FORMS[1:]), st.integers(60, 86_400))
def test_what_is_suggested_removes_the_objection(asked: Manifest, forms: list[str], timeout: int) -> None:
    asked = changed(asked, export=forms, compute__timeout=timeout)
    refused = {code: found for code in ("exports_do_not_fit", "exports_too_long") if (found := of_code(code, asked))}
    assume(refused)
    for code, found in refused.items():
        for way in suggested(found.hint):
            assert of_code(code, apply(asked, way)) is None, (code, way)


def test_exports_that_no_execution_has_time_for_are_objected_to() -> None:
    asked = manifest(GEMMA, export=["gguf"], compute={"timeout": "200s"})
    planned = estimate(asked, 36_000, 100)
    assert planned.executions == 0
    assert {found.code for found in objections(asked, planned)} == {"exports_too_long"}
    found = of_code("exports_too_long", asked)
    assert found is not None
    assert found.message.startswith("for start-up and gguf an execution needs about 2")
    assert found.hint.startswith("Set `compute.timeout: 4m`, or `export: [adapter]`, or `base_model: ")


def test_where_the_last_execution_has_no_time_left_one_more_makes_the_exports() -> None:
    asked = manifest(GEMMA, export=["merged"], compute={"timeout": "600s"})
    alone = changed(asked, export=["adapter"])
    tokens = 280_000
    planned = estimate(asked, tokens, 1000)
    assert (estimate(alone, tokens, 1000).executions, planned.executions) == (1, 2)
    (caution,) = cautions(asked, planned)
    assert caution.code == "takes_several_attempts"
    (way, *_) = suggested(caution.hint.partition("For a run in one execution: ")[2])
    assert estimate(apply(asked, way), tokens, 1000).executions == 1


@given(st.integers(1, 500), st.just(0.0) | st.floats(0.01, 50), st.floats(0.1, 500), st.floats(0, 500))
def test_attempts_are_as_few_as_an_attempt_by_attempt_account_has(
    steps: int, step_s: float, usable_s: float, at_the_end_s: float
) -> None:
    assume(step_s == 0 or abs(usable_s / step_s - round(usable_s / step_s)) > 1e-6)
    found = attempts_needed(steps, step_s, usable_s, at_the_end_s)
    if max(step_s, at_the_end_s) > usable_s:
        assert found == 0
        return
    count, left, is_over = 0, steps, False
    while not is_over:
        count += 1
        room = usable_s
        done = left if step_s == 0 else min(left, int(room / step_s))
        left -= done
        is_over = left == 0 and done * step_s + at_the_end_s <= room
    assert found == count


def test_the_estimate_says_what_exports_take() -> None:
    planned = estimate(manifest(GEMMA, export=["merged", "gguf"]), 36_000, 100)
    assert planned.export_s == {"merged": 84, "gguf": 134}
    assert planned.scratch_gb == pytest.approx(21.8, abs=0.05)
    said = "; of that merged 84 s, gguf 2 min, with 21.8 of 17.2 GB of the instance's memory"
    assert describe(planned).endswith(said)
    adapter = estimate(manifest(GEMMA), 36_000, 100)
    fetch = exports.fetch_seconds(manifest(GEMMA, export=["merged"])).expected
    assert planned.duration_s == pytest.approx(adapter.duration_s + 84 + 134 + fetch, abs=2)
    assert planned.duration_s > STARTUP_S.expected
