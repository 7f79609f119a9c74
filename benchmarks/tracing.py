"""What traces cost a function: at its cold start, at each call, and where the collector is dead.

The collector is a process on this machine that answers at once: the way to Google's comes on top of each call's end.
The best of many turns, as the machine is shared.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from multiprocessing import get_context

from adaptml import tracing
from benchmarks import figure
from tests.cloud import ROOT

TURNS, CALLS, SPANS = 3, 300, 20
"""A call of intake makes about twenty spans."""


def show(name: str, ours: float, peer: float) -> None:
    """Seconds, in milliseconds, beside those without traces."""
    figure.show(name, 1000 * ours, 1000 * peer, "nothing is traced", "ms")


class Collector(BaseHTTPRequestHandler):
    """Takes spans, and answers at once."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answers an empty message: all is taken."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


def _serve(server: HTTPServer) -> None:
    server.serve_forever()


@contextmanager
def collector() -> Iterator[str]:
    """The address of one that answers."""
    server = HTTPServer(("127.0.0.1", 0), Collector)
    process = get_context("fork").Process(target=_serve, args=(server,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/traces"
    finally:
        process.kill()


def main() -> int:
    """Returns the exit status."""
    with collector() as address:
        off, on = _cold(""), _cold(address)
        show("cold start, CPU: importing the functions, ready to trace", on[0], off[0])
        show("first call, CPU: loads the exporter and sends", on[1], off[1])
        untraced = _calls("")
        traced = _calls(address)
        show(f"a call with {SPANS} spans, sent before it ends", traced, untraced)
        show("one span, not sent", _spans(address), _spans(""))
    with socket.create_server(("127.0.0.1", 0)) as dead:
        tracing.configure("bench", {tracing.DESTINATION: f"http://127.0.0.1:{dead.getsockname()[1]}/v1/traces"})
        show("collector hangs: the call that finds out", _seconds(_call), untraced)
        later = min(_seconds(_call) for _ in range(CALLS))
        show("collector hangs: each call in the minute after", later, untraced)
    return 0


_COLD = """
import time; began = time.process_time()
import functions.main
from adaptml import tracing
ready = time.process_time()
with tracing.call():
    with tracing.span("a"): pass
print(ready - began, time.process_time() - ready)
"""


def _cold(destination: str) -> tuple[float, float]:
    """Seconds of CPU until a function's process is ready, and of its first call: on a busy machine time says little."""
    found = []
    for _ in range(TURNS):
        environment = os.environ | {tracing.DESTINATION: destination}
        done = subprocess.run(
            [sys.executable, "-c", _COLD], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
        )
        found.append(tuple(map(float, done.stdout.split())))
    ready, first = zip(*found, strict=True)
    return min(ready), min(first)


def _call() -> None:
    with tracing.call(), tracing.span("take in drop"):
        for _ in range(SPANS - 1):
            with tracing.span("step"):
                pass


def _calls(destination: str) -> float:
    tracing.configure("bench", {tracing.DESTINATION: destination})
    _call()
    return min(_seconds(_call) for _ in range(CALLS))


def _spans(destination: str) -> float:
    tracing.configure("bench", {tracing.DESTINATION: destination})

    def hundred() -> None:
        for _ in range(100):
            with tracing.span("step"):
                pass

    return min(_seconds(hundred) for _ in range(CALLS)) / 100


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
