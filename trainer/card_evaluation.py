"""What the model card says of the evaluation: figures before and after, the gate, answers side by side."""

from __future__ import annotations

from adaptml import figures
from adaptml.gate import judgement
from schemas.manifest import Manifest
from schemas.run import Metrics
from schemas.text import visible
from trainer.evaluate import ANSWER_TOKENS, NEW_TOKENS, Sample

SHOWN = 1500
"""Characters of one text; samples.jsonl has them whole."""


def held_out(manifest: Manifest, metrics: Metrics) -> str:
    """A section: what the base model and the model with the adapter make of held-out data."""
    return "\n\n".join(["## On held-out data", *_figures(metrics), *_gate(manifest, metrics)])


def _figures(metrics: Metrics) -> list[str]:
    if metrics.eval_loss_after is None:
        return ["Nothing was held out, so nothing was measured."]
    lines = [f"| {one.name} | {one.before} | {one.after} |" for one in figures.held_out(metrics)]
    table = "\n".join(["| | base model | with this adapter |", "| --- | ---: | ---: |", *lines])
    told = f"{figures.basis(metrics)}."
    if metrics.eval_exact_match_examples:
        told += (
            f" Exact match: of the {metrics.eval_exact_match_examples:,} whose last answer has at most {ANSWER_TOKENS} "
            "tokens, the share that the model, asked, gives token for token (greedy)."
        )
    if metrics.saved_step is not None:
        told += f" The adapter is that of step {metrics.saved_step:,}."
    return [table, told]


def _gate(manifest: Manifest, metrics: Metrics) -> list[str]:
    judged = judgement(manifest, metrics)
    gate = figures.limits(manifest)
    if not gate:
        return []
    asked = ", ".join(f"`{name}: {limit:g}`" for name, limit in gate.items())
    if judged["promotable"]:
        return [f"It passes the manifest's gate ({asked}) and may be promoted."]
    return [f"**It may not be promoted.** The manifest's gate asks for {asked}: {judged['promotable_reason']}."]


def answers(samples: list[Sample]) -> str:
    """A section: each question with the answer of the data, the base model's and the adapter's."""
    shown = [_sample(number, sample) for number, sample in enumerate(samples, start=1)]
    what = f"Greedy, {NEW_TOKENS} tokens at most." if shown else "No held-out conversation to show."
    return "\n\n".join(["## Answers to held-out prompts", what, *shown]) + "\n"


def _sample(number: int, sample: Sample) -> str:
    texts = {
        "Asked": sample.question,
        "In the data": sample.expected,
        "Base model": sample.before,
        "With this adapter": sample.after,
    }
    return "\n\n".join([f"### {number}", *(f"{title}:\n\n{_block(text)}" for title, text in texts.items())])


def _block(text: str) -> str:
    """Text of the data as an indented code block: nothing in it is Markdown or HTML, whatever stands there."""
    shown = text.strip()
    if len(shown) > SHOWN:
        shown = shown[:SHOWN].rstrip() + " …"
    return "\n".join("    " + visible(line) for line in (shown or "(nothing)").splitlines())
