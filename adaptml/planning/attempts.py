"""How a run that takes longer than `compute.timeout` is cut into attempts that go on from each other. Pure."""

from __future__ import annotations

import math

_LEAVE_BEFORE_S, _LEAVE_BEFORE_SHARE = 120.0, 0.1


def leave_before_s(timeout_s: float) -> float:
    """How long before its timeout an attempt hands over: time for a last step and a checkpoint."""
    return min(_LEAVE_BEFORE_S, timeout_s * _LEAVE_BEFORE_SHARE)


def usable_s(timeout_s: float, startup_s: float) -> float:
    """What an attempt has for steps; less than nothing where it does not even start in time."""
    return timeout_s - leave_before_s(timeout_s) - startup_s


def attempts_needed(work_s: float, timeout_s: float, startup_s: float) -> int:
    """Attempts for so many seconds of steps. A run that cannot be cut, because an attempt has no time left for a step,
    is planned as one."""
    usable = usable_s(timeout_s, startup_s)
    if startup_s + work_s <= timeout_s or usable <= 0:
        return 1
    return math.ceil(work_s / usable)
