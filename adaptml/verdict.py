"""A drop checked whole: its rows, its tokens, its plan. The same for intake and for a laptop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from adaptml.dataset.check import DataSource, check_rows, conclude, is_refused, terms_of
from adaptml.dataset.report import Report
from adaptml.planning.estimate import FROM_CHARACTERS, cautions, estimate, objections, tokens_of_characters
from adaptml.tokens.chat import ChatTokenizer
from adaptml.tokens.measure import Measured, measure
from adaptml.tokens.preview import preview
from schemas.errors import CODES, Problem, Severity, problem
from schemas.manifest import Manifest
from schemas.run import Estimate


@dataclass(frozen=True)
class Verdict:
    """What a check of a drop has found out."""

    manifest: Manifest
    report: Report
    measured: Measured | None = None
    """None where the tokenizer is not at hand, or there is nothing to measure."""
    plan: Estimate | None = None
    """None where there is no data to plan with."""
    objections: list[Problem] = field(default_factory=list)
    """Why the plan cannot be carried out."""
    preview: list[dict[str, Any]] = field(default_factory=list)

    @property
    def is_accepted(self) -> bool:
        """True where the run may be queued."""
        return not self.objections and self._does_without

    @property
    def errors(self) -> list[Problem]:
        """Why it is refused, the first ones in full. Rows that are set aside are no reason."""
        return [*([] if self._does_without else self.report.of(Severity.ERROR)), *self.objections]

    @property
    def set_aside(self) -> list[Problem]:
        """What is wrong with the rows that the run does without, the first ones in full."""
        return self.report.of(Severity.ERROR) if self._does_without else []

    @property
    def counts(self) -> dict[str, int]:
        """How many problems there are of each code."""
        return dict(self.report.counts + self._objected)

    @property
    def error_counts(self) -> dict[str, int]:
        """How many `errors` there are of each code, also of those that were not kept."""
        errors = {code: n for code, n in self.report.counts.items() if CODES[code].severity is Severity.ERROR}
        return dict(self._objected if self._does_without else self._objected + Counter(errors))

    @property
    def _does_without(self) -> bool:
        """True where no error of the data is a reason to refuse it."""
        return not is_refused(self.report, self.manifest.dataset)

    @property
    def _objected(self) -> Counter[str]:
        return Counter(found.code for found in self.objections)


def check_drop(
    manifest: Manifest,
    sources: Sequence[DataSource],
    tokenizer: ChatTokenizer | None,
    step: Callable[[str], AbstractContextManager[object]] = nullcontext,
) -> Verdict:
    """Checks every row, counts tokens, and plans. Nothing is raised for what is wrong. `step` is told what is done."""
    terms = terms_of(manifest)
    with step("check rows"):
        report = check_rows(sources, manifest.dataset, terms)
    with step("count tokens"):
        measured = measure(report, terms, manifest.training, tokenizer) if tokenizer is not None else None
    if tokenizer is None and report.examples["train"]:
        report.add(problem("tokens_not_counted", model=manifest.base_model))
    conclude(report, manifest.dataset)
    shown = []
    if tokenizer is not None and report.shape is not None:
        shown = preview(report.samples["train"].first, report.shape, terms, manifest.training, tokenizer)
    with step("plan"):
        plan = _plan(manifest, report, measured)
    for warning in cautions(manifest, plan) if plan else ():
        report.add(warning)
    return Verdict(manifest, report, measured, plan, objections(manifest, plan) if plan else [], shown)


def _plan(manifest: Manifest, report: Report, measured: Measured | None) -> Estimate | None:
    if measured is not None:
        return estimate(manifest, measured.tokens, measured.examples, basis=measured.basis) if measured.tokens else None
    examples = report.examples["train"]
    if not examples:
        return None
    return estimate(manifest, tokens_of_characters(report.characters), examples, basis=FROM_CHARACTERS)
