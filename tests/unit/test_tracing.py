"""What goes on with which span, and that nothing of a drop and no fault of an exporter gets through."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest
from cloudevents.http import CloudEvent
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode
from rich.console import Console

from adaptml import bus, trace_export, tracing
from adaptml.logs import CloudFormatter
from adaptml.trace_export import Guarded, Sender, exporter_of
from adaptml.tracing import Cause
from functions.events import cause_of, traced
from local import trace
from schemas.errors import Refused, problem
from schemas.messages import RunReady
from schemas.run import Run, Source
from schemas.run_states import RunState
from tests.cloud import ROOT

GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE_ID = 0x0AF7651916CD43DD8448EB211C80319C


class Kept(SpanExporter):
    """Keeps what it is to send."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans += spans
        return SpanExportResult.SUCCESS

    def named(self, name: str) -> Any:
        (found,) = [span for span in self.spans if span.name == name]
        return found


@contextmanager
def sending_by(exporter: SpanExporter) -> Iterator[None]:
    before, tracing._sender = tracing._sender, Sender(exporter, {"service.name": "adaptml-test"})
    try:
        yield
    finally:
        tracing._sender = before


@pytest.fixture
def kept() -> Iterator[Kept]:
    exporter = Kept()
    with sending_by(exporter):
        yield exporter


def run(**fields: Any) -> Run:
    now = datetime.now(UTC)
    return Run(
        run_id="acme-bot-1", state=RunState.QUEUED, state_reason="secret of the tenant", tenant="acme", name="bot",
        source=Source(bucket="b", inline_manifest="secret of the tenant"), created_at=now, updated_at=now,
        state_since=now, **fields,
    )  # fmt: skip


def pubsub_event(attributes: object = None, **extensions: str) -> CloudEvent:
    message: dict[str, Any] = {"messageId": "17", "data": "e30=", "attributes": attributes}
    source = "//pubsub.googleapis.com/projects/p/topics/run-requests"
    kind = "google.cloud.pubsub.topic.v1.messagePublished"
    return CloudEvent({"type": kind, "source": source, **extensions}, {"message": message, "deliveryAttempt": 2})


def test_where_nothing_is_traced_nothing_is_kept_and_nothing_is_said() -> None:
    tracing.configure("intake", {})
    with tracing.call(Cause(GIVEN)), tracing.span("a"), tracing.of_run(run(), "b"), tracing.sending("t") as carried:
        assert (carried, tracing.present(), tracing.log_fields()) == ({}, "", {})
        assert tracing.begun(run()).traceparent == ""
    assert subprocess.run(
        [sys.executable, "-c", "import sys, functions.main; sys.exit('opentelemetry.sdk.trace' in sys.modules)"],
        cwd=ROOT, check=False, timeout=60,
    ).returncode == 0  # fmt: skip


@pytest.mark.parametrize("destination", ["gogle", "file:/no/such/folder/x", "ftp://x"])
def test_a_destination_that_is_none_is_told_and_harms_nothing(
    destination: str, caplog: pytest.LogCaptureFixture
) -> None:
    tracing.configure("intake", {tracing.DESTINATION: destination})
    try:
        with tracing.call(), tracing.span("a"):
            pass
        assert any("traced" in record.message or "traces" in record.message for record in caplog.records)
    finally:
        tracing.configure("intake", {})


def test_the_first_span_of_a_call_goes_on_from_what_caused_it_and_says_what_that_was(kept: Kept) -> None:
    with (
        tracing.call(cause_of(pubsub_event({"traceparent": GIVEN}))),
        tracing.span("take in request"),
        tracing.span("x"),
    ):
        pass
    first = kept.named("take in request")
    assert (first.context.trace_id, first.parent.span_id, first.parent.is_remote) == (
        TRACE_ID,
        0xB7AD6B7169203331,
        True,
    )
    assert first.kind is SpanKind.CONSUMER
    assert first.attributes == {
        "faas.invocation_id": first.attributes["faas.invocation_id"],
        "faas.trigger": "pubsub",
        "cloudevents.event_type": "google.cloud.pubsub.topic.v1.messagePublished",
        "messaging.system": "gcp_pubsub",
        "messaging.destination.name": "run-requests",
        "messaging.message.id": "17",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.gcp_pubsub.message.delivery_attempt": 2,
    }
    assert kept.named("x").attributes == {}
    assert kept.named("x").parent.span_id == first.context.span_id


def test_a_messages_own_attribute_counts_before_the_events() -> None:
    other = GIVEN.replace("0af", "1af")
    assert cause_of(pubsub_event({"traceparent": GIVEN}, traceparent=other)).traceparent == GIVEN
    assert cause_of(pubsub_event(None, traceparent=other)).traceparent == other
    stored = CloudEvent(
        {"type": "t", "source": "s", "traceparent": other}, {"bucket": "b", "name": "acme/x/manifest.yaml"}
    )
    assert cause_of(stored).traceparent == other
    assert "manifest" not in str(cause_of(stored).attributes)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(st.one_of(st.none(), st.text(), st.integers(), st.lists(st.text()), st.dictionaries(st.text(), st.text())))
def test_whatever_stands_in_its_place_a_call_is_made(kept: Kept, value: Any) -> None:
    called: list[Any] = []
    traced(called.append)(pubsub_event({"traceparent": value}))
    assert len(called) == 1
    traced(called.append)(pubsub_event(value if not isinstance(value, dict) else value | {"x": "y"}))
    assert len(called) == 2


def test_a_call_leaves_nothing_to_the_next(kept: Kept) -> None:
    with tracing.call(Cause(GIVEN)), tracing.span("one"):
        pass
    with tracing.call(), tracing.span("two"):
        pass
    assert kept.named("two").parent is None


def test_a_step_of_a_run_is_in_the_runs_trace_wherever_it_is_taken(kept: Kept) -> None:
    with tracing.call(), tracing.span("take in drop"):
        taken_in = tracing.begun(run())
    with tracing.call(), tracing.span("tick"), tracing.of_run(taken_in, "late"), tracing.of_run(taken_in, "within"):
        pass
    first, tick, late, within = (kept.named(name) for name in ("take in drop", "tick", "late", "within"))
    assert (late.context.trace_id, late.parent.span_id) == (first.context.trace_id, first.context.span_id)
    assert [link.context.span_id for link in late.links] == [tick.context.span_id]
    assert (within.parent.span_id, len(within.links)) == (late.context.span_id, 0)
    assert late.attributes == {
        "adaptml.run_id": "acme-bot-1", "adaptml.tenant": "acme", "adaptml.state": "QUEUED", "adaptml.attempt": 1,
        "adaptml.epoch": 0,
    }  # fmt: skip


def test_a_step_of_a_run_that_was_taken_in_untraced_or_broken_by_hand_is_where_it_is(kept: Kept) -> None:
    for number, field in enumerate(("", "hand-made", GIVEN + "\n")):
        with tracing.span(f"here{number}"), tracing.of_run(run(traceparent=field), f"step{number}"):
            pass
        assert kept_after(kept, f"step{number}").parent.span_id == kept_after(kept, f"here{number}").context.span_id


def kept_after(kept: Kept, name: str) -> Any:
    assert tracing._sender is not None
    tracing._sender.flush()
    return kept.named(name)


def test_a_run_that_goes_on_from_another_is_linked_to_it(kept: Kept) -> None:
    with tracing.call(), tracing.span("take in RESUME"):
        tracing.link(run(traceparent=GIVEN))
        tracing.link(run(traceparent="nothing"))
    assert [link.context.trace_id for link in kept.named("take in RESUME").links] == [TRACE_ID]


def test_of_an_error_only_its_code_is_told(kept: Kept) -> None:
    with tracing.call():
        for error in (ValueError("secret"), Refused([problem("nothing_to_train_on")])):
            with pytest.raises(type(error)), tracing.span(type(error).__name__):
                raise error
    for name, code in (("ValueError", "ValueError"), ("Refused", "nothing_to_train_on")):
        span = kept.named(name)
        assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, code)
        assert (span.attributes, span.events) == ({"error.type": code}, ())


def test_phases_follow_each_other_and_what_is_done_beside_them_has_its_own_thread(kept: Kept) -> None:
    with tracing.call(), tracing.span("attempt"), tracing.phases() as phase:
        phase("load")
        with ThreadPoolExecutor(1) as pool:
            pool.submit(tracing.beside("model", time.sleep), 0).result()
        phase("train")
    attempt, load = kept.named("attempt").context.span_id, kept.named("load")
    assert (load.parent.span_id, kept.named("train").parent.span_id) == (attempt, attempt)
    assert load.end_time <= kept.named("train").start_time
    assert kept.named("model").parent.span_id == load.context.span_id


def test_an_attempt_that_is_cut_off_ends_its_phase(kept: Kept) -> None:
    def cut_off() -> None:
        with tracing.phases() as phase:
            phase("train")
            raise KeyError("secret")

    with tracing.call(), pytest.raises(KeyError):
        cut_off()
    assert kept.named("train").status.description == "KeyError"


def test_a_message_carries_the_span_that_sends_it(kept: Kept) -> None:
    class Publisher:
        sent: dict[str, str]

        def topic_path(self, project: str, topic: str) -> str:
            return f"{project}/{topic}"

        def publish(self, _path: str, _body: bytes, **attributes: str) -> Any:
            self.sent = attributes
            return self

        def result(self, timeout: float) -> None:
            """As a future."""

    publisher: Any = Publisher()
    with tracing.call(Cause(GIVEN)):
        bus.Bus(publisher, "p").publish("run-events", RunReady(run_id="r", attempt=1), run_id="r")
    span = kept.named("send run-events")
    assert publisher.sent == {"run_id": "r", "traceparent": f"00-{TRACE_ID:032x}-{span.context.span_id:016x}-01"}


def test_what_is_not_sampled_is_not_kept_but_goes_on_so(kept: Kept) -> None:
    with tracing.call(Cause(GIVEN[:-1] + "0")), tracing.span("a"), tracing.sending("t") as carried:
        assert carried["traceparent"].endswith("-00")
        assert tracing.log_fields()["logging.googleapis.com/trace_sampled"] is False
    assert kept.spans == []


def test_a_ratio_of_traces_is_kept_as_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.0")
    exporter = Kept()
    with sending_by(exporter):
        with tracing.call(), tracing.span("ours"):
            pass
        with tracing.call(Cause(GIVEN)), tracing.span("theirs"):
            pass
    assert [span.name for span in exporter.spans] == ["theirs"]


def test_a_line_of_the_log_names_its_span(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "my-project")
    record = logging.LogRecord("adaptml.x", logging.INFO, "x.py", 1, "waits", (), None)
    assert "logging.googleapis.com/trace" not in CloudFormatter({}).format(record)
    with tracing.call(Cause(GIVEN)), tracing.span("a"):
        line = json.loads(CloudFormatter({}).format(record))
    assert line["logging.googleapis.com/trace"] == f"projects/my-project/traces/{TRACE_ID:032x}"
    assert line["logging.googleapis.com/spanId"] == f"{kept.named('a').context.span_id:016x}"


# Exporters that are dead


@contextmanager
def hanging() -> Iterator[str]:
    """A collector that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1/traces"


@contextmanager
def refusing() -> Iterator[str]:
    """An address that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    yield f"http://127.0.0.1:{port}/v1/traces"


def seconds_of_a_call() -> float:
    began = time.monotonic()
    with tracing.call(), tracing.span("work"):
        pass
    return time.monotonic() - began


@pytest.mark.parametrize("collector", [hanging, refusing])
def test_a_dead_exporter_delays_one_call_by_a_moment_and_the_next_not_at_all(
    collector: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    patience_s = 2.0
    monkeypatch.setattr(Sender.flush, "__defaults__", (patience_s,))
    with collector() as address, sending_by(exporter_of(address)):
        seconds_of_a_call()  # it comes back, though nobody ever answers
        assert max(seconds_of_a_call() for _ in range(20)) < patience_s
    assert [record.message for record in caplog.records if "traces are not sent" in record.message]


def test_an_exporter_that_raises_fails_no_call() -> None:
    class Broken(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            raise RuntimeError("secret")

    with sending_by(Broken()):
        seconds_of_a_call()


def test_a_process_ends_though_its_exporter_hangs() -> None:
    with hanging() as address:
        code = (
            "from adaptml import tracing\n"
            f"tracing.configure('trainer', {{'ADAPTML_TRACES': {address!r}}})\n"
            "with tracing.call(), tracing.span('attempt'): pass\n"
        )
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)  # else it never ends


def test_after_a_while_it_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_export, "REST_S", 0.05)
    exporter = Kept()
    guarded = Guarded(exporter)
    guarded.rest("a test")
    assert guarded.export([]) is SpanExportResult.FAILURE
    time.sleep(0.06)
    assert guarded.export([]) is SpanExportResult.SUCCESS


def test_calls_beside_each_other_are_all_sent(kept: Kept) -> None:
    def called(number: int) -> None:
        with tracing.call(), tracing.span(f"call {number}"):
            time.sleep(0.001)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(called, range(200)))
    assert tracing._sender is not None
    tracing._sender.flush()
    assert {span.name for span in kept.spans} == {f"call {number}" for number in range(200)}
    assert threading.active_count() < 50


# The tree in a terminal


def test_processes_write_whole_lines_and_the_tree_shows_what_is_left_of_a_killed_one(tmp_path: Any) -> None:
    path = tmp_path / "traces.jsonl"
    with sending_by(exporter_of(f"file:{path}")):
        with tracing.call(), tracing.span("take in drop"):
            taken_in = tracing.begun(run())
            with tracing.span("validate"):
                pass
        with tracing.call(), tracing.of_run(taken_in, "attempt"), tracing.span("train"):
            pass
    with path.open("a") as file:
        file.write('{"cut off')
    steps = trace.of_run(trace.read(path), "acme-bot-1")
    killed = [step for step in steps if step.name != "attempt"]
    assert [step.name for step in trace.tops(steps)] == ["take in drop"]
    assert [step.name for step in trace.tops(killed)] == ["take in drop", "train"]
    trace.show(steps, Console(file=(out := StringIO()), width=100))
    assert [line.split()[1] for line in out.getvalue().splitlines()[1:]] == ["validate", "attempt", "train"]
    assert trace.of_run(steps, "another") == []
    assert trace.read(tmp_path / "none") == []
