"""`adaptml check` over real folders."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from adaptml.cli import ACCEPTED, REFUSED, USAGE, app
from schemas import layout
from tests.unit import rows, tiny
from tests.unit.drops import BAD, GEMMA, GOOD
from tests.unit.rows import jsonl

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = f"base_model: {GEMMA}\ndataset:\n  train: [train.jsonl]\n"
TOO_LONG = MANIFEST + "compute: {timeout: 60s}\ntraining: {epochs: 100}\n"
WIDE = {"COLUMNS": "250"}


def adaptml(*words: str | Path, env: Mapping[str, str | None] | None = None) -> Result:
    """The command, without what the environment of the tests says about models."""
    environment: dict[str, str | None] = {"ADAPTML_MODELS_DIR": None, **WIDE, **(env or {})}
    return CliRunner().invoke(app, [str(word) for word in words], env=environment)


def check(folder: Path, *options: str | Path, env: Mapping[str, str | None] | None = None) -> Result:
    return adaptml("check", folder, *options, env=env)


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    """A good drop in a tenant's folder."""
    return written(tmp_path / "acme" / "bot", {"manifest.yaml": MANIFEST, "train.jsonl": jsonl(GOOD)})


def written(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokenizer of a small model under the name of the manifest's."""
    return tiny.lay(tmp_path_factory.mktemp("models"), GEMMA)


def codes(report: dict[str, Any]) -> list[tuple[str, str | None, int | None]]:
    return [(found["code"], found.get("file"), found.get("line")) for found in report["problems"]]


def outcome(result: Result) -> tuple[str, dict[str, int]]:
    """The last line: (ACCEPTED or REFUSED, how many problems there are of each code)."""
    last = result.stdout.splitlines()[-1]
    return last.split(" bot: ")[0], {code: int(count) for count, code in re.findall(r"(\d+) × (\w+)", last)}


def json_of(result: Result) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(result.stdout)
    return report


# Accepted


def test_a_good_drop_is_accepted(drop: Path, models: Path) -> None:
    result = check(drop, "--models", models)
    assert result.exit_code == ACCEPTED
    assert "ACCEPTED bot: nothing to say" in result.stdout
    assert "12 examples of 12 rows, prompt_completion" in result.stdout
    assert "(tokens counted)" in result.stdout
    assert f"{GEMMA}, qlora, rank 16, 3 epochs, loss on completions" in result.stdout
    assert result.stderr == ""


def test_without_models_tokens_are_estimated_and_that_is_warned_of(drop: Path) -> None:
    result = check(drop)
    assert result.exit_code == ACCEPTED
    assert "tokens estimated from " in result.stdout
    assert "[tokens_not_counted]" in result.stdout
    assert "--models" in result.stdout


def test_models_may_be_named_in_the_environment(drop: Path, models: Path) -> None:
    result = check(drop, env={"ADAPTML_MODELS_DIR": str(models)})
    assert result.exit_code == ACCEPTED
    assert "(tokens counted)" in result.stdout


def test_rows_that_are_set_aside_are_told_and_the_drop_is_accepted(drop: Path, models: Path) -> None:
    written(drop, {"manifest.yaml": MANIFEST + "  on_invalid_row: quarantine\n", "train.jsonl": jsonl([*GOOD, BAD])})
    result = check(drop, "--models", models)
    assert result.exit_code == ACCEPTED
    assert "row set aside: train.jsonl line 13: " in result.stdout
    assert outcome(result) == ("ACCEPTED", {"invalid_json": 1, "rows_quarantined": 1})


def test_the_folder_may_be_the_present_one(drop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(drop)
    result = check(Path())
    assert result.exit_code == ACCEPTED
    assert "ACCEPTED bot: " in result.stdout


@pytest.mark.parametrize("name", layout.MANIFEST_NAMES)
def test_a_manifest_may_have_any_of_its_names(drop: Path, name: str) -> None:
    (drop / "manifest.yaml").unlink()
    text = json.dumps({"base_model": GEMMA, "dataset": {"train": ["train.jsonl"]}})
    assert check(written(drop, {name: text})).exit_code == ACCEPTED


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".json", ".csv", ".tsv", ".parquet"])
def test_data_may_have_any_form(drop: Path, models: Path, suffix: str) -> None:
    manifest = MANIFEST.replace("train.jsonl", f"train{suffix}")
    written(drop, {"manifest.yaml": manifest, f"train{suffix}": rows.file_of(suffix, GOOD)})
    result = check(drop, "--models", models)
    assert result.exit_code == ACCEPTED
    assert "12 examples of 12 rows" in result.stdout


# Refused


def test_a_bad_row_is_refused_with_its_line(drop: Path, models: Path) -> None:
    result = check(written(drop, {"train.jsonl": jsonl([*GOOD, BAD])}), "--models", models)
    assert result.exit_code == REFUSED
    assert "error: train.jsonl line 13: not valid JSON" in result.stdout
    assert outcome(result) == ("REFUSED", {"invalid_json": 1})


def test_of_many_bad_rows_the_first_are_shown_and_all_are_counted(drop: Path) -> None:
    result = check(written(drop, {"train.jsonl": jsonl([BAD] * 150)}))
    assert result.stdout.count("error: train.jsonl line ") == 20
    assert "error: … and more" in result.stdout
    assert outcome(result) == ("REFUSED", {"invalid_json": 150})


def test_a_plan_that_cannot_be_carried_out_is_refused(drop: Path) -> None:
    result = check(written(drop, {"manifest.yaml": TOO_LONG}))
    assert result.exit_code == REFUSED
    assert "[too_long]" in result.stdout
    assert "Set `compute.timeout: " in result.stdout


def test_a_missing_manifest_is_refused(drop: Path) -> None:
    (drop / "manifest.yaml").unlink()
    result = check(drop)
    assert result.exit_code == REFUSED
    assert "the folder holds no manifest [manifest_not_found]" in result.stdout
    assert "manifest.yaml, manifest.yml, manifest.json" in result.stdout


def test_two_manifests_are_refused(drop: Path) -> None:
    result = check(written(drop, {"manifest.json": "{}"}))
    assert result.exit_code == REFUSED
    assert "the folder holds several manifests: manifest.yaml, manifest.json [several_manifests]" in result.stdout


def test_every_missing_data_file_is_named(drop: Path) -> None:
    (drop / "train.jsonl").unlink()
    manifest = f"base_model: {GEMMA}\ndataset: {{train: [train.jsonl, more.jsonl], validation: [val.jsonl]}}\n"
    result = check(written(drop, {"manifest.yaml": manifest, "more.jsonl": jsonl(GOOD)}), "--json")
    assert result.exit_code == REFUSED
    assert codes(json_of(result)) == [("file_not_found", "train.jsonl", None), ("file_not_found", "val.jsonl", None)]


def test_every_mistake_of_a_manifest_is_told_with_its_line(drop: Path) -> None:
    text = f"base_model: {GEMMA}\ntraining:\n  epochs: -1\n  learnin_rate: 1\nlora:\n  r: many\n"
    result = check(written(drop, {"manifest.yaml": text}))
    assert result.exit_code == REFUSED
    for line, code in ((1, "missing_field"), (3, "invalid_value"), (4, "unknown_field"), (6, "invalid_value")):
        assert any(
            part.startswith(f"error: manifest.yaml line {line}, ") and f"[{code}]" in part
            for part in result.stdout.splitlines()
        ), (line, code)
    assert outcome(result) == ("REFUSED", {"invalid_value": 2, "missing_field": 1, "unknown_field": 1})


def test_a_manifest_that_is_no_text_is_refused(drop: Path) -> None:
    result = check(written(drop, {"manifest.yaml": b"\x89PNG\x00\x00"}), "--json")
    assert result.exit_code == REFUSED
    assert codes(json_of(result)) == [("manifest_not_text", "manifest.yaml", 1)]


# Wrong use


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check", "nowhere"], "nowhere is not a folder"),
        (["check", "bot/manifest.yaml"], "bot/manifest.yaml is not a folder"),
        (["check", "bot", "--defaults", "nowhere.yaml"], "nowhere.yaml is not a file"),
        (["check", "bot", "--models", "nowhere"], "nowhere is not a folder"),
        (["check", "bot", "--out", "bot/manifest.yaml"], "bot/manifest.yaml is not a folder"),
        (["check"], "Missing argument"),
        (["check", "bot", "--preview", "-1"], "--preview"),
        (["check", "bot", "--nonsense"], "--nonsense"),
        (["nonsense"], "nonsense"),
    ],
)
def test_wrong_use_is_said_on_the_error_stream(
    drop: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(drop.parent)
    result = adaptml(*words)
    assert result.exit_code == USAGE
    assert said in result.stderr
    assert result.stdout == ""


# Defaults of the tenant


def test_defaults_beside_the_folder_complete_the_manifest(drop: Path) -> None:
    written(drop.parent, {layout.DEFAULTS: "epochs: 7\n"})
    assert json_of(check(drop, "--json"))["manifest"]["training"]["epochs"] == 7


def test_defaults_may_be_named_and_then_those_beside_the_folder_do_not_count(drop: Path, tmp_path: Path) -> None:
    written(drop.parent, {layout.DEFAULTS: "epochs: 7\n"})
    other = written(tmp_path, {"other.yaml": "lora: {r: 8}\n"}) / "other.yaml"
    manifest = json_of(check(drop, "--json", "--defaults", other))["manifest"]
    assert (manifest["training"]["epochs"], manifest["lora"]["r"]) == (3, 8)


def test_a_mistake_in_the_defaults_is_told_with_file_and_line(drop: Path) -> None:
    written(drop.parent, {layout.DEFAULTS: "seed: 1\nepohcs: 7\n"})
    result = check(drop, "--json")
    assert result.exit_code == REFUSED
    assert codes(json_of(result)) == [("unknown_field", layout.DEFAULTS, 2)]


# --json and --out


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_json_is_the_report_that_out_writes(drop: Path, models: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    result = check(drop, "--models", models, "--json", "--out", out)
    assert result.exit_code == ACCEPTED
    assert files_in(out) == {layout.REPORT, layout.PREVIEW}
    assert result.stdout == (out / layout.REPORT).read_text("utf-8")
    report = json_of(result)
    assert (report["accepted"], report["plan"]["basis"]) == (True, "tokens counted")
    previews = [json.loads(line) for line in (out / layout.PREVIEW).read_text("utf-8").splitlines()]
    assert [entry["line"] for entry in previews] == list(range(1, 13))


@pytest.mark.parametrize(
    "files",
    [
        {"train.jsonl": jsonl([*GOOD, BAD])},
        {"manifest.yaml": TOO_LONG},
        {"manifest.yaml": MANIFEST + "nonsense: 1\n"},
        {"manifest.yaml": MANIFEST.replace("train.jsonl", "missing.jsonl")},
    ],
    ids=["bad row", "bad plan", "bad manifest", "missing data"],
)
def test_json_and_out_agree_about_a_refused_drop_too(drop: Path, tmp_path: Path, files: dict[str, str | bytes]) -> None:
    out = tmp_path / "out"
    result = check(written(drop, files), "--json", "--out", out)
    assert result.exit_code == REFUSED
    assert result.stdout == (out / layout.REPORT).read_text("utf-8")
    report = json_of(result)
    assert report["accepted"] is False
    rejected = (out / layout.REJECTED).read_text("utf-8")
    assert rejected.startswith("# This drop was refused\n")
    for found in report["problems"]:
        assert (f"\\[{found['code']}\\]" in rejected) == (found["severity"] == "error")


def test_the_reasons_of_a_refused_drop_go_once_it_was_mended(drop: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    written(drop, {"train.jsonl": jsonl([*GOOD, BAD])})
    check(drop, "--out", out)
    assert files_in(out) == {layout.REPORT, layout.PREVIEW, layout.REJECTED}
    written(drop, {"train.jsonl": jsonl(GOOD)})
    check(drop, "--out", out)
    assert files_in(out) == {layout.REPORT, layout.PREVIEW}
    assert json.loads((out / layout.REPORT).read_text("utf-8"))["accepted"] is True


def test_of_a_broken_manifest_no_older_preview_stays(drop: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    check(drop, "--out", out)
    check(written(drop, {"manifest.yaml": "base_model: [\n"}), "--out", out)
    assert files_in(out) == {layout.REPORT, layout.REJECTED}


def test_out_may_be_the_folder_itself(drop: Path) -> None:
    assert check(drop, "--out", drop).exit_code == ACCEPTED
    assert check(drop, "--out", drop).exit_code == ACCEPTED
    assert files_in(drop) == {"manifest.yaml", "train.jsonl", layout.REPORT, layout.PREVIEW}


def test_two_checks_of_one_drop_say_the_same(drop: Path, models: Path) -> None:
    assert check(drop, "--models", models, "--json").stdout == check(drop, "--models", models, "--json").stdout


# What is shown


@pytest.mark.parametrize(("options", "shown"), [((), 1), (("--preview", "0"), 0), (("--preview", "3"), 3)])
def test_as_many_examples_are_shown_as_asked_for(
    drop: Path, models: Path, options: tuple[str, ...], shown: int
) -> None:
    result = check(drop, "--models", models, *options)
    assert result.stdout.count("tokens trained on (green)") == shown
    for number in range(3):
        assert (f"train.jsonl line {number + 1}: " in result.stdout) == (number < shown)
        assert (f"answer number {number}<|im_end|>" in result.stdout) == (number < shown)


def test_nothing_in_the_data_reaches_the_terminal_but_as_text(drop: Path, models: Path) -> None:
    data = [{"prompt": "\x1b[2J[red]markup[/blue]\x07", "completion": "\x9b31mred \x1b]0;title\x07"}, *GOOD]
    result = check(written(drop, {"train.jsonl": jsonl(data)}), "--models", models, env={"NO_COLOR": "1"})
    assert result.exit_code == ACCEPTED
    assert "[red]markup[/blue]" in result.stdout
    assert not set(result.stdout) & {"\x1b", "\x07", "\x9b"}


@pytest.mark.parametrize("name", ["[red]odd.jsonl", "[/red].jsonl", "a b & é.jsonl"])
def test_a_file_may_have_an_odd_name_at_a_terminal_too(drop: Path, name: str) -> None:
    manifest = json.dumps({"base_model": GEMMA, "dataset": {"train": [name]}})
    written(drop, {"manifest.yaml": manifest, name: jsonl([*GOOD, BAD])})
    result = check(drop, env={"FORCE_COLOR": "1", "TERM": "xterm"})
    assert result.exit_code == REFUSED
    assert f"{name} line 13" in result.stdout


def test_narrow_terminals_are_written_to(drop: Path, models: Path) -> None:
    assert check(drop, "--models", models, env={"COLUMNS": "20"}).exit_code == ACCEPTED


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--help"], ["Fine-tune an LLM by copying a folder into a bucket.", "check", "Check a drop before"]),
        (
            ["check", "--help"],
            ["--defaults", "--models", "--out", "--preview", "--json", "0 accepted, 1 refused", "folder"],
        ),
    ],
)
def test_help_names_what_there_is(words: list[str], said: list[str]) -> None:
    result = adaptml(*words)
    assert result.exit_code == ACCEPTED
    assert [text for text in said if text not in result.stdout] == []


def test_without_a_command_help_is_shown() -> None:
    result = adaptml()
    assert result.exit_code == USAGE
    assert "check" in result.output


# The installed command


def test_the_installed_command_accepts_the_demo() -> None:
    command = Path(sys.executable).with_name("adaptml")
    done = subprocess.run([command, "check", "demo/support-bot"], cwd=ROOT, timeout=60, capture_output=True, text=True)
    assert done.returncode == ACCEPTED, done.stderr
    assert "ACCEPTED support-bot: " in done.stdout


def test_the_installed_command_tells_a_refusal_by_its_exit_status(tmp_path: Path) -> None:
    broken = shutil.copytree(ROOT / "demo" / "support-bot", tmp_path / "broken")
    with (broken / "train.jsonl").open("a") as data:
        data.write("not JSON\n")
    command = Path(sys.executable).with_name("adaptml")
    done = subprocess.run([command, "check", broken, "--json"], timeout=60, capture_output=True, text=True)
    assert done.returncode == REFUSED, done.stderr
    assert json.loads(done.stdout)["counts"]["invalid_json"] == 1
