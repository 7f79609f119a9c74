"""Work that gives no sign of life of its own: it is done in another thread, and the attempt says that it goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable

LOOK_EVERY_S = 1.0
"""How soon an attempt that is to stop, stops: Cloud Run leaves it 10 s."""


def meanwhile(work: Callable[[], None], alive: Callable[[], None]) -> None:
    """Waits for the work, and calls `alive` every second until it is done. Raises what either of them raises.

    Where `alive` raises, the work is left to itself: its thread is a daemon, which does not keep the process from
    ending. So what it does must be harmless once the run is another's.
    """
    raised: list[BaseException] = []

    def catch() -> None:
        try:
            work()
        except BaseException as error:  # whatever it is, the caller is told
            raised.append(error)

    thread = threading.Thread(target=catch, daemon=True, name="meanwhile")
    thread.start()
    thread.join(LOOK_EVERY_S)
    while thread.is_alive():
        alive()
        thread.join(LOOK_EVERY_S)
    if raised:
        raise raised[0]
