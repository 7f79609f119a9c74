from __future__ import annotations

import pytest
from typer.testing import CliRunner

from adaptml.cli import app

COMMANDS = [
    "check", "drop", "runs", "watch", "logs", "cancel", "resume", "adapters", "promote", "rollback", "compare",
    "chat", "doctor", "replay", "dead-letters", "rebuild",
]  # fmt: skip


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
