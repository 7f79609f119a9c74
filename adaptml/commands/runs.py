"""Commands about runs: copying a drop, listing, watching, cancelling, resuming."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from adaptml import folder as drops
from adaptml import watch as views
from adaptml.commands.deployment import (
    DONE,
    FAILED,
    UNDER_WAY,
    USAGE,
    JsonOption,
    RunArgument,
    TenantOption,
    connected,
    errors,
    out,
    print_json,
    run_named,
)
from adaptml.commands.following import follow
from schemas import layout
from schemas.errors import Refused
from schemas.manifest import is_drop_name
from schemas.run_states import RunState
from schemas.text import printable

if TYPE_CHECKING:
    from adaptml.services import Services
    from schemas.run import Run

GOOD = frozenset({RunState.SUCCEEDED, RunState.VALIDATED})
WithinOption = Annotated[
    float, typer.Option("--within", min=0, help="Seconds to wait; exit status 3 where it takes longer.")
]
LONG_S = 6 * 3600.0


def drop(
    folder: Annotated[Path, typer.Argument(help="The drop: a folder with a manifest and its data files.")],
    tenant: TenantOption,
    name: Annotated[str | None, typer.Option(help="The folder in the bucket. [default: the folder's name]")] = None,
    watching: Annotated[bool, typer.Option("--watch/--no-watch", help="Follow the run to its end.")] = True,
    within_s: WithinOption = LONG_S,
    as_json: JsonOption = False,
) -> None:
    """Copy a drop into the bucket, its manifest last, and follow its run.

    The files that the manifest names are copied, and nothing else of the folder. What is wrong with the data, intake
    says; to know before: adaptml check. Exit status: 0 SUCCEEDED or VALIDATED, or only copied (--no-watch); 1 the drop
    or the run came to nothing; 2 wrong use; 3 not ended in the time.
    """
    if not folder.is_dir():
        errors.print(f"{folder} is not a folder", markup=False)
        raise typer.Exit(USAGE)
    named = name or folder.resolve().name
    if not is_drop_name(named):
        errors.print(f"{printable(named)} cannot name a folder: lower-case letters, digits, hyphens", markup=False)
        raise typer.Exit(USAGE)
    with connected() as services:
        files = _files(folder.resolve())
        run_id = _copied(services, folder.resolve(), layout.drop_prefix(tenant, named), files)
        if not watching:
            print_json({"run_id": run_id}) if as_json else out.print(run_id, markup=False)
            return
        raise typer.Exit(_follow(services, run_id, within_s, as_json=as_json))


def _files(folder: Path) -> list[str]:
    """Names of what is to be copied, the manifest last. Raises Refused."""
    manifest = drops.read_manifest(folder, drops.defaults_beside(folder))
    sources, missing = drops.sources(folder, manifest)
    if missing:
        raise Refused(missing)
    (named,) = (file for file in layout.MANIFEST_NAMES if (folder / file).is_file())
    return [*(source.name for source in sources), named]


def _copied(services: Services, folder: Path, prefix: str, files: Sequence[str]) -> str:
    """Copies in this order; returns the id of the run that the last one, the manifest, asks for."""
    bucket = services.settings.drops_bucket
    tenant, named, _ = prefix.split("/")
    generation = 0
    with Progress(
        TextColumn("copying {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(), console=errors, transient=True, disable=not errors.is_terminal,
    ) as progress:  # fmt: skip
        for file in files:
            with progress.open(folder / file, "rb", description=printable(file)) as stream:
                generation = services.objects.upload(bucket, prefix + file, stream)
    return layout.run_id(tenant, named, bucket, prefix + files[-1], str(generation))


def watch(run: RunArgument, tenant: TenantOption, within_s: WithinOption = LONG_S, as_json: JsonOption = False) -> None:
    """Follow a run to its end: states, progress, loss curve.

    With --json a line for each change. Exit status: 0 SUCCEEDED or VALIDATED; 1 ended otherwise, or no such run;
    2 wrong use; 3 not ended in the time.
    """
    with connected() as services:
        found = run_named(services, tenant, run)
        raise typer.Exit(_follow(services, found.run_id, within_s, as_json=as_json))


def _follow(services: Services, run_id: str, within_s: float, *, as_json: bool) -> int:
    say = (lambda run: json.dumps(brief(run), ensure_ascii=False)) if as_json else views.line
    ended = follow(
        services.runs, run_id, out, within_s=within_s, say=say, draws=False if as_json else None, with_outcome=True
    )
    if ended is None:
        return UNDER_WAY
    if ended.error is not None and not as_json and not out.is_terminal:
        errors.print(f"{ended.error.message} [{ended.error.code}]\n{ended.error.hint}", markup=False, soft_wrap=True)
    return DONE if ended.state in GOOD else FAILED


def cancel(run: RunArgument, tenant: TenantOption, as_json: JsonOption = False) -> None:
    """End a run: at once while it waits, after its present step on a GPU.

    Exit status: 0 asked for, or it has ended; 1 no such run; 2 wrong use.
    """
    with connected() as services:
        found = run_named(services, tenant, run)
        if not found.state.is_final:
            _command(services, found, "cancel")
        said = "had ended" if found.state.is_final else "is asked to end"
        print_json({"run_id": found.run_id, "state": found.state.value}) if as_json else out.print(
            f"{found.run_id} {said} ({found.state})", markup=False
        )


def resume(
    run: RunArgument,
    tenant: TenantOption,
    watching: Annotated[bool, typer.Option("--watch/--no-watch", help="Follow the new run to its end.")] = False,
    within_s: WithinOption = LONG_S,
    as_json: JsonOption = False,
) -> None:
    """Take up a run that was cancelled or failed, from its last checkpoint: a new run.

    Exit status: 0 asked for; 1 no such run; 2 wrong use; with --watch as `adaptml watch`.
    """
    with connected() as services:
        found = run_named(services, tenant, run)
        command_id = _command(services, found, "resume")
        run_id = layout.run_id(tenant, found.folder or found.name, "command", command_id)
        if not watching:
            print_json({"run_id": run_id}) if as_json else out.print(run_id, markup=False)
            return
        raise typer.Exit(_follow(services, run_id, within_s, as_json=as_json))


def _command(services: Services, run: Run, what: str) -> str:
    """Publishes it as any other system does; returns its id."""
    from schemas.messages import RunCommand

    command = RunCommand(command_id=uuid.uuid4().hex, tenant=run.tenant, run_id=run.run_id, command=what)
    services.bus.publish("run-commands", command)
    return command.command_id


def brief(run: Run) -> dict[str, Any]:
    """What a program wants of a run."""
    fields = {"run_id", "tenant", "name", "state", "state_reason", "attempt", "progress", "metrics", "cost_usd"}
    fields |= {"error", "created_at", "finished_at"}
    said = run.model_dump(mode="json", include=fields, exclude_none=True)
    return said | {"version": run.artifacts.version if run.artifacts else None, "folder": run.folder}
