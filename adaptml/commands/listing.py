"""Commands that read: a tenant's runs, what happened to one, what its parts logged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table
from rich.text import Text

from adaptml.commands.deployment import (
    FAILED,
    JsonOption,
    RunArgument,
    TenantOption,
    connected,
    errors,
    out,
    print_lines,
    run_named,
)
from adaptml.commands.runs import brief
from schemas.run_states import RunState
from schemas.text import printable, visible

if TYPE_CHECKING:
    from schemas.run import Run

_STYLES = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red", "STATE": "bold"}


def runs(
    tenant: TenantOption,
    state: Annotated[list[RunState] | None, typer.Option(help="Only runs in this state; may be repeated.")] = None,
    name: Annotated[str | None, typer.Option(help="Only runs of this adapter.")] = None,
    at_most: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many.")] = 20,
    after: Annotated[str | None, typer.Option(metavar="RUN_ID", help="Older than this one: the next page.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List a tenant's runs, newest first.

    Exit status: 0, also when there are none; 1 no such run, or a service did not answer; 2 wrong use.
    """
    with connected() as services:
        from adaptml.runs.documents import UnknownRun

        try:
            page = services.runs.queries.of_tenant(tenant, states=state or (), name=name, after=after, at_most=at_most)
        except UnknownRun:
            errors.print(f"{tenant} has no run {printable(after)}", markup=False, soft_wrap=True)
            raise typer.Exit(FAILED) from None
    if as_json:
        print_lines([brief(run) for run in page.runs])
        return
    if not page.runs:
        out.print("no runs")
        return
    out.print(_table(page.runs))
    if page.has_more:
        out.print(f"more: --after {page.runs[-1].run_id}", style="dim", markup=False)


def _table(found: Iterable[Run]) -> Table:
    table = Table(Column("run", no_wrap=True), "state", "since", "progress", "loss", "cost", "version", "what")
    for run in found:
        progress, style = run.progress, "red" if run.error is not None else "green" if run.state.is_final else ""
        cells = (
            run.run_id,
            f"{run.state_since:%m-%d %H:%M}",
            f"{progress.step}/{progress.total_steps}" if progress.total_steps else "–",
            f"{progress.loss:.3f}" if progress.loss is not None else "–",
            f"${run.cost_usd:.3f}",
            f"v{run.artifacts.version}" if run.artifacts is not None else "–",
            run.error.code if run.error is not None else run.state_reason,
        )
        first, *rest = (Text(printable(cell, 200)) for cell in cells)
        table.add_row(first, Text(run.state.value, style=style), *rest)
    return table


def logs(
    run: RunArgument,
    tenant: TenantOption,
    at_most: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many of the last lines.")] = 200,
    as_json: JsonOption = False,
) -> None:
    """What happened to a run: its changes of state, and what functions and trainer logged of it.

    Reads the local cloud's logs, or Cloud Logging's. Exit status: 0; 1 no such run, or the logs could not be read;
    2 wrong use.
    """
    with connected() as services:
        from adaptml import run_log

        found = run_named(services, tenant, run)
        changes = [
            run_log.Line(event.at.isoformat(), "STATE", "run", f"{event.to_state.value}: {event.reason}")
            for event in services.runs.events(found.run_id)
        ]
        try:
            logged = run_log.read(services.settings.project, found, at_most)
        except run_log.Unread as why:
            errors.print(str(why), markup=False, soft_wrap=True)
            raise typer.Exit(FAILED) from None
    lines = sorted([*changes, *logged], key=lambda line: line.time)[-at_most:]
    if as_json:
        print_lines([asdict(line) for line in lines])
        return
    for line in lines:
        head = f"{line.time[:23]:<23} {line.severity:<8} {line.where:<10} "
        said = Text(visible(line.message), style=_STYLES.get(line.severity, ""))
        out.print(Text.assemble((head, "dim"), said), soft_wrap=True)
