from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from adaptml import lifecycle
from adaptml.logs import CloudFormatter
from adaptml.runs.outbox import EVENTS_KEPT, audit_event, event_document
from schemas.run import Run, RunError, Source
from schemas.run_states import RunState


def line(message: str, *values: object, fields: dict[str, str] | None = None, **extra: Any) -> dict[str, Any]:
    record = logging.LogRecord("adaptml.x", logging.WARNING, "x.py", 1, message, values, None)
    record.__dict__.update(extra)
    written = CloudFormatter(fields or {}).format(record)
    assert "\n" not in written
    found: dict[str, Any] = json.loads(written)
    return found


def test_a_line_has_what_cloud_logging_reads() -> None:
    found = line("run %s waits", "r")
    assert (found["severity"], found["message"], found["logger"]) == ("WARNING", "run r waits", "adaptml.x")
    assert abs(datetime.fromisoformat(found["time"]) - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_line_of_a_run_can_be_searched_by_it() -> None:
    assert line("owned", fields={"run_id": "acme-bot-1"})["run_id"] == "acme-bot-1"
    assert line("ended", run_id="acme-bot-2")["run_id"] == "acme-bot-2"
    assert "run_id" not in line("nobody's")


def test_no_value_forges_a_line() -> None:
    forged = 'x"}\n{"severity": "CRITICAL", "message": "\x1b[31mhacked'
    assert line("file %s", forged)["message"] == f"file {forged}"


def run(state: RunState, error: RunError | None = None) -> Run:
    now = datetime.now(UTC)
    return Run(
        run_id="acme-bot-1", state=state, state_reason="secret of the tenant", tenant="acme", name="bot",
        source=Source(bucket="b"), error=error, revision=4, created_at=now, updated_at=now, state_since=now,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ended", "level", "text"),
    [
        (run(RunState.SUCCEEDED), logging.INFO, "run acme-bot-1 is SUCCEEDED"),
        (
            run(RunState.FAILED, RunError(code="training_diverged", message="secret of the tenant", hint="")),
            logging.WARNING,
            "run acme-bot-1 is FAILED (training_diverged)",
        ),
        (run(RunState.EXPIRED), logging.WARNING, "run acme-bot-1 is EXPIRED"),
    ],
)
def test_the_end_of_a_run_is_logged_by_its_code_alone(
    ended: Run, level: int, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    lifecycle._tell(ended, [audit_event(None, ended)])
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (level, text)
    assert vars(record)["run_id"] == "acme-bot-1"


def test_an_event_in_firestore_goes_when_its_time_is_past() -> None:
    ended = run(RunState.SUCCEEDED)
    assert event_document(audit_event(None, ended))["expire_at"] == ended.updated_at + EVENTS_KEPT
