"""How a run that takes longer than `compute.timeout` is cut into attempts that go on from each other. Pure."""

from __future__ import annotations

import math

_LEAVE_BEFORE_S, _LEAVE_BEFORE_SHARE = 120.0, 0.1


def leave_before_s(timeout_s: float) -> float:
    """How long before its timeout an attempt hands over: time for a last step and a checkpoint."""
    return min(_LEAVE_BEFORE_S, timeout_s * _LEAVE_BEFORE_SHARE)


def timeout_for(needed_s: float) -> float:
    """The least timeout that leaves an attempt so much time before it hands over."""
    return min(needed_s + _LEAVE_BEFORE_S, needed_s / (1 - _LEAVE_BEFORE_SHARE))


def attempts_needed(steps: int, step_s: float, usable_s: float, at_the_end_s: float = 0.0) -> int:
    """Attempts for so many steps where each has `usable_s` seconds for them; 0 when not even one step fits.

    `at_the_end_s` is what comes after the last step, at one go: with that step if there is time, else in an attempt of
    its own, and where no attempt has time for it, 0 again.
    """
    if max(step_s, at_the_end_s) > usable_s or usable_s <= 0:
        return 0
    if step_s * steps + at_the_end_s <= usable_s:
        return 1
    if step_s * steps <= usable_s:
        return 2
    at_once = math.floor(usable_s / step_s)
    attempts = math.ceil(steps / at_once)
    of_the_last = steps - (attempts - 1) * at_once
    return attempts if of_the_last * step_s + at_the_end_s <= usable_s else attempts + 1
