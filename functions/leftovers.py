"""Deletes what attempts left in the artifacts bucket, once their run has ended and nobody can need it.

A few runs at a time, found by the field `sweep_at` that the end of a run sets: the bucket is never looked through.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import datetime
from itertools import islice

from adaptml.leftovers import next_sweep
from adaptml.protocol import Change
from adaptml.services import Services
from schemas import layout
from schemas.run import Run

log = logging.getLogger(__name__)

RUNS_AT_ONCE = 25
OBJECTS_AT_ONCE = 1000
"""Of one folder. A run has some twenty."""


def sweep_leftovers(services: Services) -> None:
    """Looks at the runs that are due, longest due first; a second call does no harm.

    The order of the three readings is what makes it safe beside a RESUME. First the time; then the RESUMEs that were
    not taken up yet; then, for each run, who goes on from its checkpoints. A RESUME that was created before the second
    reading is seen by it, or has its checkpoint by then and is seen by the third. One that is created later finds that
    the time is over, and is refused.
    """
    now = services.now()
    due = services.runs.queries.to_sweep(now, RUNS_AT_ONCE)
    if not due:
        return
    asked_for = {run.source.resumes or "" for run in services.runs.queries.to_be_taken_up()}
    for run in due:
        try:
            _sweep(services, run, asked_for, now)
        except Exception:
            log.exception("what attempts at %s left could not be deleted", run.run_id, extra={"run_id": run.run_id})


def _sweep(services: Services, run: Run, asked_for: Collection[str], now: datetime) -> None:
    folder = layout.checkpoint_prefix(run.tenant, run.name, run.run_id)
    holders = list(services.runs.queries.going_on_from(folder))
    sweep = next_sweep(run, holders, asked_for, now, services.settings)
    emptied = [_empty(services, run, folder) for folder in sweep.folders]
    if all(emptied):
        services.runs.change(run.run_id, lambda found: _looked_at(found, run, sweep.again_at))


def _empty(services: Services, run: Run, folder: str) -> bool:
    """Deletes what lies there; False where there is more than can be deleted at once."""
    bucket = services.settings.artifacts_bucket
    found = list(islice(services.objects.list(bucket, folder), OBJECTS_AT_ONCE + 1))
    for item in found[:OBJECTS_AT_ONCE]:
        services.objects.delete(bucket, item.name)
    if found:
        log.info("%d objects deleted below %s", len(found[:OBJECTS_AT_ONCE]), folder, extra={"run_id": run.run_id})
    return len(found) <= OBJECTS_AT_ONCE


def _looked_at(found: Run, seen: Run, again_at: datetime | None) -> Change | None:
    is_same = found.sweep_at == seen.sweep_at and again_at != seen.sweep_at
    return Change(fields={"sweep_at": again_at}) if is_same else None
