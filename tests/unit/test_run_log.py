"""What was logged of a run, of files and of Cloud Logging, whose place a server on this machine takes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import google.auth
import pytest
from google.auth.credentials import AnonymousCredentials

from adaptml import run_log
from adaptml.run_log import Line, Unread, of_entry, of_run, read, whole
from schemas.run_states import RunState
from tests.unit.test_protocol import run

OF = run(RunState.TRAINING).model_copy(update={"execution": "trainer-x"})


class CloudLogging:
    """Answers what `answers` holds, one request after the other, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any]] = []
        self.asked: list[dict[str, Any]] = []
        served = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                served.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                status, answer = served.answers[len(served.asked) - 1]
                self.send_response(status)
                self.end_headers()
                self.wfile.write(answer.encode() if isinstance(answer, str) else json.dumps(answer).encode())

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture
def cloud_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudLogging]:
    made = CloudLogging()
    threading.Thread(target=made.server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.delenv(run_log.LOCAL_LOGS, raising=False)
    monkeypatch.delenv(run_log.LOG_VIEW, raising=False)
    monkeypatch.setattr(run_log, "CLOUD_LOGGING", f"http://127.0.0.1:{made.server.server_port}/v2/entries:list")
    monkeypatch.setattr(google.auth, "default", lambda scopes: (AnonymousCredentials(), None))
    yield made
    made.server.shutdown()
    made.server.server_close()


def logged(second: int, message: str = "a line") -> dict[str, Any]:
    return {
        "timestamp": f"2026-11-25T12:00:{second:02d}Z",
        "severity": "INFO",
        "jsonPayload": {"message": message},
        "resource": {"labels": {"service_name": "intake"}},
    }


def entry(message: str, time: str = "2026-11-25T12:00:00Z", **more: str) -> str:
    return json.dumps({"time": time, "severity": "INFO", "message": message, **more}) + "\n"


def test_of_a_functions_log_only_lines_of_the_run_are_shown() -> None:
    lines = [entry("run r-1 is QUEUED"), entry("run r-2 is QUEUED"), "no JSON, r-1\n", entry("else", run_id="r-1")]
    assert [line.message for line in of_run(lines, "intake", "r-1")] == ["run r-1 is QUEUED", "else"]


def test_of_an_executions_log_all_is_shown_in_its_order() -> None:
    lines = [entry("owning r", "2026-11-25T12:00:01Z"), "Traceback\n", entry("ended", exception="ValueError")]
    shown = list(whole(lines, "trainer"))
    assert [line.message for line in shown] == ["owning r", "Traceback", "ended\nValueError"]
    assert shown[1].time == "2026-11-25T12:00:01Z"


def test_the_newest_entries_are_asked_for_page_by_page_and_come_oldest_first(cloud_logging: CloudLogging) -> None:
    cloud_logging.answers = [
        (200, {"entries": [logged(9), logged(8)], "nextPageToken": "more"}),
        (200, {"nextPageToken": "more still"}),  # a page may be empty, and another come after it
        (200, {"entries": [logged(7), logged(6)], "nextPageToken": "and more"}),
    ]
    lines = read("p", OF, at_most=3)
    assert [line.time[17:19] for line in lines] == ["07", "08", "09"]
    assert [(page["pageSize"], page["pageToken"]) for page in cloud_logging.asked] == [
        (3, ""), (1, "more"), (1, "more still"),
    ]  # fmt: skip
    (first, *_) = cloud_logging.asked
    assert (first["resourceNames"], first["orderBy"]) == (["projects/p"], "timestamp desc")
    assert OF.run_id in first["filter"]
    assert first["filter"].endswith('OR labels."run.googleapis.com/execution_name"="trainer-x")')


def test_who_may_read_a_view_alone_asks_for_that(cloud_logging: CloudLogging, monkeypatch: pytest.MonkeyPatch) -> None:
    view = "projects/p/locations/global/buckets/_Default/views/adaptml"
    monkeypatch.setenv(run_log.LOG_VIEW, view)
    cloud_logging.answers = [(200, {})]
    assert read("p", OF, at_most=3) == []
    assert cloud_logging.asked[0]["resourceNames"] == [view]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (
            (403, {"error": {"message": "Permission denied\nfor all views"}}),
            "denied�for all views; it takes roles/logging.viewer",
        ),
        ((502, "<html>"), "did not answer as it should"),
        ((200, "cut off"), "did not answer as it should"),
    ],
)
def test_a_log_that_cannot_be_read_is_told(cloud_logging: CloudLogging, answer: tuple[int, Any], why: str) -> None:
    cloud_logging.answers = [answer]
    with pytest.raises(Unread, match=why):
        read("p", OF, at_most=3)


def test_an_entry_of_cloud_logging_is_shown_like_a_line() -> None:
    of = {
        "timestamp": "2026-11-25T12:00:00Z",
        "severity": "ERROR",
        "jsonPayload": {"message": "dead letter", "exception": "KeyError"},
        "resource": {"labels": {"service_name": "intake"}},
    }
    assert of_entry(of) == Line("2026-11-25T12:00:00Z", "ERROR", "intake", "dead letter\nKeyError")
    assert of_entry({"textPayload": "Container called exit(1)."}).message == "Container called exit(1)."
