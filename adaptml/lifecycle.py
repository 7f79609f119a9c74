"""Changing a run and telling everybody: topics, and the files beside the drop.

What a change announces is written with it (audit event, `outbox_pending`) and announced after it. If the
announcer dies in between, whoever touches the run next, or the reconciler, announces it: nothing is lost, and
consumers drop repetitions by `event_id`.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from typing import Any

from google.api_core.exceptions import GoogleAPICallError, RetryError

from adaptml import tracing
from adaptml.protocol import Change
from adaptml.quota import Wait
from adaptml.report import rejection_report, to_json
from adaptml.runs.changes import Decide
from adaptml.runs.curve import Points
from adaptml.services import Services
from schemas import layout
from schemas.messages import RunEvent, RunReady
from schemas.run import AuditEntry, Event, Run
from schemas.run_states import RunState

log = logging.getLogger(__name__)


class Lost(Exception):  # noqa: N818 - says what happened to the runs
    """Raised where a run is to be created that there was before, or in the place of runs that are gone."""


def create(services: Services, run: Run) -> bool:
    """Creates the run and announces it. False when it exists.

    Raises Lost while runs of the audit trail are missing: to begin anew would train again what was trained, and number
    versions anew. What asked for the run is delivered again; `adaptml rebuild` writes the runs.
    """
    refuse_if_lost(services, run)
    if not services.runs.create(run):
        return False
    announce(services, services.runs.get(run.run_id))
    return True


def change(services: Services, run_id: str, decide: Decide, *, points: Points | None = None) -> Run | None:
    """Changes the run (see `RunStore.change`) and announces what changed. None when there was nothing to change."""
    run = services.runs.change(run_id, decide, points=points)
    if run is not None and run.outbox_pending:
        announce(services, run)
    return run


def claim(services: Services, run_id: str) -> Run | Wait | None:
    """Takes a GPU for the run (see `Slots.claim`) and announces what changed; a run that waits says for what."""
    began = time.time_ns()
    claimed = services.runs.slots.claim(run_id, services.settings.gpu_quota)
    if isinstance(claimed, Run):
        with tracing.of_run(claimed, "claim", since=began):  # in vain it is tried every minute that a run waits
            announce(services, claimed)
    elif isinstance(claimed, Wait) and claimed.is_personal:
        services.runs.change(run_id, lambda run: _with_reason(run, claimed.reason))
    return claimed


def _with_reason(run: Run, reason: str) -> Change | None:
    is_news = run.state is RunState.QUEUED and run.state_reason != reason
    return Change(fields={"state_reason": reason}) if is_news else None


def refuse_if_lost(services: Services, run: Run) -> None:
    """Raises Lost when the run's audit trail exists and it does not, or when all runs are gone."""
    bucket = services.settings.artifacts_bucket
    if services.objects.pin(bucket, layout.audit_object(run.tenant, run.run_id, 1)) is not None:
        is_lost = services.runs.find(run.run_id) is None
    else:
        is_lost = services.runs.is_empty() and any(services.objects.list(bucket, layout.AUDIT))
        is_lost = is_lost and services.runs.is_empty()  # between the two looks the very first run may have come
    if is_lost:
        raise Lost(f"{run.run_id} is not taken in: runs are missing in Firestore; see `adaptml rebuild`")


@tracing.on_run("announce")
def announce(services: Services, run: Run) -> None:
    """Publishes the run's unannounced events, `run-ready` if it waits or has left a GPU to others, renews the files
    beside the drop, and writes the audit trail.

    A service that does not answer is logged and left to the reconciler: the change itself has happened.
    """
    try:
        events = services.runs.outbox.unannounced(run, after=run.announced_revision)
        _tell(run, events)
        if run.state is RunState.QUEUED or any(event.frees_gpu for event in events):
            services.bus.publish("run-ready", RunReady(run_id=run.run_id, attempt=run.attempt))
        for event in events:
            services.bus.publish("run-events", _message(event), run_id=run.run_id, tenant=run.tenant)
        write_beside_drop(services, run, events)
        write_audit(services, run, events)
        services.runs.outbox.mark_announced(run.run_id, run.revision)
    except (GoogleAPICallError, RetryError, TimeoutError) as error:
        log.warning("announcement of %s revision %d failed: %s", run.run_id, run.revision, type(error).__name__)


def _tell(run: Run, events: Sequence[Event]) -> None:
    """What the alert for failed runs counts. An error's code and no more: its text is for whoever owns the run."""
    for event in events:
        is_bad = event.to_state in {RunState.FAILED, RunState.EXPIRED}
        code = f" ({run.error.code})" if is_bad and run.error is not None else ""
        level = logging.WARNING if is_bad else logging.INFO
        log.log(level, "run %s is %s%s", run.run_id, event.to_state, code, extra={"run_id": run.run_id})


def write_audit(services: Services, run: Run, events: list[Event]) -> None:
    """One object for each change of state, with the run as it was then: what is left when Firestore is lost.

    Of changes that were announced late only the last one still has its run. That one is written first: an object
    without a run then always has a later one with it. Changes after the run that is at hand are whoever's made them.
    """
    for event in reversed(events):
        if event.revision <= run.revision:
            entry = AuditEntry(event=event, run=run if event.revision == run.revision else None)
            name = layout.audit_object(run.tenant, run.run_id, event.revision)
            services.objects.put_new(services.settings.artifacts_bucket, name, entry.model_dump_json().encode())


def write_beside_drop(services: Services, run: Run, events: Sequence[Event] = ()) -> None:
    """STATUS.json, and REJECTED.md for a drop that was refused: for a person who only has gsutil.

    REJECTED.md is about the folder's newest run. It is written before STATUS.json, so that whoever finds that a newer
    run has told already can take back what would mislead now. An older run that is tried again leaves it alone.
    """
    is_refused = run.state in {RunState.REJECTED, RunState.EXPIRED}
    if is_refused:
        put_beside_drop(services, run, layout.REJECTED, rejection_report(run), "text/markdown")
    is_newest = put_beside_drop(services, run, layout.STATUS, status_json(run), "application/json") is not None
    is_mended = any(event.to_state in {RunState.QUEUED, RunState.VALIDATED} for event in events)
    if (is_refused and not is_newest) or (is_mended and is_newest):
        services.objects.delete_older(run.source.bucket, _beside(run, layout.REJECTED), _order(run))


def write_report(services: Services, run: Run, document: dict[str, Any]) -> int | None:
    """validation-report.json, unless a newer run has written its own; returns its generation then."""
    body = to_json({"run_id": run.run_id} | document)
    return put_beside_drop(services, run, layout.REPORT, body, "application/json")


def put_beside_drop(services: Services, run: Run, file: str, body: str, content_type: str) -> int | None:
    """Writes a file beside the drop, unless a newer run has; returns its generation then."""
    return services.objects.put_newer(run.source.bucket, _beside(run, file), body, content_type, _order(run))


def _beside(run: Run, file: str) -> str:
    return layout.drop_prefix(run.tenant, run.folder or run.name) + file


def status_json(run: Run) -> str:
    """What STATUS.json says: the run document without its internals."""
    status = run.model_dump(
        mode="json",
        include={
            "run_id",
            "state",
            "state_reason",
            "tenant",
            "name",
            "folder",
            "attempt",
            "estimate",
            "progress",
            "metrics",
            "artifacts",
            "cost_usd",
            "error",
            "created_at",
            "updated_at",
            "finished_at",
        },
    )
    return json.dumps(status | {"manifest_generation": run.source.manifest_generation}, indent=2) + "\n"


def _order(run: Run) -> str:
    """Newer drops before older, later changes before earlier, later heartbeats before earlier."""
    return f"{run.created_at.timestamp():017.6f}/{run.revision:06d}/{run.updated_at.timestamp():017.6f}"


def _message(event: Event) -> RunEvent:
    return RunEvent(
        event_id=event.event_id,
        run_id=event.run_id,
        tenant=event.tenant,
        from_state=event.from_state or "",
        to_state=event.to_state,
        at=event.at,
        attempt=event.attempt,
        reason=event.reason,
    )
