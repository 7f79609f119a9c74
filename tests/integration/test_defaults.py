"""A tenant's `_defaults.yaml`, and adapters that are named otherwise than their folders."""

from __future__ import annotations

from schemas.run_states import RunState
from tests.cloud import MODEL, TestCloud, chat_rows, eventually

S = RunState


def test_a_drop_may_be_data_and_a_base_model(cloud: TestCloud) -> None:
    defaults = cloud.put("frugal/_defaults.yaml", "train: train.jsonl\nnum_epochs: 2\ndry_run: true\n")
    cloud.put("frugal/bot/train.jsonl", chat_rows(12))
    generation = cloud.put("frugal/bot/manifest.yaml", f"base_model: {MODEL}\n")
    run = cloud.wait(cloud.run_id("frugal", "bot", generation), S.VALIDATED)
    assert run.state is S.VALIDATED
    assert run.source.defaults_generation == defaults
    assert run.manifest is not None
    assert (run.manifest.training.epochs, run.manifest.dataset.train) == (2, ["train.jsonl"])
    assert run.estimate is not None
    assert not [execution for execution in cloud.services.jobs.listed() if execution.run_id == run.run_id]


def test_a_mistake_in_the_defaults_is_told_beside_each_drop(cloud: TestCloud) -> None:
    cloud.put("careless/_defaults.yaml", "dry_run: true\nepohcs: 2\n")
    generation = cloud.put("careless/bot/manifest.yaml", f"base_model: {MODEL}\ntrain: train.jsonl\n")
    run = cloud.wait(cloud.run_id("careless", "bot", generation), S.REJECTED)
    assert run.error is not None
    assert [(p.file, p.code, p.line) for p in run.error.details] == [("_defaults.yaml", "unknown_field", 2)]
    assert "defaults.yaml" in eventually(lambda: cloud.read("careless/bot/REJECTED.md"))


def test_an_adapter_may_be_named_otherwise_than_its_folder(cloud: TestCloud) -> None:
    text = f"base_model: {MODEL}\ntrain: train.jsonl\nsuffix: renamed\ndry_run: true\n"
    generation = cloud.put("acme/Folder 7/manifest.yaml", text)
    run = cloud.wait(cloud.run_id("acme", "Folder 7", generation), S.AWAITING_DATA)
    assert (run.name, run.folder) == ("renamed", "Folder 7")
    cloud.put("acme/Folder 7/train.jsonl", "not JSON\n")
    assert cloud.wait(run.run_id, S.REJECTED).state is S.REJECTED
    assert eventually(lambda: cloud.read("acme/Folder 7/REJECTED.md"))
    assert cloud.read("acme/renamed/REJECTED.md") is None
