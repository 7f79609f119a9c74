"""What intake finds out about a drop, and where it tells it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from adaptml import cli
from local import paths
from schemas import layout
from schemas.run import Run
from schemas.run_states import RunState
from tests.cloud import DROPS, MODEL, TestCloud, chat_rows, eventually, manifest
from tests.integration.test_intake import publish_storage_event
from tests.unit import rows

S = RunState
BROKEN = '{"messages": [\n'
LARGE_BYTES = 70_000_000
"""More than one core checks, and more than every row's tokens are counted of."""


def with_lines(text: str, lines: dict[int, str]) -> str:
    """The text with other lines, counted from 1."""
    return "".join(lines.get(i, line) for i, line in enumerate(text.splitlines(keepends=True), 1))


def beside(cloud: TestCloud, folder: str) -> dict[str, Any]:
    """validation-report.json of a drop."""
    report: dict[str, Any] = json.loads(cloud.read(f"acme/{folder}/{layout.REPORT}") or "{}")
    return report


def validated(cloud: TestCloud, folder: str, text: str) -> Run:
    """The run of a manifest, once it is decided on."""
    generation = cloud.put(f"acme/{folder}/manifest.yaml", text)
    return cloud.wait(cloud.run_id("acme", folder, generation), S.VALIDATED, S.REJECTED)


def copied(cloud: TestCloud, drop: Path) -> Run:
    """The run of a folder that gsutil copies for the first time, once it is decided on."""
    cloud.command("gsutil", "-q", "cp", "-r", str(drop), f"gs://{DROPS}/acme/")
    return decided(cloud, drop.name)


def decided(cloud: TestCloud, folder: str, number: int = 1) -> Run:
    """The n-th run of a folder, once it is decided on."""
    run = eventually(lambda: next(iter(cloud.runs_of("acme", folder)[number - 1 :]), None))
    return cloud.wait(run.run_id, S.VALIDATED, S.REJECTED)


def written(folder: Path, **files: str) -> Path:
    """A drop; `train` is train.jsonl."""
    folder.mkdir(exist_ok=True)
    for name, text in ({"manifest": manifest(dry_run=True)} | files).items():
        (folder / (name + (".yaml" if name == "manifest" else ".jsonl"))).write_text(text)
    return folder


def test_reasons_lie_beside_a_refused_drop_until_it_is_mended(cloud: TestCloud, tmp_path: Path) -> None:
    bad = with_lines(chat_rows(20), {3: BROKEN, 17: '{"messages": []}\n'})
    drop = written(tmp_path / "mended", train=bad)
    refused = copied(cloud, drop)
    assert refused.state is S.REJECTED
    assert refused.error is not None
    assert refused.error.counts == {"invalid_json": 1, "missing_messages_list": 1}
    report = beside(cloud, "mended")
    assert (report["run_id"], report["accepted"], report["counts"]) == (refused.run_id, False, refused.error.counts)
    assert [(p["file"], p["line"], p["code"]) for p in report["problems"]] == [
        ("train.jsonl", 3, "invalid_json"),
        ("train.jsonl", 17, "missing_messages_list"),
    ]
    told = eventually(lambda: cloud.read(f"acme/mended/{layout.REJECTED}"))
    assert refused.run_id in told
    assert all(place in told for place in ("2 problems", "line 3", "line 17"))
    assert not any("Question" in text for text in (told, json.dumps(report["problems"])))
    pinned = cloud.services.objects.pin(DROPS, f"acme/mended/{layout.REPORT}")
    assert pinned is not None
    assert refused.dataset.report_generation == pinned.generation

    written(drop, train=chat_rows(20))
    cloud.command("gsutil", "-q", "cp", "-r", str(drop), f"gs://{DROPS}/acme/")
    mended = decided(cloud, "mended", 2)
    assert mended.state is S.VALIDATED
    eventually(lambda: cloud.read(f"acme/mended/{layout.REJECTED}") is None)
    report = beside(cloud, "mended")
    assert (report["run_id"], report["accepted"], report["problems"]) == (mended.run_id, True, [])


def test_an_accepted_drop_has_counted_tokens_a_plan_and_a_preview(cloud: TestCloud) -> None:
    cloud.put("acme/measured/train.jsonl", chat_rows(30))
    cloud.put("acme/measured/val.jsonl", chat_rows(5, answer="Held out {}."))
    dataset = {"train": ["train.jsonl"], "validation": ["val.jsonl"]}
    generation = cloud.put("acme/measured/manifest.yaml", manifest(dataset=dataset))
    run = cloud.wait(cloud.run_id("acme", "measured", generation), S.SUCCEEDED)
    assert run.state is S.SUCCEEDED
    assert (run.dataset.train_examples, run.dataset.validation_examples, run.dataset.invalid_rows) == (30, 5, 0)
    assert run.dataset.format == "messages"

    previews = [json.loads(line) for line in (cloud.read(f"acme/measured/{layout.PREVIEW}") or "").splitlines()]
    assert [entry["line"] for entry in previews] == list(range(1, 21))
    assert previews[0]["segments"][1] == {"text": "The answer is 0.<|im_end|>", "trained": True}

    lengths, plan = run.dataset.lengths, run.estimate
    assert lengths is not None
    assert (lengths.examples, lengths.of, lengths.overlong) == (30, 30, 0)
    assert lengths.percentiles["p50"] in {entry["tokens"] for entry in previews}
    assert plan is not None
    assert plan.basis == "tokens counted"
    assert plan.tokens_per_epoch == run.dataset.tokens == pytest.approx(lengths.mean * 30, abs=2)  # it is rounded
    for expected, span in (
        (plan.cost_usd, plan.cost_usd_range),
        (plan.duration_s, plan.duration_s_range),
        (plan.gpu_memory_gb, plan.gpu_memory_gb_range),
    ):
        assert span is not None
        assert 0 < span[0] <= expected <= span[1]

    report = beside(cloud, "measured")
    assert (report["run_id"], report["accepted"]) == (run.run_id, True)
    assert report["tokens"] == lengths.model_dump(mode="json")
    assert report["plan"] == plan.model_dump(mode="json")
    pinned = cloud.services.objects.pin(DROPS, f"acme/measured/{layout.REPORT}")
    assert pinned is not None
    assert run.dataset.report_generation == pinned.generation


def test_a_dry_run_ends_with_preview_and_plan_and_starts_nothing(cloud: TestCloud) -> None:
    cloud.put("acme/rehearsed/train.jsonl", chat_rows(12))
    run = validated(cloud, "rehearsed", manifest(dry_run=True))
    assert run.state is S.VALIDATED
    assert run.estimate is not None
    assert run.finished_at is not None
    assert len((cloud.read(f"acme/rehearsed/{layout.PREVIEW}") or "").splitlines()) == 12
    assert beside(cloud, "rehearsed")["accepted"] is True
    assert run.run_id not in [execution.run_id for execution in cloud.services.jobs.listed()]
    assert run.execution is None


def test_a_plan_that_cannot_be_carried_out_is_refused_with_its_figures(cloud: TestCloud) -> None:
    cloud.put("acme/costly/train.jsonl", chat_rows(12))
    run = validated(cloud, "costly", manifest(compute={"max_cost_usd": 0.01}))
    assert run.state is S.REJECTED
    assert run.error is not None
    assert (run.error.code, run.error.counts) == ("too_expensive", {"too_expensive": 1})
    assert run.estimate is not None
    assert run.estimate.cost_usd > 0.01
    told = eventually(lambda: cloud.read(f"acme/costly/{layout.REJECTED}"))
    assert "compute.max_cost_usd" in told.replace("\\", "")


def test_a_repeated_event_writes_no_second_report(cloud: TestCloud) -> None:
    cloud.put("acme/repeated/train.jsonl", chat_rows(12))
    run = validated(cloud, "repeated", manifest(dry_run=True))
    name = f"acme/repeated/{layout.REPORT}"
    before = cloud.services.objects.pin(DROPS, name)
    assert run.source.manifest_generation is not None
    publish_storage_event(cloud, "acme/repeated/manifest.yaml", run.source.manifest_generation)
    validated(cloud, "repeated-after", manifest(dry_run=True, dataset={"train": ["../x"]}))
    assert cloud.services.objects.pin(DROPS, name) == before


DROPS_TO_CHECK: dict[str, dict[str, str]] = {
    "same-accepted": {"train": chat_rows(15) + chat_rows(1), "val": chat_rows(3, answer="Held out {}.")},
    "same-bad-rows": {"train": with_lines(chat_rows(15), {4: BROKEN, 9: '{"text": "x"}\n'}), "val": chat_rows(2)},
    "same-set-aside": {
        "train": with_lines(chat_rows(15), {4: BROKEN}),
        "val": chat_rows(2, answer="Held out {}.") + chat_rows(1),
        "manifest": manifest(
            dry_run=True,
            dataset={"train": ["train.jsonl"], "validation": ["val.jsonl"], "on_invalid_row": "quarantine"},
        ),
    },
    "same-bad-plan": {"train": chat_rows(15), "manifest": manifest(dry_run=True, compute={"max_cost_usd": 0.01})},
    "same-bad-manifest": {"manifest": "base_model: nobody/knows\nepohcs: 1\n"},
}


@pytest.mark.parametrize("name", DROPS_TO_CHECK)
def test_a_check_on_a_laptop_says_what_intake_says(cloud: TestCloud, tmp_path: Path, name: str) -> None:
    both = {"train": ["train.jsonl"], "validation": ["val.jsonl"]}
    drop = written(tmp_path / name, **{"manifest": manifest(dry_run=True, dataset=both), **DROPS_TO_CHECK[name]})
    run = copied(cloud, drop)
    checked = CliRunner().invoke(cli.app, ["check", str(drop), "--models", str(paths.MODELS), "--json"])
    assert checked.exit_code == (cli.ACCEPTED if run.state is S.VALIDATED else cli.REFUSED)
    report = beside(cloud, name)
    assert report.pop("run_id") == run.run_id
    assert json.dumps(report, indent=2, ensure_ascii=False) + "\n" == checked.stdout
    assert report["accepted"] is (run.state is S.VALIDATED)
    assert (report.get("plan") or {"basis": "tokens counted"})["basis"] == "tokens counted"


def test_a_file_of_70_mb_is_checked_to_its_last_line(cloud: TestCloud) -> None:
    """On several cores, in pieces, its tokens sampled."""
    filler = "words of an answer that goes on and on, " * 16
    count = LARGE_BYTES // 700
    lines = (
        json.dumps({"prompt": f"Question {i}?", "completion": f"Answer {i}: {filler}"}) + "\n" for i in range(count)
    )
    data = "".join(lines) + BROKEN
    assert len(data) > LARGE_BYTES
    cloud.put("acme/large/train.jsonl", data)
    dataset = {"train": ["train.jsonl"], "on_invalid_row": "quarantine"}
    enough = {"max_cost_usd": 1000, "timeout": "24h"}
    run = validated(cloud, "large", manifest(dry_run=True, dataset=dataset, compute=enough))
    assert run.state is S.VALIDATED, run.error
    assert (run.dataset.train_examples, run.dataset.invalid_rows) == (count, 1)
    assert [(row["code"], row["line"]) for row in beside(cloud, "large")["set_aside"]] == [("invalid_json", count + 1)]
    lengths = run.dataset.lengths
    assert lengths is not None
    assert lengths.of == count > lengths.examples > 1000
    assert run.estimate is not None
    assert run.estimate.basis == f"tokens sampled: {lengths.examples} of {count} rows"
    assert run.estimate.tokens_per_epoch == pytest.approx(lengths.mean * count, rel=0.01)


@pytest.mark.parametrize("suffix", [".csv.gz", ".parquet", ".tsv", ".json"])
def test_data_may_have_any_form(cloud: TestCloud, suffix: str) -> None:
    folder, file = f"form{suffix.replace('.', '-')}", f"train{suffix}"
    cloud.put(f"acme/{folder}/{file}", rows.file_of(suffix, rows.good_rows(count=12)))
    run = validated(cloud, folder, manifest(dry_run=True, dataset={"train": [file]}))
    assert run.state is S.VALIDATED, run.error
    assert (run.dataset.train_examples, run.dataset.format) == (12, "prompt_completion")
    assert run.dataset.lengths is not None
    assert run.dataset.lengths.longest[0].file == file


def test_what_is_written_beside_a_drop_starts_no_run(cloud: TestCloud) -> None:
    for name in sorted(layout.OUR_FILES):
        cloud.put(f"acme/quiet/{name}", "not ours, and no manifest")
    cloud.put("acme/quiet/train.jsonl", chat_rows(12))
    run = validated(cloud, "quiet", manifest(dry_run=True))
    for name in (layout.REPORT, layout.PREVIEW, layout.STATUS):
        pinned = cloud.services.objects.pin(DROPS, f"acme/quiet/{name}")
        assert pinned is not None
        publish_storage_event(cloud, f"acme/quiet/{name}", pinned.generation)
    after = validated(cloud, "quiet", manifest(dry_run=True, labels={"try": "2"}))
    assert [r.run_id for r in cloud.runs_of("acme", "quiet")] == [run.run_id, after.run_id]
    assert {r.state for r in cloud.runs_of("acme", "quiet")} == {S.VALIDATED}


def test_the_model_that_tokens_are_counted_for_is_that_of_the_manifest(cloud: TestCloud) -> None:
    """Another model of the catalogue has no tokenizer here: its tokens are estimated, and that is warned of."""
    cloud.put("acme/uncounted/train.jsonl", chat_rows(12))
    run = validated(cloud, "uncounted", manifest(base_model="google/gemma-2b-it", dry_run=True))
    assert run.state is S.VALIDATED
    assert MODEL != "google/gemma-2b-it"
    assert run.dataset.lengths is None
    assert [found.code for found in run.dataset.warnings] == ["tokens_not_counted"]
    assert run.estimate is not None
    assert run.estimate.basis.startswith("tokens estimated from ")
    assert cloud.read(f"acme/uncounted/{layout.PREVIEW}") == ""
