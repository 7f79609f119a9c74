"""The protocol by which a run is claimed, owned, committed and tried again. Pure: state in, change out.

Two counters keep it safe (docs/reliability.md): `epoch` counts dispatches, so that an execution started by an
older dispatch leaves; `attempt` counts training attempts that really began, so that dispatch retries do not
use up the training budget.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from schemas.errors import Problem, problem
from schemas.run import Artifacts, Metrics, Owner, Progress, Run, RunError
from schemas.run_states import RunState, check_change


@dataclass(frozen=True)
class Change:
    """What one transaction does to a run: fields to set and, unless `to` is None, a change of state."""

    to: RunState | None = None
    reason: str = ""
    fields: dict[str, Any] = field(default_factory=dict)

    def applied_to(self, run: Run, now: datetime) -> Run:
        """The run after the change. Raises IllegalChange."""
        update = self.fields | {"updated_at": now}
        if self.to is not None:
            check_change(run.state, self.to)
            update |= {
                "state": self.to,
                "state_reason": self.reason,
                "state_since": now,
                "revision": run.revision + 1,
                "outbox_pending": True,
            }
            if self.to.is_final:
                update["finished_at"] = now
        return run.model_copy(update=update)


class Fenced(Exception):  # noqa: N818 - says what happened to the caller
    """Raised to an execution that does not, or no longer, own the run: it must leave without writing."""


def claim(run: Run) -> Change | None:
    """The dispatcher takes a waiting run. None when there is nothing to take: a duplicate or a late message."""
    if run.state is not RunState.QUEUED:
        return None
    if run.cancel_requested:
        return cancel(run)
    return Change(
        RunState.STARTING,
        f"starting attempt {run.attempt}",
        {"epoch": run.epoch + 1, "execution": None, "owner": None, "heartbeat_at": None, "started_at": None},
    )


def dispatched(run: Run, epoch: int, execution: str) -> Change | None:
    """Note the started execution, unless the trainer was quicker or a newer dispatch is under way."""
    if run.state.is_attempt and run.epoch == epoch and run.execution is None:
        return Change(fields={"execution": execution})
    return None


def own(run: Run, epoch: int, owner: Owner, now: datetime) -> Change:
    """The trainer's first transaction: take the run, or raise Fenced.

    The same execution with a higher task attempt is Cloud Run's own retry of a task that died: it resumes, and
    that counts as an attempt.
    """
    if not run.state.is_attempt or run.epoch != epoch:
        raise Fenced(f"epoch {epoch} is not the run's present dispatch ({run.state}, epoch {run.epoch})")
    if run.owner == owner:
        return Change(fields={"heartbeat_at": now})
    taken = {"owner": owner, "execution": owner.execution, "heartbeat_at": now, "started_at": now}
    if run.owner is None:
        return Change(fields=taken)
    if run.owner.execution == owner.execution and run.owner.task_attempt < owner.task_attempt:
        if is_committed(run):
            return Change(fields=taken)
        if run.attempt >= max_attempts(run):
            return exhausted(run, f"task attempt {run.owner.task_attempt} of the execution died")
        return Change(
            RunState.STARTING, "a new task attempt of the same execution", taken | {"attempt": run.attempt + 1}
        )
    raise Fenced(f"the run is owned by {run.owner.execution}, task attempt {run.owner.task_attempt}")


def check_owner(run: Run, owner: Owner) -> None:
    """Raises Fenced unless `owner` may write to the run."""
    if not run.state.is_attempt or run.owner != owner:
        raise Fenced(f"the run is {run.state} and owned by {run.owner.execution if run.owner else 'nobody'}")


def advance(run: Run, owner: Owner, to: RunState, reason: str, now: datetime, **fields: Any) -> Change:
    """The owner moves the run on. Raises Fenced."""
    check_owner(run, owner)
    if run.state is to:
        return Change(fields=fields | {"heartbeat_at": now})  # our own write, whose answer was lost
    return Change(to, reason, fields | {"heartbeat_at": now})


def heartbeat(run: Run, owner: Owner, progress: Progress, now: datetime) -> Change:
    """The owner says that it is alive and how far it is; it learns here that it is to stop. Raises Fenced."""
    check_owner(run, owner)
    if run.cancel_requested and not is_committed(run):
        return cancel(run)
    return Change(fields={"progress": progress, "heartbeat_at": now})


def commit(run: Run, owner: Owner, artifacts: Artifacts, metrics: Metrics, now: datetime) -> Change:
    """The one moment in which a run gets its version. Raises Fenced.

    What is uploaded lies whole under `artifacts.staged`; from here on nobody trains again, whoever finishes.
    """
    check_owner(run, owner)
    return Change(fields={"artifacts": artifacts, "metrics": metrics, "heartbeat_at": now})


def is_committed(run: Run) -> bool:
    """True when a version was named: what is left is copying it to its place."""
    return run.artifacts is not None


def succeed(run: Run, version_uri: str, cost_usd: float | None) -> Change | None:
    """The version can be read whole. None when somebody else finished it before."""
    if run.state is not RunState.EVALUATING or run.artifacts is None:
        return None
    artifacts = run.artifacts.model_copy(update={"uri": version_uri})
    fields = {"artifacts": artifacts, "cost_usd": cost_usd if cost_usd is not None else run.cost_usd}
    return Change(RunState.SUCCEEDED, f"version v{artifacts.version} is ready", fields)


def retry_or_fail(run: Run, cause: str) -> Change:
    """What follows when the execution of an attempt that had begun ended without a commit."""
    if run.attempt >= max_attempts(run):
        return exhausted(run, cause)
    return Change(
        RunState.QUEUED,
        f"attempt {run.attempt} ended ({cause}); trying again",
        {"attempt": run.attempt + 1, "owner": None, "progress": Progress()},
    )


def redispatch_or_fail(run: Run, cause: str, limit: int) -> Change:
    """What follows when an execution ended, or never was, before an attempt began."""
    spare = run.epoch - run.attempt + 1
    if spare >= limit:
        return fail(problem("dispatch_exhausted", count=run.epoch, cause=cause))
    return Change(RunState.QUEUED, f"starting again ({cause})", {"owner": None})


def exhausted(run: Run, cause: str) -> Change:
    """The last attempt died."""
    return fail(problem("attempts_exhausted", attempt=run.attempt, limit=max_attempts(run), cause=cause))


def fail(reason: Problem) -> Change:
    """End FAILED."""
    return Change(RunState.FAILED, reason.message, {"error": to_error([reason])})


def cancel(run: Run) -> Change:
    """End CANCELLED."""
    return Change(RunState.CANCELLED, "cancelled by request", {"error": to_error([problem("cancelled")])})


def to_error(problems: list[Problem], shown: int = 100) -> RunError:
    """The run's `error` from all problems found: the first in full, all of them counted by code."""
    first = problems[0]
    counts: dict[str, int] = {}
    for found in problems:
        counts[found.code] = counts.get(found.code, 0) + 1
    return RunError(
        code=first.code,
        message=str(first).split("\n")[0].removesuffix(f" [{first.code}]"),
        hint=first.hint,
        details=problems[:shown],
        counts=counts,
    )


def max_attempts(run: Run) -> int:
    """How many training attempts the manifest allows."""
    return run.manifest.compute.max_attempts if run.manifest else 1
