from __future__ import annotations

from typing import Any

from adaptml.aliases import Numbered
from adaptml.comparison import Comparison, compare
from schemas.manifest import Lora
from schemas.run import DataFile, DatasetSummary, Metrics, Version
from schemas.run_states import RunState
from tests.unit.test_protocol import MANIFEST, NOW, run

FILE = DataFile(name="train.jsonl", object="t/bot/train.jsonl", generation=1, size=100, crc32c="AAAA", role="train")


def numbered(number: int, **fields: Any) -> Numbered:
    of = run(RunState.SUCCEEDED, **fields)
    return Numbered(Version(version=number, run_id=f"{of.run_id}-{number}", claimed_at=NOW), of)


def sample(question: str, answer: str) -> dict[str, str]:
    return {"question": question, "expected": "yes", "before": "?", "after": answer}


def compared(one: dict[str, Any], other: dict[str, Any], *samples: list[dict[str, str]]) -> Comparison:
    first, second = samples or ([], [])
    return compare(numbered(1, **one), numbered(2, **other), (first, second))


def test_settings_that_differ_are_named_as_the_manifest_names_them() -> None:
    other = MANIFEST.model_copy(update={"lora": Lora(r=64)})
    found = compared({"manifest": MANIFEST}, {"manifest": other})
    assert [(d.what, d.before, d.after) for d in found.settings] == [("lora.r", str(MANIFEST.lora.r), "64")]


def test_of_the_data_files_that_were_replaced_added_or_left_out_are_named() -> None:
    more = FILE.model_copy(update={"name": "more.jsonl"})
    again = FILE.model_copy(update={"generation": 2, "crc32c": "BBBB"})
    found = compared(
        {"dataset": DatasetSummary(files=[FILE], train_examples=10, tokens=500)},
        {"dataset": DatasetSummary(files=[again, more], train_examples=12, tokens=500)},
    )
    assert [d.what for d in found.data] == ["train: train.jsonl", "examples to train on", "train: more.jsonl"]
    assert "BBBB" in found.data[0].after
    assert found.data[2].before == ""


def test_a_file_that_was_copied_again_is_the_same() -> None:
    again = FILE.model_copy(update={"generation": 2})
    assert compared({"dataset": DatasetSummary(files=[FILE])}, {"dataset": DatasetSummary(files=[again])}).data == []


def test_figures_stand_beside_each_other_with_their_change() -> None:
    found = compared(
        {"metrics": Metrics(eval_loss_after=2.0, eval_token_accuracy_after=0.5)},
        {"metrics": Metrics(eval_loss_after=1.5)},
    )
    measures = {m.what: m for m in found.metrics}
    loss = measures["loss on held-out data, nats a token"]
    assert (loss.before, loss.after, loss.change) == ("2.0000", "1.5000", "-0.5000")
    accuracy = measures["token accuracy"]
    assert (accuracy.before, accuracy.after, accuracy.change) == ("50.0 %", "not measured", "")


def test_answers_to_the_same_question_stand_beside_each_other() -> None:
    found = compared({}, {}, [sample("a?", "1"), sample("b?", "2")], [sample("b?", "3"), sample("c?", "4")])
    assert [(a.question, a.before, a.after) for a in found.answers] == [
        ("a?", "1", None), ("b?", "2", "3"), ("c?", None, "4"),
    ]  # fmt: skip


def test_a_version_whose_run_is_gone_is_compared_as_far_as_it_is_known() -> None:
    gone = Numbered(Version(version=1, run_id="gone", claimed_at=NOW), None)
    found = compare(gone, numbered(2, manifest=MANIFEST), ([], []))
    assert found.before.base_model is None
    assert {d.before for d in found.settings} == {""}
