"""Certifying chunks on several cores. Python computes on one core a process, so others get processes of their own."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import msgspec
import numpy as np

from adaptml.dataset.chunk import Chunk, Offsets
from adaptml.dataset.fast import FastPath, Setup
from adaptml.dataset.fingerprints import PRINT, Prints
from adaptml.dataset.worker import read_message, write_message

WORTH_IT = 64 * 1024 * 1024
"""Bytes of data from which on the start of processes is won back."""
PROCESSES = 2
"""At most: each takes some 60 MB."""
TURN_S = 0.0005
"""How long a thread may compute while others wait for their turn: with Python's 5 ms, longer than a chunk takes, a
process would wait for its next one."""
PIPE_BYTES = 1024 * 1024
"""As much as Linux allows without privileges: the fewer times two processes wait for each other, the better."""


@dataclass(frozen=True, slots=True)
class Certified:
    """What a FastPath says of a chunk."""

    ends: Offsets
    prints: Prints

    def prints_of(self, chunk: Chunk) -> Prints:
        """Of each line its fingerprint; the chunk is told where its lines end, so that it need not look again."""
        chunk.ends = self.ends
        return self.prints


class _Process:
    """A worker process, seen from here. Raises EOFError or OSError where it died."""

    AT_ONCE = 2
    """Chunks that it has: while it certifies one, the next is on its way."""

    def __init__(self) -> None:
        self._writing = threading.Lock()
        self._written = 0
        self._read_next = 0
        self._reading = threading.Condition()
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-S", "-m", "adaptml.dataset.worker"]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pipesize=PIPE_BYTES
        )

    def await_ready(self, setup: Setup) -> None:
        self._write(msgspec.json.encode(setup))
        self._read()

    def certify(self, chunk: Chunk) -> Certified:
        with self._writing:
            turn = self._written
            self._written += 1
            broken = self._is_broken(chunk.data)
        with self._reading:
            self._reading.wait_for(lambda: self._read_next == turn)
            try:
                if broken:
                    raise EOFError
                ends = np.frombuffer(self._read(), np.int64)
                return Certified(ends, np.frombuffer(self._read(), PRINT).copy())
            finally:  # whoever waits for its turn gets it, whatever became of this one
                self._read_next += 1
                self._reading.notify_all()

    def _is_broken(self, message: bytes) -> bool:
        try:
            self._write(message)
        except OSError:
            return True
        return False

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _write(self, message: bytes) -> None:
        if self._process.stdin is None:
            raise EOFError
        write_message(self._process.stdin, message)

    def _read(self) -> bytes:
        if self._process.stdout is None:
            raise EOFError
        return read_message(self._process.stdout)


class _Here:
    """Certifies in this process."""

    def __init__(self, setup: Setup) -> None:
        self._path = FastPath(setup)

    def certify(self, chunk: Chunk) -> Certified:
        return Certified(chunk.ends, self._path.certify(chunk))


class Workers:
    """A context manager. Chunks are certified here and by the processes that have started."""

    def __init__(self, processes: int) -> None:
        self._count = processes
        engines = _Process.AT_ONCE * processes + 1
        self._threads = ThreadPoolExecutor(engines, thread_name_prefix="certify")
        self._idle: queue.SimpleQueue[_Here | _Process] = queue.SimpleQueue()
        self._processes: list[_Process] = []
        self.at_once = engines + 1
        """Chunks that are worth having under way."""

    @classmethod
    def for_bytes(cls, size: int) -> Workers:
        """As many as help with so many bytes of JSON Lines: of other files they never see a row."""
        spare_cores = len(os.sched_getaffinity(0)) - 1
        return cls(min(spare_cores, PROCESSES) if size >= WORTH_IT else 0)

    def start(self, setup: Setup) -> None:
        """To be called once it is known what rows must be like."""
        self._here = _Here(setup)
        self._idle.put(self._here)
        for process in self._processes:
            threading.Thread(target=self._take_in, args=(process, setup), daemon=True).start()

    def begin(self, chunk: Chunk) -> Future[Certified]:
        """What is to be said of the chunk, in time."""
        return self._threads.submit(self._certify, chunk)

    def _take_in(self, process: _Process, setup: Setup) -> None:
        try:
            process.await_ready(setup)
        except (EOFError, OSError):
            return
        for _ in range(_Process.AT_ONCE):
            self._idle.put(process)

    def _certify(self, chunk: Chunk) -> Certified:
        engine = self._idle.get()
        try:
            certified = engine.certify(chunk)
        except (EOFError, OSError):  # it died, for want of memory perhaps
            return self._here.certify(chunk)
        except BaseException:
            self._idle.put(engine)  # others wait for it, and would for ever
            raise
        self._idle.put(engine)
        return certified

    def __enter__(self) -> Workers:
        self._processes = [_Process() for _ in range(self._count)]
        if self._processes:
            sys.setswitchinterval(TURN_S)  # for good: another check may be under way when this one ends
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for process in self._processes:
            process.end()
        self._threads.shutdown(cancel_futures=True)
