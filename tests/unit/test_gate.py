from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from adaptml import gate
from schemas.errors import Refused
from schemas.manifest import Evaluation, Manifest
from schemas.manifest_reading import parse_manifest
from schemas.run import Artifacts, Metrics, Version

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BASE = "base_model: google/gemma-2b-it\ndataset: {train: [a.jsonl]}\n"


def objections(limits: dict[str, float] | None, before: float | None, after: float | None) -> list[str]:
    asked = Evaluation.model_validate(limits) if limits is not None else None
    return gate.objections(asked, Metrics(eval_loss_before=before, eval_loss_after=after))


@pytest.mark.parametrize(
    ("limits", "before", "after"),
    [
        (None, 2.0, 9.0),
        (None, None, None),
        ({}, 2.0, 9.0),  # the tenant's defaults were taken back
        ({"max_eval_loss": None, "min_improvement": None}, None, None),
        ({"max_eval_loss": 1.5}, 1.0, 1.5),
        ({"min_improvement": 0.05}, 2.0, 1.9),
        ({"min_improvement": 0}, 2.0, 2.0),
        ({"max_eval_loss": 1.5, "min_improvement": 0.25}, 2.0, 1.5),
    ],
)
def test_what_reaches_every_limit_passes(
    limits: dict[str, float] | None, before: float | None, after: float | None
) -> None:
    assert objections(limits, before, after) == []


@pytest.mark.parametrize(
    ("limits", "before", "after", "said"),
    [
        ({"max_eval_loss": 1.5}, 2.0, 1.6, ["held-out loss 1.6 is above max_eval_loss 1.5"]),
        (
            {"min_improvement": 0.05},
            2.0,
            1.95,
            ["held-out loss fell by 2.5 % (2 before, 1.95 after); min_improvement asks for a fall by 5 %"],
        ),
        (
            {"min_improvement": 0},
            2.0,
            2.2,
            ["held-out loss rose by 10 % (2 before, 2.2 after); min_improvement asks for a fall by 0 %"],
        ),
        (
            {"min_improvement": 0.01},
            2.0,
            2.0,
            ["held-out loss stayed (2 before, 2 after); min_improvement asks for a fall by 1 %"],
        ),
        (
            {"max_eval_loss": 1, "min_improvement": 0.5},
            0.0,
            2.0,
            [
                "held-out loss 2 is above max_eval_loss 1",
                "held-out loss rose (0 before, 2 after); min_improvement asks for a fall by 50 %",
            ],
        ),
    ],
)
def test_what_misses_a_limit_is_told_with_its_figures(
    limits: dict[str, float], before: float, after: float, said: list[str]
) -> None:
    assert objections(limits, before, after) == said


@pytest.mark.parametrize("limits", [{"max_eval_loss": 100}, {"min_improvement": 0}])
@pytest.mark.parametrize(
    ("before", "after"),
    [(None, None), (None, 1.0), (1.0, None), (1.0, float("nan")), (float("nan"), 1.0), (1.0, float("inf"))],
)
def test_what_was_not_measured_does_not_pass(
    limits: dict[str, float], before: float | None, after: float | None
) -> None:
    assert objections(limits, before, after) == ["there is no held-out loss to judge it by"]


def test_the_version_is_marked() -> None:
    manifest = parse_manifest((BASE + "evaluation: {max_eval_loss: 1}").encode(), file="m", folder="bot")
    made = Artifacts(version=1, staged="s/", size_bytes=1, sha256={})
    missed = gate.judged(made, manifest, Metrics(eval_loss_before=3.0, eval_loss_after=2.0))
    assert (missed.promotable, missed.promotable_reason) == (False, "held-out loss 2 is above max_eval_loss 1")
    assert gate.judged(missed, manifest, Metrics(eval_loss_before=3.0, eval_loss_after=0.5)) == made


def test_latest_is_the_newest_that_may_be_promoted() -> None:
    def version(number: int, **fields: Any) -> Version:
        return Version(version=number, run_id="r", claimed_at=NOW, **fields)

    before_there_were_gates = Version.model_validate({"version": 1, "run_id": "r", "claimed_at": NOW})
    versions = [before_there_were_gates, version(10), version(9), version(11, promotable=False)]
    assert gate.newest(versions) == 10
    assert gate.newest(versions[:1]) == 1
    assert gate.newest([version(1, promotable=False)]) is None
    assert gate.newest([]) is None


def read(text: str, defaults: str | None = None) -> Manifest:
    encoded = defaults.encode() if defaults else None
    return parse_manifest((BASE + text).encode(), file="manifest.yaml", folder="bot", defaults=encoded)


def test_the_manifest_sets_no_gate_unless_it_says_so() -> None:
    assert read("").evaluation is None
    asked = read("evaluation: {max_eval_loss: 1.5, min_improvement: 0.05}").evaluation
    assert asked == Evaluation(max_eval_loss=1.5, min_improvement=0.05)


def test_a_tenants_default_gate_is_completed_and_taken_back() -> None:
    defaults = "evaluation: {max_eval_loss: 1.5}"
    assert read("evaluation: {min_improvement: 0.1}", defaults).evaluation == Evaluation(
        max_eval_loss=1.5, min_improvement=0.1
    )
    assert gate.objections(read("evaluation: null", defaults).evaluation, Metrics()) == []
    assert gate.objections(read("evaluation: {max_eval_loss: null}", defaults).evaluation, Metrics()) == []


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("evaluation: {max_eval_loss: 0}", "invalid_value", "more than 0"),
        ("evaluation: {max_eval_loss: 101}", "invalid_value", "100.0 or less"),
        ("evaluation: {min_improvement: 1}", "invalid_value", "less than 1"),
        ("evaluation: {min_improvement: -0.1}", "invalid_value", "0 or more"),
        ("evaluation: {min_improvement: true}", "invalid_value", "cannot be true"),
        ("evaluation: {max_loss: 1}", "unknown_field", "Did you mean max_eval_loss?"),
        ("evaluaton: {max_eval_loss: 1}", "unknown_field", "Did you mean evaluation?"),
        ("max_eval_loss: 1", "unknown_field", "Did you mean evaluation.max_eval_loss?"),
    ],
)
def test_a_wrong_gate_is_told(text: str, code: str, said: str) -> None:
    with pytest.raises(Refused) as refused:
        read(text)
    (found,) = refused.value.problems
    assert found.code == code
    assert said in f"{found.message} {found.hint}"
    assert found.line == 3
