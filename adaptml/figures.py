"""What was measured on held-out data, as people read it: the same words in the terminal and in the model card. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.manifest import Manifest
from schemas.run import Metrics

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Figure:
    """One measure of the base model and of the model with the adapter."""

    name: str
    before: str
    after: str
    is_better: bool | None
    """None where there is nothing to compare, or both are the same."""


def held_out(metrics: Metrics) -> list[Figure]:
    """Loss, perplexity, token accuracy, exact match: those that were measured, in this order."""
    m = metrics
    measures = [
        ("loss, nats a token", m.eval_loss_before, m.eval_loss_after, "{:.4f}", -1),
        ("perplexity", m.eval_perplexity_before, m.eval_perplexity_after, "{:,.2f}", -1),
        ("token accuracy", m.eval_token_accuracy_before, m.eval_token_accuracy_after, "{:.1%}", 1),
        ("exact match", m.eval_exact_match_before, m.eval_exact_match_after, "{:.1%}", 1),
    ]
    return [
        Figure(name, shown(before, form), shown(after, form), _is_better(before, after, better))
        for name, before, after, form, better in measures
        if after is not None
    ]


def shown(value: float | None, form: str) -> str:
    """A figure in a format of Python's, with a space before the per cent."""
    return NOT_MEASURED if value is None else form.format(value).replace("%", " %")


def counted(number: int, what: str) -> str:
    """1 example, 1,200 examples."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def basis(metrics: Metrics) -> str:
    """How much was measured on."""
    return f"{counted(metrics.eval_examples, 'example')}, {counted(metrics.eval_tokens, 'token')} counted"


def limits(manifest: Manifest | None) -> dict[str, float]:
    """What the manifest's gate asks for; empty where there is none."""
    gate = manifest.evaluation if manifest is not None else None
    return gate.model_dump(exclude_none=True) if gate is not None else {}


def delivered(manifest: Manifest | None, files: Mapping[str, object]) -> dict[str, list[str]]:
    """The adapter, which every version holds, and each form that was asked for → the version's files of it. A form is a
    folder of its name, files that end in it, or files that begin with it (`merged/…`, `….gguf`, `adapter_…`)."""
    forms = dict.fromkeys(["adapter", *(manifest.export if manifest is not None else ())])
    return {form: sorted(name for name in files if _is_of(name, form)) for form in forms}


def _is_of(name: str, form: str) -> bool:
    return name.startswith((f"{form}/", f"{form}_")) or name.endswith(f".{form}")


def _is_better(before: float | None, after: float, better: int) -> bool | None:
    return None if before is None or before == after else (after - before) * better > 0
