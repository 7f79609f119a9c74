"""What came of a run, in the terminal. Rendering only."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from adaptml import figures
from schemas.run import Artifacts, Metrics, Run

Fact = tuple[str, str | Text]
"""A name and what there is to say."""


def outcome(run: Run, *more: Fact) -> RenderableType:
    """Figures before and after, what was delivered, and more facts; nothing of a run that has no version."""
    if run.artifacts is None:
        return Group()
    return Group(*_measured(run.metrics), _table([*_facts(run, run.artifacts), *more]))


def size(size_bytes: int) -> str:
    """14.7 MB, 10.1 GB."""
    return f"{size_bytes / 1e9:,.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"


def _table(rows: Sequence[Fact]) -> Table:
    """The second column wraps, the first never does."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, said in rows:
        table.add_row(Text(name, style="dim"), said if isinstance(said, Text) else Text(said))
    return table


def brief(metrics: Metrics) -> str:
    """In a line: loss 2.0000 → 1.2500, perplexity 7.39 → 3.49; empty where nothing was measured."""
    return ", ".join(f"{one.name.partition(',')[0]} {one.before} → {one.after}" for one in figures.held_out(metrics))


def _measured(metrics: Metrics) -> list[RenderableType]:
    measured = figures.held_out(metrics)
    if not measured:
        return [Text("Nothing was held out, so nothing was measured.", style="dim"), Text()]
    table = Table.grid(padding=(0, 2))
    for justify in ("left", "right", "left", "right"):
        table.add_column(justify=justify, no_wrap=True)
    table.add_row(*(Text(head, style="dim") for head in ("on held-out data", "base", "", "adapter")))
    for one in measured:
        style = {True: "bold green", False: "bold red", None: "bold"}[one.is_better]
        table.add_row(Text(one.name), Text(one.before), Text("→", style="dim"), Text(one.after, style=style))
    below = Text(figures.basis(metrics), style="dim")
    if metrics.eval_exact_match_examples:
        below.append(f"; exact match of {figures.counted(metrics.eval_exact_match_examples, 'short answer')}")
    return [table, below, Text()]


def _facts(run: Run, artifacts: Artifacts) -> list[Fact]:
    rows: list[Fact] = [("gate", _gate(run, artifacts))]
    if run.metrics.saved_step is not None:
        rows.append(("saved", _saved(run.metrics.saved_step, run.progress.step)))
    rows.append(("delivered", _delivered(run, artifacts)))
    return rows


def _gate(run: Run, artifacts: Artifacts) -> Text:
    asked = ", ".join(f"{name} {limit:g}" for name, limit in figures.limits(run.manifest).items())
    if not asked:
        return Text("none is set: the version may be promoted")
    if artifacts.promotable:
        return Text.assemble(("passed", "bold green"), f" ({asked}): the version may be promoted")
    refused = ("not passed", "bold red")
    return Text.assemble(refused, f" ({asked}): {artifacts.promotable_reason}; no alias may point at it")


def _saved(step: int, last: int) -> str:
    if step >= last:
        return f"the adapter of step {step:,}, the last"
    return f"the adapter of step {step:,} of {last:,}, the best on held-out data"


def _delivered(run: Run, artifacts: Artifacts) -> Text:
    text = Text(f"v{artifacts.version}, {size(artifacts.size_bytes)} in all")
    for form, files in figures.delivered(run.manifest, artifacts.sha256).items():
        listed = f"{form}/, {figures.counted(len(files), 'file')}" if _is_folder(form, files) else ", ".join(files)
        text.append(f"\n{form}: {listed}" if files else f"\n{form}: not in the version")
    return text


def _is_folder(form: str, files: list[str]) -> bool:
    return bool(files) and all(name.startswith(f"{form}/") for name in files)
