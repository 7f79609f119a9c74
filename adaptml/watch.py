"""A run in the terminal: states, progress, loss curve. Rendering only; whoever calls it reads the run."""

from __future__ import annotations

from typing import Any

import plotext
from rich.columns import Columns
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.markup import escape
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from adaptml.outcome import brief, outcome
from schemas.run import Run
from schemas.run_states import RunState
from schemas.text import printable, visible

_WAY = (
    RunState.RECEIVED,
    RunState.VALIDATING,
    RunState.QUEUED,
    RunState.STARTING,
    RunState.TRAINING,
    RunState.EVALUATING,
    RunState.SUCCEEDED,
)
_BAD = {RunState.FAILED, RunState.REJECTED, RunState.EXPIRED, RunState.CANCELLED}


PLOT = (76, 12)
"""Columns and lines of the loss curve; fewer columns where the terminal is narrower."""
BAR = 36


def view(run: Run, points: list[dict[str, Any]], *, with_outcome: bool = True) -> RenderableType:
    """The whole picture of a run; `points` are its loss curve. `with_outcome` adds what came of it."""
    parts: list[RenderableType] = [_states(run), Text(printable(run.state_reason, 400), style="dim"), _progress(run)]
    if len(points) > 1:
        parts.append(_Curve(points))
    if with_outcome and run.state is RunState.SUCCEEDED:
        parts += [Text(), outcome(run)]
    if run.error is not None:
        parts.append(Text(visible(f"{run.error.message} [{run.error.code}]\n{run.error.hint}"), style="red"))
    return Panel(Group(*parts), title=f"[bold]{escape(printable(run.run_id))}[/]", title_align="left", padding=(0, 1))


def line(run: Run) -> str:
    """One line, where there is no terminal to draw on."""
    p = run.progress
    step = f"; step {p.step}/{p.total_steps}, loss {p.loss:.3f}" if p.loss is not None else ""
    measured = brief(run.metrics) if run.state is RunState.SUCCEEDED else ""
    reason = printable(run.state_reason, 400)
    return f"{run.updated_at:%H:%M:%S} {run.state:<10} {reason}{step}{measured and '; ' + measured}"


def duration(seconds: float | None) -> str:
    """90 → 1:30."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def _states(run: Run) -> Text:
    way = [*_WAY] if run.state in _WAY else [*_WAY[: _last_good(run) + 1], run.state]
    reached = way.index(run.state)
    text = Text()
    for i, state in enumerate(way):
        style = "bold red" if state in _BAD else "bold green" if i == reached else "green" if i < reached else "dim"
        text.append(("" if i == 0 else " ─▶ ") + state.value, style=style)
    if run.attempt > 1:
        text.append(f"   attempt {run.attempt}", style="yellow")
    return text


def _last_good(run: Run) -> int:
    if run.state is RunState.VALIDATED:
        return _WAY.index(RunState.VALIDATING)
    if run.progress.step:
        return _WAY.index(RunState.TRAINING)
    return _WAY.index(RunState.QUEUED if run.estimate else RunState.VALIDATING)


def _progress(run: Run) -> RenderableType:
    """The bar, and below it figures that wrap between each other, never within one."""
    p = run.progress
    parts = (
        f"step {p.step}/{p.total_steps or '–'}",
        f"epoch {p.epoch:.1f}",
        f"loss {p.loss:.3f}" if p.loss is not None else "loss –",
        f"{p.tokens_per_s:.0f} tokens/s" if p.tokens_per_s is not None else "– tokens/s",
        f"ETA {duration(p.eta_s)}",
    )
    bar = Table.grid()
    bar.add_row(ProgressBar(total=max(p.total_steps, 1), completed=p.step, width=BAR))
    return Group(bar, Columns(parts, padding=(0, 2)))


class _Curve:
    """The loss curve, as wide as there is room."""

    def __init__(self, points: list[dict[str, Any]]) -> None:
        self._points = points

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        plotext.clear_figure()
        plotext.theme("clear")
        plotext.plot_size(min(PLOT[0], options.max_width), PLOT[1])
        plotext.plot([p["step"] for p in self._points], [p["loss"] for p in self._points], marker="braille")
        plotext.xlabel("step")
        plotext.title("training loss")
        yield Text.from_ansi(plotext.build().rstrip("\n"))
