"""Reconciler: finds what was left unfinished and finishes it. Whatever dies, this is what notices.

It is woken by a tick, and sooner by the end of an execution. What it does follows from the stored run and from
what Cloud Run says of its execution; a second call does no harm.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import msgspec

from adaptml import lifecycle, protocol, quota, tracing
from adaptml.jobs import Execution, ExecutionState
from adaptml.protocol import Change
from adaptml.publishing import publish_version
from adaptml.runs.changes import Decide
from adaptml.services import Services
from adaptml.settings import Settings
from functions import bucket_events, dispatcher
from functions.bucket_events import Landed
from functions.intake import advance, run_of_drop
from functions.leftovers import sweep_leftovers
from schemas import layout
from schemas.layout import DropPath, ObjectRole
from schemas.run import Run
from schemas.run_states import RunState

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wakeup:
    """Why the reconciler was called. Everything in it is a hint: the stored state decides."""

    execution: str | None = None
    sweep_drops: bool = False

    @classmethod
    def parse(cls, body: bytes) -> Wakeup:
        """A tick (`{}` or `{"sweep_drops": true}`), or the log entry of an ended execution."""
        try:
            value = msgspec.json.decode(body) if body else {}
        except (msgspec.DecodeError, RecursionError):
            value = {}
        if not isinstance(value, dict):
            return cls()
        labels = value.get("labels")
        name = labels.get("run.googleapis.com/execution_name") if isinstance(labels, dict) else None
        return cls(name if isinstance(name, str) else None, value.get("sweep_drops") is True)


# What is owed to a run.
@dataclass(frozen=True)
class Nothing:
    """It goes its way."""


@dataclass(frozen=True)
class TakeFurther:
    """Intake left it; take it up again."""


@dataclass(frozen=True)
class FinishCommit:
    """Its version has a number but is not at its place yet."""


@dataclass(frozen=True)
class StopExecution:
    """Its execution is to be cancelled."""

    name: str


@dataclass(frozen=True)
class Apply:
    """Its state is to change."""

    change: Change


Step = Nothing | TakeFurther | FinishCommit | StopExecution | Apply


def next_step(run: Run, execution: Execution | None, now: datetime, settings: Settings) -> Step:
    """What the reconciler owes this run. Pure: the caller does the I/O.

    Cloud Run's word that an execution ended is the proof of death; a late heartbeat alone only has it cancelled.
    """
    stuck = now - run.state_since > timedelta(seconds=settings.stuck_after_s)
    match run.state:
        case RunState.RECEIVED | RunState.AWAITING_DATA | RunState.VALIDATING | RunState.QUEUED if run.cancel_requested:
            return Apply(protocol.cancel(run))
        case RunState.AWAITING_DATA:
            return TakeFurther()
        case RunState.RECEIVED | RunState.VALIDATING:
            return TakeFurther() if stuck else Nothing()
        case RunState.STARTING if run.owner is None:
            return _of_dispatched(run, execution, stuck, settings)
        case RunState.STARTING | RunState.TRAINING | RunState.EVALUATING:
            return _of_owned(run, execution, now, settings)
        case _:
            return Nothing()


def _of_dispatched(run: Run, execution: Execution | None, stuck: bool, settings: Settings) -> Step:
    """Claimed, and no attempt has begun."""
    if execution is None or execution.state is ExecutionState.MISSING:
        cause = "no execution was found for the dispatch"
        return Apply(protocol.redispatch_or_fail(run, cause, settings.dispatch_limit)) if stuck else Nothing()
    if execution.state.has_ended:
        if run.cancel_requested:
            return Apply(protocol.cancel(run))
        cause = _cause(execution, "before training began")
        return Apply(protocol.redispatch_or_fail(run, cause, settings.dispatch_limit))
    return StopExecution(execution.name) if run.cancel_requested else Nothing()


def _of_owned(run: Run, execution: Execution | None, now: datetime, settings: Settings) -> Step:
    """An attempt has begun."""
    if execution is None or execution.state.has_ended:
        if protocol.is_committed(run):
            return FinishCommit()
        ended_at = execution.ended_at if execution is not None else run.heartbeat_at
        if run.cancel_requested:
            return Apply(protocol.cancel(run, ended_at))
        return Apply(protocol.retry_or_fail(run, _cause(execution, "without a result"), ended_at))
    silent = now - (run.heartbeat_at or run.state_since)
    patience = settings.stuck_after_s if run.cancel_requested else settings.hung_after_s
    return StopExecution(execution.name) if silent > timedelta(seconds=patience) else Nothing()


def _cause(execution: Execution | None, when: str) -> str:
    if execution is None:
        return f"the execution is not known to Cloud Run, {when}"
    detail = f": {execution.message}" if execution.message else ""
    return f"execution {execution.name} {execution.state.value} {when}{detail}"


def reconcile(services: Services, wakeup: Wakeup) -> None:
    """Does what is owed to every run that is under way, gives back what nobody holds, and fills free GPUs.

    What it reads follows the runs that are under way, not those that wait or have ended.
    """
    for run in services.runs.queries.with_pending_outbox():
        if services.now() - run.updated_at > timedelta(seconds=min(30, services.settings.stuck_after_s)):
            _guarded(run, partial(lifecycle.announce, services, run))
    attempts = list(services.runs.queries.attempts())
    for run in attempts:
        if wakeup.execution is None or run.execution in (None, wakeup.execution):
            _guarded(run, partial(_help, services, run))
    if wakeup.execution is None:
        for run in (*services.runs.queries.in_intake(), *services.runs.queries.asked_to_end()):
            _guarded(run, partial(_help, services, run))
        free_lost_slots(services, {run.run_id for run in attempts})
    if wakeup.sweep_drops:
        sweep_drops(services)
    dispatcher.fill(services)
    if wakeup.sweep_drops:
        sweep_leftovers(services)  # the least urgent of all


def _guarded(run: Run, help_: Callable[[], None]) -> None:
    """One run that cannot be helped must not keep the others from being helped; the next tick tries again."""
    try:
        help_()
    except Exception:
        log.exception("run %s could not be reconciled", run.run_id)


def _help(services: Services, run: Run) -> None:
    step = next_step(run, _execution_of(services, run), services.now(), services.settings)
    if step != Nothing():
        log.info("run %s (%s, epoch %d): %s", run.run_id, run.state, run.epoch, type(step).__name__)
        with tracing.of_run(run, f"reconcile {type(step).__name__}"):
            _take(services, run, step)


def free_lost_slots(services: Services, attempts: set[str]) -> None:
    """Takes GPUs from runs that are not on one: somebody changed or deleted their documents."""
    for accelerator in quota.ACCELERATORS:
        slots = services.runs.ledger.pool(accelerator).slots
        for run_id in slots.keys() - attempts:
            services.runs.slots.free(accelerator, run_id, slots[run_id].epoch)


def sweep_drops(services: Services) -> None:
    """Takes in what was lately written to the drops bucket and whose event was lost, also where it was written over."""
    since = services.now() - timedelta(seconds=services.settings.sweep_window_s)
    landed = [
        Landed(path, item.generation, item.created_at)
        for item in services.objects.generations(services.settings.drops_bucket, layout.COMMITTING)
        if item.created_at >= since and (path := DropPath.parse(item.bucket, item.name)) is not None
    ]
    manifests = {
        run_of_drop(one.path, one.generation, one.written_at, services.now()).run_id: one
        for one in landed
        if one.path.role is ObjectRole.MANIFEST
    }
    lost = [manifests[run_id] for run_id in manifests.keys() - services.runs.existing(list(manifests))]
    commands = [one for one in landed if one.path.role in layout.COMMANDS.values()]
    for one in (*lost, *commands):
        try:
            bucket_events.take(services, one)
        except Exception:
            log.exception("%s%s could not be taken in", one.path.prefix, one.path.role.value)


def _execution_of(services: Services, run: Run) -> Execution | None:
    """The execution of the run's present epoch, as Cloud Run sees it now."""
    if not run.state.is_attempt:
        return None
    if run.execution is not None:
        return services.jobs.look_up(run.execution)
    return next((e for e in services.jobs.listed() if e.run_id == run.run_id and e.epoch == run.epoch), None)


def _take(services: Services, run: Run, step: Step) -> None:
    match step:
        case TakeFurther():
            advance(services, run)
        case FinishCommit():
            publish_version(services, run)
        case StopExecution(name):
            services.jobs.cancel(name)
        case Apply(change):
            lifecycle.change(services, run.run_id, _if_unchanged(run, change))
        case Nothing():
            return


def _if_unchanged(seen: Run, change: Change) -> Decide:
    """The change was decided for what was seen; a run that moved on meanwhile is looked at at the next tick."""

    def decide(run: Run) -> Change | None:
        same = (run.state, run.epoch, run.attempt, run.owner) == (seen.state, seen.epoch, seen.attempt, seen.owner)
        return change if same and protocol.is_committed(run) == protocol.is_committed(seen) else None

    return decide
