"""A checked drop in the terminal. Rendering only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from adaptml.planning.wording import describe
from adaptml.verdict import Verdict
from schemas.errors import CODES, Problem, Severity
from schemas.manifest import Manifest
from schemas.run import TokenFigures
from schemas.text import printable, visible

SHOWN = 20
"""Problems of one kind; the report holds more."""
BAR = 30
PREVIEW_CHARACTERS = 1500


def verdict(found: Verdict, *, previews: int) -> RenderableType:
    """The whole picture of a check."""
    parts: list[RenderableType] = [_facts(found)]
    if found.measured is not None:
        parts += [Text(), _histogram(found.measured.figures, found.manifest.training.max_seq_length)]
    for entry in found.preview[:previews]:
        parts += [Text(), _preview(entry)]
    report = found.report
    kinds = [
        ("error", "red", found.errors),
        ("row set aside", "yellow", found.set_aside),
        ("warning", "yellow", report.of(Severity.WARNING)),
        ("note", "dim", report.of(Severity.NOTE)),
    ]
    for kind, style, problems in kinds:
        if problems:
            parts += [Text(), *_problems(kind, style, problems)]
    parts += [Text(), _outcome(found.manifest.name, is_accepted=found.is_accepted, counts=found.counts)]
    return Group(*parts)


def refusal(name: str, problems: Sequence[Problem], counts: Mapping[str, int]) -> RenderableType:
    """Of a drop whose data was not looked at."""
    return Group(*_problems("error", "red", problems), Text(), _outcome(name, is_accepted=False, counts=counts))


def _facts(found: Verdict) -> Table:
    manifest, report = found.manifest, found.report
    table = Table.grid(padding=(0, 2))
    table.add_row("adapter", Text(manifest.name, style="bold"))
    table.add_row("training", Text(_training(manifest)))
    table.add_row("data", Text(_data(found)))
    if found.measured is not None:
        table.add_row("tokens", Text(_lengths(found.measured.figures, manifest.training.max_seq_length)))
    if found.plan is not None:
        table.add_row("plan", Text(describe(found.plan)))
    if report.shape is None:
        table.add_row("format", Text("not recognised"))
    return table


def _training(manifest: Manifest) -> str:
    training, lora = manifest.training, manifest.lora
    length = f"{training.max_steps} steps" if training.max_steps else f"{training.epochs:g} epochs"
    return f"{manifest.base_model}, {manifest.method}, rank {lora.r}, {length}, loss on {training.train_on}"


def _data(found: Verdict) -> str:
    report = found.report
    text = f"{report.examples['train']:,} examples of {report.rows['train']:,} rows"
    if found.manifest.dataset.validation:
        text += f", {report.examples['validation']:,} of {report.rows['validation']:,} held out"
    return f"{text}, {report.shape or 'no known shape'}"


def _lengths(figures: TokenFigures, limit: int) -> str:
    shares = figures.percentiles
    text = f"half up to {shares['p50']:,}, 95 % up to {shares['p95']:,}, longest {shares['max']:,}"
    if figures.longest:
        text += f" ({figures.longest[0].file} line {figures.longest[0].line})"
    text += f"; {figures.overlong:,} above max_seq_length {limit:,}"
    return text if figures.examples == figures.of else f"{text}; sampled {figures.examples:,} of {figures.of:,}"


def _histogram(figures: TokenFigures, limit: int) -> Table:
    """Bars of how many examples have how many tokens."""
    table = Table.grid(padding=(0, 1))
    most = max(figures.histogram.values())
    for bound, count in figures.histogram.items():
        style = "red" if int(bound) // 2 >= limit else "cyan"
        bar = "█" * round(BAR * count / most) or ("▏" if count else "")
        table.add_row(Text(f"≤ {int(bound):,}", style="dim"), Text(bar, style=style), Text(f"{count:,}", style="dim"))
    return table


def _preview(entry: Mapping[str, Any]) -> Panel:
    text, left = Text(), PREVIEW_CHARACTERS
    for segment in entry["segments"]:
        text.append(visible(segment["text"][:left]), style="bold green" if segment["trained"] else "dim")
        left = max(0, left - len(segment["text"]))
    if not left:
        text.append(" …", style="dim")
    text.rstrip()
    trained = f"{entry['trained_tokens']} of {entry['tokens']} tokens trained on (green)"
    title = f"{entry['file']} line {entry['line']}: {trained}"
    return Panel(text, title=Text(title), title_align="left", border_style="dim")


def _problems(kind: str, style: str, problems: Sequence[Problem]) -> Iterator[Text]:
    for found in problems[:SHOWN]:
        first, *rest = str(found).splitlines()
        yield Text.assemble((f"{kind}: ", f"bold {style}"), first, *(f"\n{line}" for line in rest))
    if len(problems) > SHOWN:
        yield Text(f"{kind}: … and more; --json or --out lists up to a hundred", style="dim")


def _outcome(name: str, *, is_accepted: bool, counts: Mapping[str, int]) -> Text:
    word = ("ACCEPTED", "bold green") if is_accepted else ("REFUSED", "bold red")
    parts = [text for severity in Severity if (text := _counted(severity, counts))]
    return Text.assemble(word, f" {printable(name)}: {'; '.join(parts) or 'nothing to say'}")


def _counted(severity: Severity, counts: Mapping[str, int]) -> str:
    """2 errors (1 × not_utf8, 1 × invalid_json)"""
    of_it = {code: count for code, count in sorted(counts.items()) if CODES[code].severity is severity}
    total = sum(of_it.values())
    codes = ", ".join(f"{count:,} × {code}" for code, count in of_it.items())
    return f"{total:,} {severity}{'s' * (total != 1)} ({codes})" if total else ""
