"""The states of a run and every change that is allowed between them."""

from __future__ import annotations

import enum


class RunState(enum.StrEnum):
    """Where a run is on its way from a drop to an adapter."""

    RECEIVED = "RECEIVED"
    AWAITING_DATA = "AWAITING_DATA"
    VALIDATING = "VALIDATING"
    VALIDATED = "VALIDATED"
    QUEUED = "QUEUED"
    STARTING = "STARTING"
    TRAINING = "TRAINING"
    EVALUATING = "EVALUATING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"

    @property
    def is_final(self) -> bool:
        """True when nothing more happens to the run."""
        return not TRANSITIONS[self]

    @property
    def is_attempt(self) -> bool:
        """True while an execution owns the run, or is being started for it."""
        return self in {RunState.STARTING, RunState.TRAINING, RunState.EVALUATING}


_S = RunState

TRANSITIONS: dict[RunState, frozenset[RunState]] = {
    # A manifest that cannot be read is refused before any data is looked for.
    _S.RECEIVED: frozenset({_S.AWAITING_DATA, _S.VALIDATING, _S.REJECTED, _S.CANCELLED}),
    _S.AWAITING_DATA: frozenset({_S.VALIDATING, _S.EXPIRED, _S.CANCELLED}),
    # VALIDATED is where a dry run ends.
    _S.VALIDATING: frozenset({_S.QUEUED, _S.VALIDATED, _S.REJECTED, _S.CANCELLED}),
    _S.QUEUED: frozenset({_S.STARTING, _S.FAILED, _S.CANCELLED}),
    # Back to QUEUED is a retry. STARTING again is a new task attempt of the same execution.
    _S.STARTING: frozenset({_S.TRAINING, _S.QUEUED, _S.STARTING, _S.FAILED, _S.CANCELLED}),
    _S.TRAINING: frozenset({_S.EVALUATING, _S.QUEUED, _S.STARTING, _S.FAILED, _S.CANCELLED}),
    _S.EVALUATING: frozenset({_S.SUCCEEDED, _S.QUEUED, _S.STARTING, _S.FAILED, _S.CANCELLED}),
    _S.VALIDATED: frozenset(),
    _S.SUCCEEDED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
    _S.REJECTED: frozenset(),
    _S.EXPIRED: frozenset(),
}

ACTIVE_STATES: tuple[RunState, ...] = tuple(state for state in RunState if not state.is_final)


class IllegalChange(Exception):  # noqa: N818 - names what was attempted
    """Raised for a change of state that the table does not hold."""


def check_change(before: RunState, after: RunState) -> None:
    """Raises IllegalChange unless the table allows `before` → `after`."""
    if after not in TRANSITIONS[before]:
        allowed = ", ".join(sorted(TRANSITIONS[before])) or "nothing: it is final"
        raise IllegalChange(f"{before} → {after} is not allowed; from {before}: {allowed}")
