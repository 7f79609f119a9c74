"""Traces: one for each run, from the event that asked for it to its version (docs/operations.md).

The run keeps the span that took it in (`Run.traceparent`), and messages carry the span that sent them. Whoever works
for the run, in whatever process and however late, goes on from there. No name and no attribute of a span holds anything
of a drop but its tenant and its run's id; of an error only the code is told.

Nothing here may cost a run anything: where ADAPTML_TRACES is not set every function returns at once, and where traces
cannot be sent they are lost (`trace_export`).
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from opentelemetry import context as contexts
from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)

from adaptml import traceparent
from adaptml.traceparent import Traceparent
from schemas.errors import Refused

if TYPE_CHECKING:
    from adaptml.trace_export import Sender
    from schemas.run import Run

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")

log = logging.getLogger(__name__)

DESTINATION = "ADAPTML_TRACES"
"""Where traces go: `google`, the address of a collector (OTLP over HTTP), or `file:` and a path. Unset: nowhere. How
many are kept say OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG, as in all programs with OpenTelemetry."""


@dataclass(frozen=True)
class Cause:
    """What called a function: the span that sent it, if it says one, and attributes for the first span of ours."""

    traceparent: object = None
    attributes: Mapping[str, str | int] = field(default_factory=dict)


_sender: Sender | None = None
"""None where nothing is traced."""
_cause: ContextVar[Cause | None] = ContextVar("cause", default=None)
"""Of the call that is under way."""


def configure(part: str, env: Mapping[str, str] = os.environ) -> None:
    """Traces what this process does from here on, if the environment asks for it. Never raises."""
    global _sender
    _sender = None
    if not env.get(DESTINATION):
        return
    try:
        from adaptml import trace_export  # its library takes 30 ms, which nobody pays who does not trace

        _sender = trace_export.start(part, env[DESTINATION], env)
    except Exception as error:
        log.warning("nothing is traced: %s", type(error).__name__)


@contextmanager
def call(cause: Cause | None = None) -> Iterator[None]:
    """One call of a function, or the whole of a job: goes on from what caused it, and sends its spans in the end, since
    Cloud Run takes the CPU away after the answer."""
    if _sender is None:
        yield
        return
    sent_by = traceparent.parse(cause.traceparent) if cause is not None else None
    token = contexts.attach(_below(sent_by) if sent_by is not None else Context())
    caused = _cause.set(cause)
    try:
        yield
    finally:
        _cause.reset(caused)
        contexts.detach(token)
        _sender.flush()


@contextmanager
def span(
    name: str,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    context: Context | None = None,
    links: Sequence[Link] = (),
    since: int | None = None,
    attributes: Mapping[str, str | int] | None = None,
) -> Iterator[Span]:
    """A step, below the present span. The first of a call says what the call was about. `since` is when it began, as
    `time.time_ns` says it, where that was before now."""
    if _sender is None:
        yield INVALID_SPAN
        return
    said = dict(attributes or {})
    above = get_current_span(context).get_span_context()
    if (cause := _cause.get()) is not None and (above.is_remote or not above.is_valid):
        kind, said = SpanKind.CONSUMER, dict(cause.attributes) | said
    with _sender.tracer.start_as_current_span(
        name,
        context=context,
        kind=kind,
        attributes=said,
        links=links,
        start_time=since,
        record_exception=False,  # its text may hold what was in the data
        set_status_on_exception=False,
    ) as step:
        try:
            yield step
        except BaseException as error:
            failed(error)
            raise


@contextmanager
def of_run(run: Run, name: str, *, since: int | None = None) -> Iterator[Span]:
    """A step of a run. It is in the run's trace: below the present span where that is, too, else below the one that
    took the run in, with a link to the present one."""
    if _sender is None:
        yield INVALID_SPAN
        return
    taken_in, here = traceparent.parse(run.traceparent), get_current_span().get_span_context()
    context, links = None, []
    if taken_in is not None and taken_in.trace_id != here.trace_id:
        context, links = _below(taken_in), [Link(here)] if here.is_valid else []
    with span(name, context=context, links=links, since=since, attributes=_attributes(run)) as step:
        yield step


def on_run(
    name: str,
) -> Callable[[Callable[Concatenate[S, Run, P], T]], Callable[Concatenate[S, Run, P], T]]:
    """Makes each call of a function, whose second argument is a run, a step of that run."""

    def decorate(function: Callable[Concatenate[S, Run, P], T]) -> Callable[Concatenate[S, Run, P], T]:
        @functools.wraps(function)
        def traced(services: S, run: Run, /, *args: P.args, **kwargs: P.kwargs) -> T:
            with of_run(run, name):
                return function(services, run, *args, **kwargs)

        return traced

    return decorate


def step(name: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Makes each call of a function a step."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def traced(*args: P.args, **kwargs: P.kwargs) -> T:
            with span(name):
                return function(*args, **kwargs)

        return traced

    return decorate


def beside(name: str, work: Callable[P, T]) -> Callable[P, T]:
    """The work as a step below the present span, for another thread."""
    if _sender is None:
        return work
    context = contexts.get_current()

    @functools.wraps(work)
    def traced(*args: P.args, **kwargs: P.kwargs) -> T:
        with span(name, context=context):
            return work(*args, **kwargs)

    return traced


@contextmanager
def phases() -> Iterator[Callable[[str], None]]:
    """Steps one after the other: yields what ends the present one and begins the next."""
    with ExitStack() as present:

        def begin(name: str) -> None:
            present.close()
            present.enter_context(span(name))

        yield begin


@contextmanager
def sending(topic: str) -> Iterator[dict[str, str]]:
    """A message is published meanwhile; yields the attributes that it carries, so that its reader goes on from here."""
    attributes = {
        "messaging.system": "gcp_pubsub",
        "messaging.destination.name": topic,
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
    }
    with span(f"send {topic}", kind=SpanKind.PRODUCER, attributes=attributes):
        yield {traceparent.NAME: here} if (here := present()) else {}


def begun(run: Run) -> Run:
    """The run, taken in by the present span."""
    if _sender is None:
        return run
    get_current_span().set_attributes(_attributes(run))
    return run.model_copy(update={traceparent.NAME: present()})


def link(run: Run) -> None:
    """Says that the present span has to do with that run, though it may be in another trace."""
    if _sender is not None:
        here, other = get_current_span(), traceparent.parse(run.traceparent)
        if other is not None and other.trace_id != here.get_span_context().trace_id:
            here.add_link(_span_context(other))


def failed(error: BaseException) -> None:
    """Marks the present span: by the code of what a drop was refused for, or by the kind of the exception."""
    if _sender is not None:
        code = error.problems[0].code if isinstance(error, Refused) and error.problems else type(error).__name__
        here = get_current_span()
        here.set_attribute("error.type", code)
        here.set_status(StatusCode.ERROR, code)


def present() -> str:
    """The present span, as `traceparent` says it; "" where there is none."""
    here = _here()
    return str(here) if here is not None else ""


def log_fields() -> dict[str, object]:
    """What a line of the log says of the present span."""
    here = _here()
    return here.log_fields(os.environ.get("GOOGLE_CLOUD_PROJECT", "")) if here is not None else {}


def _here() -> Traceparent | None:
    if _sender is None:
        return None
    here = get_current_span().get_span_context()
    return Traceparent(here.trace_id, here.span_id, here.trace_flags.sampled) if here.is_valid else None


def _below(span: Traceparent) -> Context:
    """The context of a span of another process."""
    return set_span_in_context(NonRecordingSpan(_span_context(span)), Context())


def _span_context(span: Traceparent) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if span.is_sampled else TraceFlags.DEFAULT)
    return SpanContext(span.trace_id, span.span_id, is_remote=True, trace_flags=flags)


def _attributes(run: Run) -> dict[str, str | int]:
    return {
        "adaptml.run_id": run.run_id,
        "adaptml.tenant": run.tenant,
        "adaptml.state": run.state.value,
        "adaptml.attempt": run.attempt,
        "adaptml.epoch": run.epoch,
    }
