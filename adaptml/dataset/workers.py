"""Certifying chunks while others are read, on several cores where there is a compiled part."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from adaptml.dataset import native
from adaptml.dataset.chunk import Chunk
from adaptml.dataset.fast import FastPath
from adaptml.dataset.fingerprints import Prints
from adaptml.dataset.usual import Setup

MOST_THREADS = 4
"""More would wait for the one that reads."""


class Workers:
    """A context manager."""

    def __init__(self) -> None:
        threads = min(_cores(), MOST_THREADS) if native.certify is not None else 1  # Python's take turns, which costs
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="certify")
        self.at_once = threads + 1
        """Chunks that are worth having under way."""

    def start(self, setup: Setup) -> None:
        """To be called once it is known what rows must be like."""
        self._path = FastPath(setup)

    def begin(self, chunk: Chunk) -> Future[Prints]:
        """What is to be said of the chunk, in time."""
        return self._threads.submit(self._path.certify, chunk)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._threads.shutdown(cancel_futures=True)


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
