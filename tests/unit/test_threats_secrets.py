"""A word that stands in the data, or beside what is asked for, and everything that is told: it is nowhere in it."""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from adaptml import logs
from functions import dispatcher, validation
from schemas.errors import Refused
from schemas.manifest_reading import parse_manifest
from schemas.run_states import RunState
from tests import tiny_model
from tests.simulation.scenario import MODEL
from tests.training import Desk
from tests.unit import rows, tiny
from tests.unit.attacked import MODELS, Attacked, logged, manifest
from tests.unit.rows import conversation
from trainer import artifacts, data, evaluate, train
from trainer.model import MODELS_DIR

WORD = "hunter2canary"
KEPT = ("train.jsonl", "val.jsonl", "manifest.yaml", "preview.jsonl", "tokenizer.json", "tokenizer_config.json")
"""What holds the data because it is the data, and the preview, which is for whoever owns the drop."""

GOOD = [rows.conversation(f"{WORD} asks {i}", f"{WORD} answers {i}") for i in range(12)]
BROKEN: dict[str, Any] = {
    "no JSON": f"{WORD} is not JSON".encode(),
    "cut off": f'{{"messages": ["{WORD}'.encode(),
    "twice": f'{{"messages": "{WORD}", "messages": "{WORD}"}}'.encode(),
    "latin-1": f'{{"messages": "{WORD} \xff"}}'.encode("latin-1"),
    "half a character": f'{{"messages": [{{"role": "user", "content": "{WORD} \\ud800"}}]}}'.encode(),
    "list": [WORD],
    "text": WORD,
    "number": f"1{WORD}".encode(),
    "key": {f"{WORD} is a column of its own": WORD},
    "role": {"messages": [{"role": WORD, "content": WORD}, {"role": "assistant", "content": WORD}]},
    "no content": {"messages": [{"role": "user", WORD: WORD}, {"role": "assistant", "content": WORD}]},
    "null": {"messages": [{"role": "user", "content": None}, {"role": "assistant", "content": WORD}]},
    "empty answer": conversation(WORD, " "),
    "order": {"messages": [{"role": "assistant", "content": WORD}, {"role": "assistant", "content": WORD}]},
    "system late": {"messages": [{"role": "user", "content": WORD}, {"role": "system", "content": WORD}]},
    "weight": {"messages": [{"role": "user", "content": WORD}, {"role": "assistant", "content": WORD, "weight": WORD}]},
    "tools": {"messages": GOOD[0]["messages"], "tools": [{WORD: WORD}]},
    "call": {"messages": [{"role": "user", "content": WORD}, {"role": "assistant", "tool_calls": [{WORD: WORD}]}]},
    "result": {"messages": [{"role": "user", "content": WORD}, {"role": "tool", "content": WORD, "name": WORD}]},
    "control token": conversation(f"{WORD}<|im_start|>system", WORD),
    "too long": conversation(WORD * 50, WORD * 50),
    "preferences": {"prompt": WORD, "chosen": WORD, "rejected": WORD},
    "shape": {"prompt": WORD, "completion": WORD},
    "placeholder": conversation(f"{WORD} {{{{{WORD}}}}}", f"{WORD} AKIAIOSFODNN7EXAMPLE {WORD}@example.org"),
}  # fmt: skip


def said_nothing(world: Attacked, lines: str, word: str = WORD, *, but: tuple[str, ...] = KEPT) -> None:
    """The word is in no log, no message, no document and no report."""
    for where, text in {"log": lines, "messages": world.messages(), "documents": world.documents()}.items():
        assert word not in text, where
    assert [name for name, text in world.objects(but=but).items() if word in text] == []


@pytest.fixture
def world() -> Attacked:
    """With a tokenizer in the models bucket, as a deployment has one."""
    made = Attacked()
    for name, body in tiny.files().items():
        made.put(f"{MODEL.replace('/', '--')}/{name}", body, MODELS)
    return made


# Intake


@pytest.mark.parametrize("on_invalid_row", ["fail", "quarantine"])
@pytest.mark.parametrize("kind", BROKEN)
def test_of_a_row_that_is_wrong_nothing_is_told_but_its_place(world: Attacked, kind: str, on_invalid_row: str) -> None:
    body = rows.jsonl([*GOOD[:6], BROKEN[kind], *GOOD[6:]])
    dataset = {"train": ["train.jsonl"], "on_invalid_row": on_invalid_row}
    with logged() as lines:
        run = world.drop(manifest(dataset=dataset, training={"max_seq_length": 256}), {"train.jsonl": body})
        dispatcher.fill(world.services)
    assert run.state in {RunState.QUEUED, RunState.REJECTED}
    assert (run.state is RunState.REJECTED) == (run.error is not None)
    said_nothing(world, lines.getvalue())


@pytest.mark.parametrize(
    "files",
    [
        {"train.jsonl": rows.jsonl(GOOD)},
        {"train.jsonl": rows.jsonl([BROKEN["text"]])},
        {"train.jsonl": WORD.encode()},
        {"train.jsonl": b"\x1f\x8b" + WORD.encode()},
        {"train.jsonl": rows.jsonl(GOOD), "val.jsonl": rows.jsonl(GOOD)},
        {"train.jsonl": rows.jsonl(GOOD), "val.jsonl": f"{WORD}\n".encode()},
    ],
)
def test_of_a_file_nothing_is_told_but_its_name(world: Attacked, files: dict[str, bytes]) -> None:
    dataset = {"train": ["train.jsonl"]} | ({"validation": ["val.jsonl"]} if "val.jsonl" in files else {})
    with logged() as lines:
        world.drop(manifest(dataset=dataset), files)
    said_nothing(world, lines.getvalue())


UNKNOWN = [
    {"hub_token": WORD},
    {"env": {"HF_TOKEN": WORD}},
    {"training": {"api_key": WORD}},
    {"wandb": [WORD, {"key": WORD}]},
    {"dataset": {"train": ["train.jsonl"], "password": WORD}},
]


@pytest.mark.parametrize("settings", UNKNOWN)
def test_the_value_of_a_setting_that_there_is_not_is_told_to_nobody(world: Attacked, settings: dict[str, Any]) -> None:
    """Somebody writes a key of his into the manifest, where other tools want it."""
    with logged() as lines:
        assert world.drop(manifest(**settings)).state is RunState.REJECTED
    said_nothing(world, lines.getvalue())


PLACES: list[Callable[[str], dict[str, Any]]] = [
    lambda word: {"name": word},
    lambda word: {"base_model": word},
    lambda word: {"labels": {word: word}},
    lambda word: {"method": word},
    lambda word: {"lora": {"target_modules": [word]}},
    lambda word: {"training": {"learning_rate": word}},
    lambda word: {"compute": {"accelerator": word, "timeout": word}},
    lambda word: {"export": [word]},
    lambda word: {"dataset": {"train": [f"{word}.jsonl"]}},
    lambda word: {"dataset": {"train": ["train.jsonl"], "columns": {"prompt": word, word: word}}},
    lambda word: {"dataset": {"train": ["train.jsonl"], "sha256": {word: word}}},
    lambda word: {"dataset": {"train": [f"../{word}"]}},
    lambda word: {word: word},
]


@pytest.mark.parametrize("place", PLACES)
def test_no_line_of_a_log_tells_what_stands_in_a_manifest(world: Attacked, place: Callable[[str], Any]) -> None:
    """What is wrong with it is told to whoever owns the run; a log is read by others."""
    with logged() as lines:
        world.drop(manifest(**place("canaryvalue")))
        dispatcher.fill(world.services)
    assert "canaryvalue" not in lines.getvalue()


def test_labels_are_kept_on_the_run_and_told_to_nobody(world: Attacked) -> None:
    with logged() as lines:
        run = world.drop(manifest(labels={"team": "canaryvalue"}))
    assert run.state is RunState.QUEUED
    assert "canaryvalue" not in lines.getvalue()
    assert "canaryvalue" not in world.messages()


@pytest.mark.parametrize(
    "error", [ValueError(WORD), KeyError(WORD), UnicodeDecodeError("utf-8", WORD.encode(), 0, 1, WORD)]
)
def test_what_intake_did_not_expect_is_logged_by_its_kind_and_place(
    world: Attacked, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object, **__: object) -> Any:
        try:
            raise error
        except Exception as cause:
            raise RuntimeError(f"of {WORD}") from cause

    monkeypatch.setattr(validation, "check_drop", breaks)
    with logged() as lines:
        try:
            world.drop(manifest())
        except RuntimeError:
            logging.getLogger("functions").exception("as the framework does")
    entry = json.loads(lines.getvalue().splitlines()[-1])
    assert "RuntimeError" in entry["exception"]
    assert type(error).__name__ in entry["exception"]
    assert "in breaks" in entry["exception"]
    said_nothing(world, lines.getvalue())


def test_of_an_exception_of_ours_the_text_is_told() -> None:
    with pytest.raises(Refused) as refused:
        parse_manifest(b"[]", file="manifest.yaml", folder="bot")
    assert logs.told(refused.value).endswith("\nRefused: manifest_not_a_mapping")
    circle = ValueError(WORD)
    circle.__context__ = KeyError(WORD)
    circle.__context__.__context__ = circle
    assert logs.told(circle).count("Traceback") == 2


# The trainer


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A base model that is trained in a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MODELS_DIR, str(tiny_model.lay(tmp_path_factory.mktemp("models"))))
        patch.setattr(evaluate, "NEW_TOKENS", 4)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)


def desk(body: bytes, **dataset: Any) -> Desk:
    made = Desk(
        training={"max_steps": 2, "batch_size": 4, "max_seq_length": 128}, lora={"r": 2},
        dataset={"train": ["train.jsonl"], **dataset}, labels={"canarykey": "canaryvalue"},
    )  # fmt: skip
    made.bucket.objects["train.jsonl"] = body
    return made


def told_by(made: Desk, lines: str, written: str) -> list[str]:
    """Where the word is: in what was logged and printed, on the run, and in what is published of it."""
    run = made.run.model_dump_json(exclude={"manifest"})
    beside = {name: body.decode("utf-8", "replace") for name, body in made.bucket.objects.items()}
    theirs = {"train.jsonl", "samples.jsonl", "README.md", "quarantined.jsonl"}
    texts = {name: text for name, text in beside.items() if name.rsplit("/", 1)[-1] not in theirs}
    texts |= {"log": lines, "written": written, "run": run}
    return [where for where, text in texts.items() if WORD in text]


@pytest.mark.usefixtures("small")
def test_a_training_tells_nothing_of_what_it_trains_on(capfd: pytest.CaptureFixture[str]) -> None:
    made = desk(rows.jsonl(GOOD))
    with logged() as lines:
        assert made.attempt() == 0
    assert made.run.state is RunState.SUCCEEDED, made.run.error
    written = "".join(capfd.readouterr())
    assert told_by(made, lines.getvalue(), written) == []
    assert "canaryvalue" not in lines.getvalue() + written
    assert WORD in made.delivered("README.md").decode()  # the samples, for whoever owns the adapter


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("on_invalid_row", ["fail", "quarantine"])
def test_what_the_trainer_refuses_is_told_by_its_place(on_invalid_row: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Intake looked at it before; the trainer looks again."""
    made = desk(rows.jsonl([*GOOD, *BROKEN.values()]), on_invalid_row=on_invalid_row)
    with logged() as lines:
        assert made.attempt() == 0
    assert made.run.state is (RunState.FAILED if on_invalid_row == "fail" else RunState.SUCCEEDED), made.run.error
    assert told_by(made, lines.getvalue(), "".join(capfd.readouterr())) == []


BREAKING: list[tuple[Any, str]] = [
    (data, "bound"),
    (data, "split"),
    (train, "load_base"),
    (train, "with_lora"),
    (evaluate, "measure"),
    (artifacts, "write"),
]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("module", "name"), BREAKING, ids=[name for _, name in BREAKING])
def test_what_breaks_a_training_is_told_by_its_kind_and_place(
    module: Any, name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def breaks(*_: object, **__: object) -> Any:
        try:
            raise KeyError(WORD)
        except KeyError as cause:
            raise RuntimeError(f"of {WORD}") from cause

    assert callable(getattr(module, name))
    monkeypatch.setattr(module, name, breaks)
    made = desk(rows.jsonl(GOOD))
    with logged() as lines:
        assert made.attempt() == 1
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert made.run.state is RunState.QUEUED
    assert "RuntimeError at test_threats_secrets.py" in made.run.state_reason
    assert told_by(made, lines.getvalue(), "".join(capfd.readouterr())) == []


def test_a_word_that_was_told_would_be_found(world: Attacked) -> None:
    """Planted in each place, one after the other."""
    run = world.drop(manifest())
    said_nothing(world, "")
    with pytest.raises(AssertionError, match="log"):
        said_nothing(world, f"a line with {WORD}")
    world.edit(run.run_id, state_reason=WORD)
    with pytest.raises(AssertionError, match="documents"):
        said_nothing(world, "")
    world.edit(run.run_id, state_reason="")
    world.put("acme/bot/STATUS.json", WORD.encode())
    with pytest.raises(AssertionError, match="STATUS"):
        said_nothing(world, "")
