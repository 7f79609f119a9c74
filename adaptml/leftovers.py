"""What attempts leave in the artifacts bucket once their run has ended, and for how long somebody may need it.

Pure: `functions/leftovers.py` asks and deletes. Lifecycle rules of a bucket cannot do it, since they know only
beginnings and ends of names, and what is left lies below `{tenant}/{name}/.staging/` and `….checkpoints/`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from adaptml.settings import Settings
from schemas import layout
from schemas.run import Run

CLOCKS_DIFFER = timedelta(minutes=5)
"""At most, between the machine that takes up a RESUME and the one that sweeps."""


@dataclass(frozen=True)
class Sweep:
    """What is to be done about one run."""

    folders: tuple[str, ...]
    """Of the artifacts bucket, to be emptied."""
    again_at: datetime | None
    """When to look again; None once nothing can be left."""


def resumable_until(run: Run, settings: Settings) -> datetime | None:
    """Until when a RESUME goes on from the run's checkpoint. None where there is no such time: it has not ended, or
    has no checkpoint, so that whoever takes it up starts from the beginning anyway."""
    if run.finished_at is None or run.checkpoint is None:
        return None
    return run.finished_at + timedelta(seconds=settings.checkpoints_kept_s)


def next_sweep(
    run: Run, holders: Sequence[Run], asked_for: Collection[str], now: datetime, settings: Settings
) -> Sweep:
    """What may go of a run that has ended, and when to look at it again.

    `holders` are the runs whose documents name a checkpoint in its folder: itself, and those that took it up and have
    saved none of their own. `asked_for` are runs that a RESUME names which was not taken up yet. Nothing of a run goes
    before its end was announced: the audit trail, of which Firestore can be made anew, must know of it.
    """
    if run.finished_at is None or run.outbox_pending:
        return Sweep((), run.sweep_at)
    cut_off = run.finished_at + timedelta(seconds=settings.leftovers_after_s)
    if now < cut_off:
        return Sweep((), cut_off)
    staged = layout.staged_by(run.tenant, run.name, run.run_id)
    needed_until = _needed_until(holders, asked_for, now, settings)
    if needed_until > now:
        return Sweep((staged,), needed_until)
    return Sweep((staged, layout.checkpoint_prefix(run.tenant, run.name, run.run_id)), None)


def _needed_until(holders: Sequence[Run], asked_for: Collection[str], now: datetime, settings: Settings) -> datetime:
    """When nobody goes on from these checkpoints any more; a time to look again where that is not known yet."""
    until = now
    for holder in holders:
        ended = resumable_until(holder, settings)
        if ended is None or holder.run_id in asked_for:
            return now + timedelta(seconds=settings.leftovers_after_s)
        until = max(until, ended + CLOCKS_DIFFER)
    return until
