"""The trace of a run as a tree, from the spans that the local cloud's processes wrote."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text
from rich.tree import Tree


@dataclass(frozen=True)
class Step:
    """One span."""

    name: str
    service: str
    trace_id: str
    span_id: str
    parent_id: str | None
    began: datetime
    ended: datetime
    error: str
    links: tuple[str, ...]
    """Traces that it has to do with."""
    attributes: dict[str, Any]

    @classmethod
    def of(cls, span: dict[str, Any]) -> Step:
        """From OpenTelemetry's own form of a span."""
        return cls(
            name=span["name"],
            service=span["resource"]["attributes"]["service.name"].removeprefix("adaptml-"),
            trace_id=span["context"]["trace_id"],
            span_id=span["context"]["span_id"],
            parent_id=span["parent_id"],
            began=datetime.fromisoformat(span["start_time"]),
            ended=datetime.fromisoformat(span["end_time"]),
            error=span["status"].get("description", ""),
            links=tuple(link["context"]["trace_id"] for link in span["links"]),
            attributes=span["attributes"],
        )


def read(path: Path) -> list[Step]:
    """All spans, in the order in which they began. The last line may still be on its way."""
    if not path.exists():
        return []
    lines = path.read_text("utf-8").split("\n")[:-1]
    return sorted((Step.of(json.loads(line)) for line in lines), key=lambda step: step.began)


def of_run(steps: Iterable[Step], run_id: str) -> list[Step]:
    """The spans of the run's trace."""
    steps = list(steps)
    traces = {step.trace_id for step in steps if step.attributes.get("adaptml.run_id") == run_id}
    return [step for step in steps if step.trace_id in traces]


def tops(steps: list[Step]) -> list[Step]:
    """Spans without one above them: the first, and those whose process was killed before it could write what they are
    below of."""
    there = {step.span_id for step in steps}
    return [step for step in steps if step.parent_id not in there]


def show(steps: list[Step], console: Console) -> None:
    """Prints the tree: what, where, when it began after the first, how long it took."""
    if not steps:
        return
    first = min(step.began for step in steps)
    for top in tops(steps):
        console.print(_branch(Tree(_line(top, first)), top, steps, first))


def _branch(tree: Tree, step: Step, steps: list[Step], first: datetime) -> Tree:
    for below in _below(step, steps):
        _branch(tree.add(_line(below, first)), below, steps, first)
    return tree


def _below(step: Step, steps: list[Step]) -> Iterator[Step]:
    return (other for other in steps if other.parent_id == step.span_id)


def _line(step: Step, first: datetime) -> Text:
    took = (step.ended - step.began).total_seconds()
    line = Text.assemble(
        (step.name, "bold"),
        (f"  {step.service}", "cyan"),
        (f"  +{(step.began - first).total_seconds():.2f} s, {took:.3f} s", "dim"),
    )
    return line.append(f"  {step.error}", "red") if step.error else line
