"""Rows that are set aside: intake and trainer, each reading the drop by itself, come to the same ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.cloud import firestore

from adaptml.dataset.shapes import Example
from adaptml.tokens.chat import ChatTokenizer
from adaptml.tokens.store import in_folder
from local import paths
from schemas import layout
from schemas.catalogue import CATALOGUE
from schemas.run import Run
from schemas.run_states import RunState
from tests.cloud import MODEL, PROJECT, TestCloud, chat_rows, manifest
from tests.unit import rows
from trainer.attempt import Attempt
from trainer.data import load
from trainer.packing import IGNORED, Tokens
from trainer.quarantine import FILE

S = RunState
GOOD = [json.loads(line) for line in chat_rows(12).splitlines()]
HELD_OUT = [json.loads(line) for line in chat_rows(4, answer="Held out {}.").splitlines()]
EMPTY_ANSWER = rows.conversation("What now?", "  ")
OVERLONG = rows.conversation("Go on.", "and on " * 100)
FORGED = rows.conversation("Who is there?", "<|im_start|>system")
CUT_OFF, NOT_TEXT = b'{"messages": [', b'{"messages": "\xff"}'

TRAIN: list[Any] = [*GOOD[:4], CUT_OFF, EMPTY_ANSWER, *GOOD[4:8], OVERLONG, NOT_TEXT, FORGED, *GOOD[8:]]
VALIDATION: list[Any] = [HELD_OUT[0], GOOD[5], *HELD_OUT[1:], OVERLONG, EMPTY_ANSWER]
SET_ASIDE: list[tuple[str, int, list[str], Any]] = [
    ("train.jsonl", 5, ["invalid_json"], CUT_OFF.decode()),
    ("train.jsonl", 6, ["empty_assistant_content"], EMPTY_ANSWER),
    ("train.jsonl", 11, ["overlong_example"], OVERLONG),
    ("train.jsonl", 12, ["not_utf8"], NOT_TEXT.decode("utf-8", "replace")),
    ("train.jsonl", 13, ["special_token_in_content"], FORGED),
    ("val.jsonl", 2, ["train_validation_overlap"], GOOD[5]),
    ("val.jsonl", 6, ["train_validation_overlap"], OVERLONG),
    ("val.jsonl", 7, ["empty_assistant_content"], EMPTY_ANSWER),
]
"""(file, line, codes, row)"""
HELD: dict[str, Any] = {"labels": {"steps": "120", "pause": "0.5"}, "compute": {"timeout": "400s", "max_attempts": 1}}
"""Settings with which the stub trainer holds a run for a while, and soon sees that it was cancelled."""


@dataclass
class Loaded:
    """What the trainer has read, and the run that intake had made."""

    run: Run
    report: dict[str, Any]
    chat: ChatTokenizer
    training: list[Tokens]
    held_out: list[Tokens]
    quarantined: list[dict[str, Any]]


@pytest.fixture(scope="module")
def loaded(cloud: TestCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    """The stub trainer owns the run and waits, while the real trainer's reading goes on in its name."""
    cloud.put("acme/set-aside/train.jsonl", rows.jsonl(TRAIN))
    cloud.put("acme/set-aside/val.jsonl", rows.jsonl(VALIDATION))
    dataset = {"train": ["train.jsonl"], "validation": ["val.jsonl"], "on_invalid_row": "quarantine"}
    text = manifest(dataset=dataset, training={"max_seq_length": 128}, **HELD)
    run_id = cloud.run_id("acme", "set-aside", cloud.put("acme/set-aside/manifest.yaml", text))
    run = cloud.wait(run_id, S.TRAINING)
    assert run.state is S.TRAINING, run.error
    assert run.owner is not None
    chat = in_folder(paths.MODELS)(CATALOGUE[MODEL])
    assert chat is not None
    folder = tmp_path_factory.mktemp("adapter")
    attempt = Attempt(cloud.services, run, run.owner)
    training, held_out = load(attempt, chat, folder)
    quarantined = [json.loads(line) for line in (folder / FILE).read_text("utf-8").splitlines()]
    report = json.loads(cloud.read(f"acme/set-aside/{layout.REPORT}") or "{}")
    yield Loaded(run, report, chat, training, held_out, quarantined)
    firestore.Client(project=PROJECT).collection("runs").document(run_id).update({"cancel_requested": True})
    cloud.wait(run_id, S.CANCELLED)


def test_good_rows_become_the_tokens_that_were_counted(loaded: Loaded) -> None:
    for tokens, kept in ((loaded.training, GOOD), (loaded.held_out, HELD_OUT)):
        encoded: list[Any] = loaded.chat.encode_batch([Example(row["messages"]) for row in kept])
        assert [one.ids for one in tokens] == [one.ids for one in encoded]
        for one, same in zip(tokens, encoded, strict=True):
            assert [label != IGNORED for label in one.labels] == same.trained
    assert (loaded.run.dataset.train_examples, loaded.run.dataset.validation_examples) == (12, 4)
    assert loaded.run.estimate is not None
    assert loaded.run.estimate.tokens_per_epoch == sum(len(one) for one in loaded.training)


def test_each_bad_row_is_listed_once_with_its_reasons_and_itself(loaded: Loaded) -> None:
    found = [
        (entry["file"], entry["line"], [reason["code"] for reason in entry["problems"]], entry["row"])
        for entry in loaded.quarantined
    ]
    assert sorted(found, key=lambda entry: entry[:2]) == SET_ASIDE
    assert all(reason["message"] and reason["hint"] for entry in loaded.quarantined for reason in entry["problems"])


def test_intake_had_counted_just_those_rows(loaded: Loaded) -> None:
    assert loaded.run.dataset.invalid_rows == len(loaded.quarantined)
    assert loaded.report["data"]["invalid_rows"] == len(loaded.quarantined)
    told = {(row["file"], row["line"], row["code"]) for row in loaded.report["set_aside"]}
    assert told == {(file, line, code) for file, line, codes, _ in SET_ASIDE for code in codes}
    assert loaded.report["counts"]["rows_quarantined"] == 1


def test_their_text_is_in_no_document_and_no_log(cloud: TestCloud, loaded: Loaded) -> None:
    texts = [json.dumps(loaded.report), loaded.run.model_dump_json()]
    texts += [log.read_text("utf-8", "replace") for log in (cloud.home / "logs").rglob("*.log")]
    assert len(texts) > 8
    assert not [text for text in texts if "and on and on" in text or "What now?" in text]


def test_tables_set_aside_rows_as_their_columns(cloud: TestCloud, tmp_path: Path) -> None:
    good = rows.good_rows(count=12)
    cloud.put(
        "acme/set-aside-table/train.csv", rows.table([*good[:2], {"prompt": "Why?", "completion": " "}, *good[2:]])
    )
    text = manifest(dataset={"train": ["train.csv"], "on_invalid_row": "quarantine"}, **HELD)
    run_id = cloud.run_id("acme", "set-aside-table", cloud.put("acme/set-aside-table/manifest.yaml", text))
    run = cloud.wait(run_id, S.TRAINING)
    assert run.owner is not None
    chat = in_folder(paths.MODELS)(CATALOGUE[MODEL])
    assert chat is not None
    training, held_out = load(Attempt(cloud.services, run, run.owner), chat, tmp_path)
    firestore.Client(project=PROJECT).collection("runs").document(run_id).update({"cancel_requested": True})
    assert cloud.wait(run_id, S.CANCELLED).state is S.CANCELLED
    (entry,) = [json.loads(line) for line in (tmp_path / FILE).read_text("utf-8").splitlines()]
    assert (entry["file"], entry["line"], entry["row"]) == ("train.csv", 4, {"prompt": "Why?", "completion": " "})
    assert run.dataset.invalid_rows == 1
    assert (len(training), len(held_out)) == (11, 1)  # without validation files, 5 % are held out
