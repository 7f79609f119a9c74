"""One trace for a run, through all processes that have to do with it."""

from __future__ import annotations

import json
from collections import Counter

from adaptml import traceparent
from local import trace
from local.trace import Step
from schemas import layout
from schemas.messages import RunRequest
from schemas.run import Run
from schemas.run_states import RunState
from tests.cloud import PROJECT, TestCloud, chat_rows, eventually, manifest

S = RunState
GIVEN = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"


def spans(cloud: TestCloud, run: Run, last: str = "attempt", count: int = 1) -> list[Step]:
    """Those of the run's trace, once `count` of this name are there."""

    def reached() -> list[Step] | None:
        found = trace.of_run(trace.read(cloud.home / "traces.jsonl"), run.run_id)
        return found if [step.name for step in found].count(last) >= count else None

    return eventually(reached, within_s=20)


def drop(cloud: TestCloud, name: str, **labels: str) -> str:
    cloud.put(f"acme/{name}/train.jsonl", chat_rows(12))
    return cloud.run_id("acme", name, cloud.put(f"acme/{name}/manifest.yaml", manifest(labels=labels)))


def above(steps: list[Step], step: Step) -> list[str]:
    """Names of the spans that a span is below of, from the nearest."""
    known = {one.span_id: one for one in steps}
    names = []
    while (parent := known.get(step.parent_id or "")) is not None:
        names.append(parent.name)
        step = parent
    return names


def test_a_drop_is_one_trace_from_its_event_to_its_version_with_a_retry_in_it(cloud: TestCloud) -> None:
    run = cloud.wait(drop(cloud, "traced", fault="raise", faults="1"), S.SUCCEEDED)
    assert (run.state, run.attempt) == (S.SUCCEEDED, 2)
    steps = spans(cloud, run, count=2)

    stored = traceparent.parse(run.traceparent)
    assert stored is not None
    assert {step.trace_id for step in steps} == {f"0x{stored.trace_id:032x}"}
    (top,) = trace.tops(steps)
    assert (top.name, top.service, int(top.span_id, 16)) == ("take in drop", "intake", stored.span_id)
    assert top.attributes["faas.trigger"] == "datasource"

    names = Counter(step.name for step in steps)
    assert names["attempt"] == names["claim"] == names["start job"] == 2
    once = {"validate", "check rows", "count tokens", "plan", "upload", "commit", "publish version"}
    assert {name: names[name] for name in once} == dict.fromkeys(once, 1)
    assert names["send run-events"] >= run.revision  # the reconciler may come between and announce a change again
    assert {"read manifest", "pin data", "announce", "send run-ready"} <= names.keys()
    assert {step.service for step in steps} >= {"intake", "dispatch", "trainer"}

    attempts = [step for step in steps if step.name == "attempt"]
    assert [step.error for step in attempts] == ["ValueError", ""]
    assert [step.attributes["adaptml.attempt"] for step in attempts] == [1, 2]
    assert "attempt" in above(steps, next(step for step in steps if step.name == "publish version"))


def test_a_killed_attempt_leaves_a_trace_that_the_reconciler_and_the_next_go_on_with(cloud: TestCloud) -> None:
    run = cloud.wait(drop(cloud, "killed", fault="die-training", faults="1"), S.SUCCEEDED)
    assert (run.state, run.attempt) == (S.SUCCEEDED, 2)
    steps = spans(cloud, run)
    assert len({step.trace_id for step in steps}) == 1
    assert [step.attributes["adaptml.attempt"] for step in steps if step.name == "attempt"] == [2]
    assert [step.service for step in steps if step.name == "reconcile Apply"] == ["reconcile"]


def test_a_run_that_is_taken_up_again_is_linked_to_its_trace(cloud: TestCloud) -> None:
    first = cloud.wait(drop(cloud, "taken-up", fault="refuse"), S.FAILED)
    at = cloud.put("acme/taken-up/RESUME", "")
    again = cloud.wait(cloud.run_id("acme", "taken-up", at, "RESUME"), S.FAILED)
    before, after = traceparent.parse(first.traceparent), traceparent.parse(again.traceparent)
    assert before is not None
    assert after is not None
    # The sweep may have found the file as well; what came second is in a trace of its own.
    (took,) = [step for step in spans(cloud, again) if int(step.span_id, 16) == after.span_id]
    assert took.name == "take in RESUME"
    assert f"0x{before.trace_id:032x}" in took.links


def test_the_message_carries_the_trace_to_the_dispatcher_and_to_listeners(cloud: TestCloud) -> None:
    run = cloud.wait(drop(cloud, "carried"), S.SUCCEEDED)
    steps = spans(cloud, run)
    claim = next(step for step in steps if step.name == "claim")
    if claim.service == "dispatch":  # the reconciler's tick may have been quicker
        assert above(steps, claim)[0] == "send run-ready"
        assert claim.attributes["messaging.destination.name"] == "run-ready"
        assert claim.attributes["messaging.system"] == "gcp_pubsub"


def test_a_request_goes_on_with_the_trace_of_who_published_it(cloud: TestCloud) -> None:
    request = RunRequest(request_id="r-traced", tenant="acme", manifest_uri="", manifest="{", dataset_uris=[])
    cloud.services.bus.publish("run-requests", request, traceparent=GIVEN)
    run = cloud.wait(_id_of(request), S.REJECTED)
    stored = traceparent.parse(run.traceparent)
    assert stored is not None
    assert f"{stored.trace_id:032x}" == "0123456789abcdef0123456789abcdef"
    steps = spans(cloud, run, "take in request")
    (top,) = trace.tops(steps)
    assert (top.name, top.parent_id) == ("take in request", "0x0123456789abcdef")


def _id_of(request: RunRequest) -> str:
    return layout.run_id_of_request(request.tenant, request.request_id)


def test_a_request_with_a_hostile_traceparent_is_taken_in_all_the_same(cloud: TestCloud) -> None:
    for number, value in enumerate(("x" * 900, "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "\u0660\n\u2028{}")):
        request = RunRequest(
            request_id=f"hostile-{number}", tenant="acme", manifest_uri="", manifest="{", dataset_uris=[]
        )
        cloud.services.bus.publish("run-requests", request, traceparent=value)
        run = cloud.wait(_id_of(request), S.REJECTED)
        stored = traceparent.parse(run.traceparent)
        assert stored is not None
        assert value not in (cloud.home / "traces.jsonl").read_text("utf-8")


def test_logs_name_the_span(cloud: TestCloud) -> None:
    run = cloud.wait(drop(cloud, "logged"), S.SUCCEEDED)
    stored = traceparent.parse(run.traceparent)
    assert stored is not None
    lines = [
        json.loads(line)
        for line in (cloud.home / "logs" / "intake.log").read_text("utf-8").splitlines()
        if line.startswith("{")
    ]
    (queued,) = [line for line in lines if line["message"] == f"run {run.run_id} is QUEUED"]
    assert queued["logging.googleapis.com/trace"] == f"projects/{PROJECT}/traces/{stored.trace_id:032x}"
    assert queued["logging.googleapis.com/trace_sampled"] is True
    (announce,) = [
        s for s in spans(cloud, run) if int(s.span_id, 16) == int(queued["logging.googleapis.com/spanId"], 16)
    ]
    assert announce.name == "announce"


def test_no_span_holds_anything_of_the_drop(cloud: TestCloud) -> None:
    run = cloud.wait(drop(cloud, "private", fault="raise", faults="1", secret="hunter3"), S.SUCCEEDED)
    spans(cloud, run, count=2)
    written = (cloud.home / "traces.jsonl").read_text("utf-8")
    assert "hunter" not in written
    assert "Question" not in written
