"""Commands that read: a tenant's runs, what happened to one, what its parts logged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from adaptml.commands.deployment import (
    FAILED,
    USAGE,
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

LOCAL_LOGS = "ADAPTML_LOCAL_LOGS"
"""The folder of a local cloud's logs; without it Cloud Logging is asked."""
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
    table = Table("run", "state", "since", "progress", "loss", "cost", "version", "what")
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


@dataclass(frozen=True)
class Line:
    """One line of a log, or one change of state."""

    time: str
    """As ISO 8601 writes it; "" where the line has none."""
    severity: str
    where: str
    message: str


def logs(
    run: RunArgument,
    tenant: TenantOption,
    at_most: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many of the last lines.")] = 200,
    as_json: JsonOption = False,
) -> None:
    """What happened to a run: its changes of state, and what functions and trainer logged of it.

    Reads the local cloud's logs, or Cloud Logging by `gcloud logging read`. Exit status: 0; 1 no such run, or the logs
    could not be read; 2 wrong use.
    """
    with connected() as services:
        found = run_named(services, tenant, run)
        changes = [
            Line(event.at.isoformat(), "STATE", "run", f"{event.to_state.value}: {event.reason}")
            for event in services.runs.events(found.run_id)
        ]
        project = services.settings.project
    folder = os.environ.get(LOCAL_LOGS)
    logged = _local(Path(folder), found) if folder else _of_cloud_logging(project, found, at_most)
    lines = sorted([*changes, *logged], key=lambda line: line.time)[-at_most:]
    if as_json:
        print_lines([asdict(line) for line in lines])
        return
    for line in lines:
        head = f"{line.time[:23]:<23} {line.severity:<8} {line.where:<10} "
        said = Text(visible(line.message), style=_STYLES.get(line.severity, ""))
        out.print(Text.assemble((head, "dim"), said), soft_wrap=True)


def _local(folder: Path, run: Run) -> Iterator[Line]:
    for path in sorted(folder.glob("*.log")):
        with path.open(encoding="utf-8", errors="replace") as written:
            yield from of_run(written, path.stem, run.run_id)
    if run.execution is not None and (path := folder / "executions" / f"{run.execution}.log").is_file():
        with path.open(encoding="utf-8", errors="replace") as written:
            yield from whole(written, "trainer")


def of_run(lines: Iterable[str], where: str, run_id: str) -> Iterator[Line]:
    """Those lines of a function's log that are about the run. Pure."""
    for text in lines:
        if run_id in text and (line := _parsed(text, where)) is not None:
            yield line


def whole(lines: Iterable[str], where: str) -> Iterator[Line]:
    """All of an execution's log; what is not in our form follows the line before it. Pure."""
    time = ""
    for text in lines:
        line = _parsed(text, where)
        if line is not None:
            time = line.time
        yield line or Line(time, "DEFAULT", where, text.rstrip("\n"))


def _parsed(text: str, where: str) -> Line | None:
    try:
        entry = json.loads(text)
    except ValueError:
        return None
    if not isinstance(entry, dict) or "message" not in entry:
        return None
    message = "\n".join(str(entry[key]) for key in ("message", "exception") if key in entry)
    return Line(str(entry.get("time", "")), str(entry.get("severity", "DEFAULT")), where, message)


def _of_cloud_logging(project: str, run: Run, at_most: int) -> list[Line]:
    if shutil.which("gcloud") is None:
        errors.print("gcloud is missing: https://cloud.google.com/sdk/docs/install", markup=False, soft_wrap=True)
        raise typer.Exit(USAGE)
    command = ["gcloud", "logging", "read", filter_of(run), f"--project={project}", "--format=json"]
    command += [f"--limit={at_most}", "--freshness=30d"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["gcloud logging read failed"]
        errors.print(printable(said[-1], 400), markup=False, soft_wrap=True)
        raise typer.Exit(FAILED)
    return [of_entry(entry) for entry in json.loads(done.stdout or "[]")]


def filter_of(run: Run) -> str:
    """What Cloud Logging is asked for: lines that name the run, and all of its last execution. Pure."""
    of_it = f'jsonPayload.run_id="{run.run_id}" OR jsonPayload.message:"{run.run_id}"'
    if run.execution is not None:
        of_it += f' OR labels."run.googleapis.com/execution_name"="{run.execution}"'
    return of_it


def of_entry(entry: dict[str, Any]) -> Line:
    """A log entry as Cloud Logging returns it. Pure."""
    payload, resource = entry.get("jsonPayload") or {}, (entry.get("resource") or {}).get("labels") or {}
    message = "\n".join(str(payload[key]) for key in ("message", "exception") if key in payload)
    where = resource.get("service_name") or ("trainer" if "job_name" in resource else "")
    said = message or str(entry.get("textPayload", ""))
    return Line(str(entry.get("timestamp", "")), str(entry.get("severity", "DEFAULT")), str(where), said)
