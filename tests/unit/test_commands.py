from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from adaptml.cli import app
from adaptml.commands.listing import Line, filter_of, of_entry, of_run, whole
from schemas.run_states import RunState
from tests.unit.test_protocol import run

COMMANDS = [
    "check", "drop", "runs", "watch", "logs", "cancel", "resume", "adapters", "promote", "rollback", "compare",
    "chat", "doctor", "replay", "dead-letters", "rebuild",
]  # fmt: skip


def entry(message: str, time: str = "2026-11-25T12:00:00Z", **more: str) -> str:
    return json.dumps({"time": time, "severity": "INFO", "message": message, **more}) + "\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command_names_its_exit_statuses(name: str) -> None:
    done = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    assert "Exit status: 0" in done.output


def test_a_tenant_is_asked_for_and_held_to_its_form() -> None:
    without = CliRunner().invoke(app, ["runs"], env={"ADAPTML_TENANT": None})
    assert without.exit_code == 2
    assert "--tenant" in without.output
    assert CliRunner().invoke(app, ["runs", "--tenant", "../other"]).exit_code == 2


def test_of_a_functions_log_only_lines_of_the_run_are_shown() -> None:
    lines = [entry("run r-1 is QUEUED"), entry("run r-2 is QUEUED"), "no JSON, r-1\n", entry("else", run_id="r-1")]
    assert [line.message for line in of_run(lines, "intake", "r-1")] == ["run r-1 is QUEUED", "else"]


def test_of_an_executions_log_all_is_shown_in_its_order() -> None:
    lines = [entry("owning r", "2026-11-25T12:00:01Z"), "Traceback\n", entry("ended", exception="ValueError")]
    shown = list(whole(lines, "trainer"))
    assert [line.message for line in shown] == ["owning r", "Traceback", "ended\nValueError"]
    assert shown[1].time == "2026-11-25T12:00:01Z"


def test_cloud_logging_is_asked_for_the_run_and_its_execution() -> None:
    of = run(RunState.TRAINING)
    assert filter_of(of.model_copy(update={"execution": "trainer-x"})).endswith(
        'OR labels."run.googleapis.com/execution_name"="trainer-x"'
    )
    assert of.run_id in filter_of(of)


def test_an_entry_of_cloud_logging_is_shown_like_a_line() -> None:
    of = {
        "timestamp": "2026-11-25T12:00:00Z",
        "severity": "ERROR",
        "jsonPayload": {"message": "dead letter", "exception": "KeyError"},
        "resource": {"labels": {"service_name": "intake"}},
    }
    assert of_entry(of) == Line("2026-11-25T12:00:00Z", "ERROR", "intake", "dead letter\nKeyError")
    assert of_entry({"textPayload": "Container called exit(1)."}).message == "Container called exit(1)."
