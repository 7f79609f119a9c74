"""Ending runs and taking them up again: by a file beside the drop, or by a message on `run-commands`."""

from __future__ import annotations

from datetime import datetime

from adaptml import lifecycle, protocol, tracing
from adaptml.services import Services
from functions.dead_letters import FOREIGN, Unusable, readable
from functions.intake import advance, begin
from schemas import layout
from schemas.layout import DropPath
from schemas.messages import RunCommand
from schemas.run import Run, Source
from schemas.run_states import ACTIVE_STATES, RunState


def cancel_drop(services: Services, dropped: DropPath, written_at: datetime) -> None:
    """A file CANCEL was written: ends what was asked for in its folder before it."""
    for run in services.runs.queries.of_folder(dropped.tenant, dropped.folder, *ACTIVE_STATES):
        if run.source.asked_at is None or run.source.asked_at <= written_at:
            with tracing.of_run(run, "take in CANCEL"):
                lifecycle.change(services, run.run_id, protocol.request_cancel)


@tracing.step("take in RESUME")
def resume_drop(services: Services, dropped: DropPath, generation: int, written_at: datetime) -> None:
    """A file RESUME was written: takes up the last run of its folder."""
    identity = (dropped.bucket, f"{dropped.prefix}{dropped.file}", str(generation))
    run_id = layout.run_id(dropped.tenant, dropped.folder, *identity)
    if (present := services.runs.find(run_id)) is not None:
        advance(services, begin(services, present))
        return
    last = services.runs.queries.last_of_folder(dropped.tenant, dropped.folder, before=written_at)
    source = last.source if last is not None else Source(bucket=dropped.bucket)
    resumed = _resumed(services, run_id, dropped.tenant, dropped.folder, source, last, written_at)
    advance(services, begin(services, resumed))


@tracing.step("take in command")
def take_command(services: Services, body: bytes, *, only: str | None = None) -> None:
    """Does what a message asks for, where it came by a tenant's own topic for that tenant only.

    Raises Unusable for one that names no run of its tenant, names another tenant, or asks for what is not known.
    """
    command = readable(RunCommand, body)
    if only not in {None, command.tenant}:
        raise Unusable(FOREIGN)
    run = services.runs.find(command.run_id) if layout.is_run_id(command.run_id) else None
    if run is None or run.tenant != command.tenant:
        raise Unusable("the tenant has no such run")
    tracing.link(run)
    match command.command:
        case "cancel":
            lifecycle.change(services, run.run_id, protocol.request_cancel)
        case "resume":
            advance(services, begin(services, resumed_by(services, run, command.command_id)))
        case _:
            raise Unusable("the command is neither cancel nor resume")


def resumed_by(services: Services, run: Run, command_id: str) -> Run:
    """The run that a command makes of one that has ended; always the same for the same command."""
    folder = run.folder or run.name
    run_id = layout.run_id(run.tenant, folder, "command", command_id)
    return _resumed(services, run_id, run.tenant, folder, run.source, run, services.now())


def _resumed(
    services: Services, run_id: str, tenant: str, folder: str, source: Source, last: Run | None, asked_at: datetime
) -> Run:
    if last is not None:
        tracing.link(last)
    now = services.now()
    return Run(
        run_id=run_id,
        state=RunState.RECEIVED,
        state_reason=f"takes up {last.run_id}" if last else "RESUME arrived",
        tenant=tenant,
        name=last.name if last else folder,
        folder=folder,
        source=source.model_copy(
            update={"resumes": last.run_id if last else None, "publisher": "resume", "asked_at": asked_at}
        ),
        created_at=now,
        updated_at=now,
        state_since=now,
    )
