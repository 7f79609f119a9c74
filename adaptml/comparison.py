"""Where a version comes from, and what two versions differ in. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from adaptml.aliases import Numbered
from adaptml.figures import shown
from schemas.run import DataFile, Metrics, Part, Run


class Lineage(Part):
    """What a version was made of."""

    version: int
    run_id: str
    base_model: str | None
    resumes: str | None
    """The run whose checkpoint it went on from."""
    data: list[DataFile]
    train_examples: int
    validation_examples: int
    tokens: int
    metrics: Metrics
    cost_usd: float
    promotable: bool
    promotable_reason: str


class Difference(Part):
    """One thing that is not the same; "" where it is missing on one side."""

    what: str
    before: str
    after: str


class Measure(Part):
    """One figure of both."""

    what: str
    before: str
    after: str
    change: str
    """With its sign; "" where there is nothing to subtract."""


class Answers(Part):
    """What both answered to one held-out conversation; None where one was not asked."""

    question: str
    expected: str
    before: str | None
    after: str | None


class Comparison(Part):
    """Two versions of one adapter."""

    before: Lineage
    after: Lineage
    settings: list[Difference]
    """Of the manifests, with all defaults."""
    data: list[Difference]
    metrics: list[Measure]
    answers: list[Answers]


Sample = Mapping[str, Any]
"""A line of samples.jsonl: question, expected, before (the base model), after (with the adapter)."""


def lineage(one: Numbered) -> Lineage:
    """Of a version whose run is known or gone."""
    version, run = one
    return Lineage(
        version=version.version,
        run_id=version.run_id,
        base_model=run.manifest.base_model if run is not None and run.manifest is not None else None,
        resumes=run.source.resumes if run is not None else None,
        data=run.dataset.files if run is not None else [],
        train_examples=run.dataset.train_examples if run is not None else 0,
        validation_examples=run.dataset.validation_examples if run is not None else 0,
        tokens=run.dataset.tokens if run is not None else 0,
        metrics=run.metrics if run is not None else Metrics(),
        cost_usd=run.cost_usd if run is not None else 0.0,
        promotable=version.promotable,
        promotable_reason=version.promotable_reason,
    )


def compare(before: Numbered, after: Numbered, samples: tuple[Sequence[Sample], Sequence[Sample]]) -> Comparison:
    """What changed from one version to the other; `samples` are those of both."""
    one, other = lineage(before), lineage(after)
    return Comparison(
        before=one,
        after=other,
        settings=_differences(_settings(before.run), _settings(after.run)),
        data=_differences(_data(one), _data(other)),
        metrics=list(_measures(one, other)),
        answers=_answers(*samples),
    )


def _settings(run: Run | None) -> dict[str, str]:
    manifest = run.manifest.model_dump(mode="json", by_alias=True) if run is not None and run.manifest else {}
    return dict(_flat(manifest))


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """`training.epochs` → `3`. A list is one value."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        yield name, ", ".join(map(str, value))
    elif value is not None and value != {}:
        yield name, str(value)


def _data(of: Lineage) -> dict[str, str]:
    """Files by their content: one that was copied again is the same."""
    files = {f"{file.role}: {file.name}": f"{file.size:,} bytes, crc32c {file.crc32c}" for file in of.data}
    counts = {"examples to train on": of.train_examples, "examples held out in files": of.validation_examples}
    return files | {name: f"{count:,}" for name, count in counts.items()} | {"tokens an epoch": f"{of.tokens:,}"}


def _differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[Difference]:
    names = dict.fromkeys([*before, *after])
    pairs = ((name, before.get(name, ""), after.get(name, "")) for name in names)
    return [Difference(what=name, before=one, after=other) for name, one, other in pairs if one != other]


_FIGURES: dict[str, tuple[str, str]] = {
    "loss on held-out data, nats a token": ("eval_loss_after", "{:.4f}"),
    "the base model's loss on it": ("eval_loss_before", "{:.4f}"),
    "perplexity": ("eval_perplexity_after", "{:,.2f}"),
    "token accuracy": ("eval_token_accuracy_after", "{:.1%}"),
    "exact match": ("eval_exact_match_after", "{:.1%}"),
    "loss of the last step": ("train_loss", "{:.4f}"),
    "held-out examples": ("eval_examples", "{:,}"),
}
"""What it is called → field of `Metrics`, and its format."""


def _measures(before: Lineage, after: Lineage) -> Iterator[Measure]:
    for what, (field, form) in _FIGURES.items():
        one, other = getattr(before.metrics, field), getattr(after.metrics, field)
        if one is not None or other is not None:
            yield _measure(what, one, other, form)
    yield _measure("cost, USD", before.cost_usd, after.cost_usd, "{:.4f}")


def _measure(what: str, before: float | None, after: float | None, form: str) -> Measure:
    change = "" if before is None or after is None else shown(after - before, form.replace("{:", "{:+"))
    return Measure(what=what, before=shown(before, form), after=shown(after, form), change=change)


def _answers(before: Sequence[Sample], after: Sequence[Sample]) -> list[Answers]:
    """By question: where the same was held out, the answers stand beside each other."""
    asked: dict[str, dict[str, Any]] = {}
    for side, samples in (("before", before), ("after", after)):
        for sample in samples:
            entry = asked.setdefault(str(sample.get("question", "")), {"expected": str(sample.get("expected", ""))})
            entry[side] = str(sample.get("after", ""))
    return [
        Answers(question=question, expected=e["expected"], before=e.get("before"), after=e.get("after"))
        for question, e in asked.items()
    ]
