"""The protocol by which a run is claimed, owned, committed and tried again. Pure: state in, change out.

Three counters keep it going (docs/reliability.md): `epoch` counts dispatches, so that an execution started by an
older dispatch leaves; `attempt` counts training attempts that really began; `deaths` counts those of them that died,
so that neither dispatch retries nor planned hand-overs use up the training budget.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from adaptml.gate import judged
from adaptml.quota import used_usd
from schemas.errors import Problem, problem
from schemas.run import Artifacts, Checkpoint, Metrics, Owner, Progress, Run, RunError
from schemas.run_states import RunState, check_change


@dataclass(frozen=True)
class Change:
    """What one transaction does to a run: fields to set and, unless `to` is None, a change of state."""

    to: RunState | None = None
    reason: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    used_until: datetime | None = None
    """When the attempt that the change ends used its GPU last, if that was before now."""

    def ends_attempt(self, run: Run) -> bool:
        """True where the run gives its GPU back."""
        return self.to is not None and run.state.is_attempt and not self.to.is_attempt

    def applied_to(self, run: Run, now: datetime) -> Run:
        """The run after the change. Raises IllegalChange."""
        update = self.fields | {"updated_at": now}
        if self.to is not None:
            check_change(run.state, self.to)
            if self.ends_attempt(run):
                used = used_usd(run, min(self.used_until or now, now))
                update |= {"cost_usd": round(run.cost_usd + used, 6), "started_at": None}
            update |= {
                "state": self.to,
                "state_reason": self.reason,
                "state_since": now,
                "revision": run.revision + 1,
                "outbox_pending": True,
            }
            if self.to.is_final:
                update["finished_at"] = now
                update["sweep_at"] = now if run.epoch else None  # who was never started has left nothing
        return run.model_copy(update=update)


class Fenced(Exception):  # noqa: N818 - says what happened to the caller
    """Raised to an execution that does not, or no longer, own the run: it must leave without writing."""


def claim(run: Run) -> Change | None:
    """A waiting run is taken for a start. None when there is nothing to take: a duplicate or a late message."""
    if run.state is not RunState.QUEUED:
        return None
    if run.cancel_requested:
        return cancel(run)
    reason = f"starting attempt {run.attempt}"
    if run.checkpoint is not None:
        reason += f", from step {run.checkpoint.step}"
    fields = {"epoch": run.epoch + 1, "execution": None, "owner": None, "heartbeat_at": None, "started_at": None}
    return Change(RunState.STARTING, reason, fields | {"resumed_step": run.checkpoint and run.checkpoint.step})


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
        if run.deaths + 1 >= max_attempts(run):
            return exhausted(run, f"task attempt {run.owner.task_attempt} of the execution died")
        counted = {"attempt": run.attempt + 1, "deaths": run.deaths + 1, "started_at": run.started_at}
        return Change(RunState.STARTING, "a new task attempt of the same execution", taken | counted)
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


def heartbeat(run: Run, owner: Owner, progress: Progress, checkpoint: Checkpoint | None, now: datetime) -> Change:
    """The owner says that it is alive and how far it is. It sees in the run whether it is to stop. Raises Fenced."""
    check_owner(run, owner)
    return Change(fields={"progress": progress, "checkpoint": checkpoint or run.checkpoint, "heartbeat_at": now})


def stop(run: Run, owner: Owner, checkpoint: Checkpoint | None) -> Change:
    """The owner ends the run as it was asked to. Raises Fenced."""
    check_owner(run, owner)
    saved = checkpoint or run.checkpoint
    ended = cancel(run.model_copy(update={"checkpoint": saved}))
    return replace(ended, fields=ended.fields | {"checkpoint": saved})


def hand_over(run: Run, owner: Owner, cause: str, checkpoint: Checkpoint | None) -> Change:
    """The owner has to leave before it is done: its time is up, or its machine is taken away. Raises Fenced.

    The next attempt goes on from the checkpoint. An attempt that saved no new step counts as a death: a run whose
    steps are longer than its attempts must not go round for ever.
    """
    check_owner(run, owner)
    if is_committed(run):
        raise ValueError(f"{run.run_id} has its version; there is nothing to hand over")
    saved = checkpoint or run.checkpoint
    if saved is None or saved.step <= (run.resumed_step or 0):
        return retry_or_fail(run, f"{cause} before a step was saved")
    reason = f"attempt {run.attempt} saved step {saved.step} ({cause}); goes on from there"
    fields = {"attempt": run.attempt + 1, "owner": None, "checkpoint": saved}
    return Change(RunState.QUEUED, reason, fields)


def commit(run: Run, owner: Owner, artifacts: Artifacts, metrics: Metrics, now: datetime) -> Change:
    """The one moment in which a run gets its version. Raises Fenced.

    What is uploaded lies whole under `artifacts.staged`; from here on nobody trains again, whoever finishes. Whether
    it may be promoted is decided here, too.
    """
    check_owner(run, owner)
    version = judged(artifacts, run.manifest, metrics)
    return Change(fields={"artifacts": version, "metrics": metrics, "heartbeat_at": now})


def is_committed(run: Run) -> bool:
    """True when a version was named: what is left is copying it to its place."""
    return run.artifacts is not None


def succeed(run: Run, version_uri: str) -> Change | None:
    """The version can be read whole. None when somebody else finished it before."""
    if run.state is not RunState.EVALUATING or run.artifacts is None:
        return None
    artifacts = run.artifacts.model_copy(update={"uri": version_uri})
    fields = {"artifacts": artifacts, "checkpoint": None}
    reason = f"version v{artifacts.version} is ready"
    if not artifacts.promotable:
        reason += f", but not promotable: {artifacts.promotable_reason}"
    return Change(RunState.SUCCEEDED, reason, fields)


def retry_or_fail(run: Run, cause: str, died_at: datetime | None = None) -> Change:
    """What follows when the execution of an attempt that had begun ended without a commit."""
    if run.deaths + 1 >= max_attempts(run):
        return replace(exhausted(run, cause), used_until=died_at)
    fields: dict[str, Any] = {"attempt": run.attempt + 1, "deaths": run.deaths + 1, "owner": None}
    if run.checkpoint is None:
        fields["progress"] = Progress()
    reason = f"attempt {run.attempt} ended ({cause}); trying again"
    return Change(RunState.QUEUED, reason, fields, died_at)


def redispatch_or_fail(run: Run, cause: str, limit: int) -> Change:
    """What follows when an execution ended, or never was, before an attempt began."""
    spare = run.epoch - run.attempt + 1
    if spare >= limit:
        return fail(problem("dispatch_exhausted", count=run.epoch, cause=cause))
    return Change(RunState.QUEUED, f"starting again ({cause})", {"owner": None})


def exhausted(run: Run, cause: str) -> Change:
    """The last attempt died."""
    failed = fail(problem("attempts_exhausted", attempt=run.attempt, limit=max_attempts(run), cause=cause))
    return replace(failed, fields=failed.fields | {"deaths": run.deaths + 1})


def fail(reason: Problem) -> Change:
    """End FAILED."""
    return Change(RunState.FAILED, reason.message, {"error": to_error([reason])})


def cancel(run: Run, ended_at: datetime | None = None) -> Change:
    """End CANCELLED."""
    reason = "cancelled by request"
    if run.checkpoint is not None:
        reason += f"; step {run.checkpoint.step} is saved"
    return Change(RunState.CANCELLED, reason, {"error": to_error([problem("cancelled")])}, ended_at)


def request_cancel(run: Run) -> Change | None:
    """Somebody wants the run to end: at once while nothing of it runs, else as soon as its owner or the reconciler
    sees it. None when it has ended, or was asked before."""
    if run.state.is_final:
        return None
    if not run.state.is_attempt:
        return cancel(run)
    return None if run.cancel_requested else Change(fields={"cancel_requested": True})


def rejected(problems: list[Problem], counts: dict[str, int] | None = None, **fields: object) -> Change:
    """The drop is wrong. `counts` holds all problems by code where not all of them are given."""
    error = to_error(problems)
    if counts:
        error = error.model_copy(update={"counts": counts})
    return Change(RunState.REJECTED, error.message, fields | {"error": error})


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
