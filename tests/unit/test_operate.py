"""The commands for operators, as far as they go without a cloud."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from adaptml.cli import app
from adaptml.commands.deployment import USAGE

UNSET: dict[str, str | None] = dict.fromkeys(
    ("GOOGLE_CLOUD_PROJECT", "ADAPTML_DROPS_BUCKET", "ADAPTML_ARTIFACTS_BUCKET")
)


@pytest.mark.parametrize("words", [["dead-letters"], ["dead-letters", "replay", "--all"], ["rebuild"]])
def test_missing_settings_are_named_in_one_line(words: list[str]) -> None:
    done = CliRunner().invoke(app, words, env=UNSET | {"ADAPTML_DROPS_BUCKET": "drops"})
    assert done.exit_code == USAGE
    assert done.output == (
        "not set: GOOGLE_CLOUD_PROJECT, ADAPTML_ARTIFACTS_BUCKET; which deployment? "
        "The local cloud's settings: . .local/env\n"
    )


@pytest.mark.parametrize("words", [[], ["17", "--all"]])
def test_replay_wants_messages_or_all_of_them(words: list[str]) -> None:
    done = CliRunner().invoke(app, ["dead-letters", "replay", *words], env=UNSET)
    assert done.exit_code == USAGE
    assert "name messages, or give --all" in done.output


@pytest.mark.parametrize("words", [["dead-letters"], ["dead-letters", "replay"], ["rebuild"]])
def test_help_names_the_exit_statuses(words: list[str]) -> None:
    done = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    assert "Exit status: 0" in done.output


def test_checking_a_drop_needs_no_google_client() -> None:
    script = (
        "import sys\n"
        "for name in ('google.api_core', 'google.auth', 'google.cloud', 'grpc'): sys.modules[name] = None\n"
        "from typer.testing import CliRunner\n"
        "from adaptml.cli import app\n"
        "done = CliRunner().invoke(app, ['check', 'demo/support-bot'])\n"
        "assert done.exit_code == 0, done.output\n"
        "done = CliRunner().invoke(app, ['rebuild'])\n"
        "assert (done.exit_code, 'adaptml[cloud]' in done.output) == (2, True), done.output\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
