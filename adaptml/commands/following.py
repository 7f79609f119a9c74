"""Following a run in the terminal until it has ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live

from adaptml import watch
from schemas.run import Run

if TYPE_CHECKING:
    from adaptml.runs.store import RunStore

EVERY_S = 0.4


def follow(
    runs: RunStore,
    run_id: str,
    console: Console,
    *,
    within_s: float,
    every_s: float = EVERY_S,
    say: Callable[[Run], str] = watch.line,
    draws: bool | None = None,
    with_outcome: bool = False,
) -> Run | None:
    """Shows the run until it has ended; None when that takes too long, or there is no run.

    On a terminal its states, progress and loss curve are drawn; else what `say` makes of it, whenever that changes.
    """
    draws = console.is_terminal if draws is None else draws
    deadline, shown = time.monotonic() + within_s, ""
    with Live(console=console, refresh_per_second=4, transient=False) if draws else _Nothing() as live:
        while True:
            run = runs.find(run_id)
            if run is not None:
                if isinstance(live, Live):
                    live.update(watch.view(run, runs.curve(run_id), with_outcome=with_outcome))
                elif (text := say(run)) != shown:
                    shown = text
                    sys.stdout.write(f"{text}\n")
                    sys.stdout.flush()
                if run.state.is_final:
                    return run
            if time.monotonic() > deadline:
                return None
            time.sleep(every_s)


class _Nothing:
    """Where nothing is drawn."""

    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        return
