"""`python -m tests.simulation`: plays schedules, or one again."""

from __future__ import annotations

import argparse
import gc
import json
import math
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial

from tests.simulation.mutations import MUTATIONS
from tests.simulation.schedule import Outcome, play
from tests.simulation.stage import Stage, installed
from tests.simulation.world import World

AT_ONCE = 25
"""Schedules that a process plays before it tells of them."""


def play_some(first: int, *, count: int) -> list[Outcome]:
    """Consecutive seeds, in one process."""
    Stage.world = World(0)
    gc.disable()  # worlds are full of circles, and short-lived
    with installed():
        gc.freeze()  # what is there by now stays, and is not looked through for circles again
        played = []
        for seed in range(first, first + count):
            played.append(play(seed))
            if seed % 5 == 0:
                gc.collect()
        return played


def outcomes(first: int, count: int, jobs: int) -> Iterator[Outcome]:
    """Of consecutive seeds."""
    starts = range(first, first + count, AT_ONCE)
    some = partial(play_some, count=min(AT_ONCE, count))
    if jobs == 1:
        for start in starts:
            yield from some(start)
        return
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        for played in pool.imap(some, starts):
            yield from played


def main() -> int:
    """Returns the exit status: 1 when an invariant did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="play this schedule only")
    parser.add_argument("--trace", action="store_true", help="print what happens in it")
    parser.add_argument("--schedules", type=int, default=100, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="seed of the first (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no more after this time")
    parser.add_argument("--failures", type=int, default=1, help="stop after so many (default: %(default)s)")
    parser.add_argument("--mutations", nargs="*", help="take a guard of the product away, and count until it is missed")
    options = parser.parse_args()
    if options.mutations is not None:
        return _find(options.mutations or list(MUTATIONS), options.schedules)
    if options.seed is not None:
        return _play_one(options.seed, trace=options.trace)
    return _play_many(options)


def _play_one(seed: int, *, trace: bool) -> int:
    Stage.world = World(seed, trace=trace)
    with installed():
        outcome = play(seed, trace=trace)
    print("\n".join(outcome.trace))
    print(_line(outcome))
    return int(outcome.broken is not None)


def _play_many(options: argparse.Namespace) -> int:
    began, broken, played, runs, calls = time.monotonic(), 0, 0, 0, 0
    states: Counter[str] = Counter()
    for outcome in outcomes(options.first, options.schedules, options.jobs):
        played += 1
        runs += outcome.runs
        calls += outcome.calls
        states.update(outcome.states)
        if outcome.broken is not None:
            broken += 1
            print(_line(outcome), flush=True)
        if broken >= options.failures or time.monotonic() - began > options.seconds:
            break
    seconds = time.monotonic() - began
    figures = {
        "schedules": played,
        "broken": broken,
        "runs": runs,
        "calls": calls,
        "seconds": round(seconds, 1),
        "schedules_per_s": round(played / seconds, 1),
        "states": dict(sorted(states.items())),
    }
    print(json.dumps(figures))
    return int(broken > 0)


def _find(names: list[str], schedules: int) -> int:
    """A line for each mutation; returns 1 where one was not found."""
    missed = 0
    Stage.world = World(0)
    for name in names:
        began = time.monotonic()
        with installed(), MUTATIONS[name].patch():
            broken = next((outcome for outcome in map(play, range(schedules)) if outcome.broken is not None), None)
        gc.collect()
        missed += broken is None
        found = {"schedules": broken.seed + 1, "broken": broken.broken} if broken else {"schedules": None}
        print(json.dumps({"mutation": name, **found, "seconds": round(time.monotonic() - began, 1)}), flush=True)
    return int(missed > 0)


def _line(outcome: Outcome) -> str:
    verdict = outcome.broken or "all invariants hold"
    return f"seed {outcome.seed}: {outcome.runs} runs, {outcome.calls} calls, {outcome.seconds:.0f} s: {verdict}"


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets is part of a schedule
        os.execve(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],  # noqa: S606
                  os.environ | {"PYTHONHASHSEED": "0"})  # fmt: skip
    sys.exit(main())
