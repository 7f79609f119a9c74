"""Sends spans, and sees to it that nobody waits long for that.

OpenTelemetry's own flush waits as long as the exporter does. Here it is waited for in another thread, and only for a
moment; an exporter that fails or hangs is left alone for a while, and what it was to send is lost.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Tracer

log = logging.getLogger(__name__)

FLUSH_S = 2.0
"""How long the end of a call waits for its spans to be sent, at most. The first of a process asks for a token, too."""
REQUEST_S = 2.0
"""After this long the exporter gives a request up."""
REST_S = 60.0
"""For this long nothing is sent, nor waited for, after it could not be."""
ENDPOINT = "https://telemetry.googleapis.com/v1/traces"
SCOPE = "https://www.googleapis.com/auth/trace.append"


class Sender:
    """Makes spans, and sends them."""

    def __init__(self, exporter: SpanExporter, resource: Mapping[str, str]) -> None:
        self._guarded = Guarded(exporter)
        self._provider = TracerProvider(
            resource=Resource.create(dict(resource)),
            shutdown_on_exit=False,  # would wait for an exporter that hangs
            span_limits=SpanLimits(max_span_attribute_length=256),
        )
        self._provider.add_span_processor(BatchSpanProcessor(self._guarded))
        self._flushing = threading.Thread()

    @property
    def tracer(self) -> Tracer:
        """Not the global one: libraries that could trace as well are not to."""
        return self._provider.get_tracer("adaptml")

    def flush(self, within_s: float = FLUSH_S) -> None:
        """Sends what there is. Returns when that is done, and after `within_s` at the latest."""
        deadline = time.monotonic() + within_s
        if self._guarded.is_resting or not self._joined(self._flushing, deadline):
            return
        self._flushing = threading.Thread(target=self._provider.force_flush, name="flush-traces", daemon=True)
        self._flushing.start()
        if not self._joined(self._flushing, deadline):
            self._guarded.rest("it takes too long")

    @staticmethod
    def _joined(thread: threading.Thread, deadline: float) -> bool:
        if thread.ident is not None:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not thread.is_alive()


class Guarded(SpanExporter):
    """An exporter that is left alone for a while after it has failed, so that it costs each call nothing."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._resting_until = 0.0

    @property
    def is_resting(self) -> bool:
        """True while nothing is sent."""
        return time.monotonic() < self._resting_until

    def rest(self, why: str) -> None:
        """Sends nothing for a while."""
        if not self.is_resting:
            log.warning("traces are not sent for %.0f s: %s", REST_S, why)
        self._resting_until = time.monotonic() + REST_S

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Sends spans, or loses them."""
        if self.is_resting:
            return SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # an exporter is somebody else's code, and its work is not worth a run
            self.rest(type(error).__name__)
            return SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            self.rest("the exporter failed")
        return result


class Later(SpanExporter):
    """An exporter that is made when it is first used: what it imports and asks for is no part of a cold start."""

    def __init__(self, make: Callable[[], SpanExporter]) -> None:
        self._make = make
        self._made: SpanExporter | None = None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Sends spans."""
        if self._made is None:
            self._made = self._make()
        return self._made.export(spans)


class LinesOfJson(SpanExporter):
    """A line for each span, in OpenTelemetry's own form. Processes append to one file, each batch in one write."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Writes spans."""
        lines = "".join(f"{span.to_json(indent=None)}\n" for span in spans)
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, lines.encode())
        finally:
            os.close(file)
        return SpanExportResult.SUCCESS


def start(part: str, destination: str, env: Mapping[str, str]) -> Sender:
    """What traces this process. Raises ValueError for a destination that is none."""
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # its errors hold answers; `Guarded` tells of them
    resource = {
        "service.name": f"adaptml-{part}",
        "service.version": env.get("ADAPTML_REVISION", "unknown"),
        "gcp.project_id": env.get("GOOGLE_CLOUD_PROJECT", ""),
    }
    return Sender(exporter_of(destination), resource)


def exporter_of(destination: str) -> SpanExporter:
    """Raises ValueError for a destination that is none."""
    if destination == "google":
        return Later(_google)
    if destination.startswith(("http://", "https://")):
        return Later(lambda: _otlp(destination))
    if destination.startswith("file:"):
        return LinesOfJson(Path(destination.removeprefix("file:")))
    raise ValueError("traces go to google, to an http address, or to file:PATH")


def _google() -> SpanExporter:
    """Google Cloud's own OTLP endpoint, with the account's credentials."""
    import google.auth
    from google.auth.transport.requests import AuthorizedSession
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    credentials, _ = google.auth.default(scopes=[SCOPE])
    return OTLPSpanExporter(endpoint=ENDPOINT, session=AuthorizedSession(credentials), timeout=REQUEST_S)


def _otlp(endpoint: str) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=endpoint, timeout=REQUEST_S)
