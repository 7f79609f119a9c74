from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import layout
from schemas.catalogue import CATALOGUE
from schemas.errors import Refused
from schemas.manifest import Manifest
from schemas.run import Checkpoint, Run
from schemas.run_states import RunState
from tests.unit.bucket import Bucket
from tests.unit.small import Small
from tests.unit.test_protocol import run
from trainer.attempt import Attempt
from trainer.checkpoint import Checkpoints, Kept, file_name, fingerprint
from trainer.packing import Tokens
from trainer.snapshot import Position

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MINE = "fingerprint"


@dataclass
class Desk:
    """An attempt as far as checkpoints need it, and its bucket."""

    run: Run
    bucket: Bucket = field(default_factory=Bucket)
    every_s: float = 0.0
    seconds_left: float = 60.0
    told: list[Checkpoint] = field(default_factory=list)

    @classmethod
    def of(cls, bucket: Bucket | None = None, **fields: Any) -> Desk:
        return cls(run(RunState.TRAINING, **{"epoch": 1, **fields}), bucket or Bucket())

    def saved(self, checkpoint: Checkpoint) -> None:
        self.told.append(checkpoint)

    @property
    def services(self) -> Any:
        chosen = SimpleNamespace(artifacts_bucket="a", checkpoint_every_s=self.every_s)
        return SimpleNamespace(objects=self.bucket, settings=chosen, now=lambda: NOW)

    def checkpoints(self, fingerprint: str = MINE) -> Checkpoints:
        return Checkpoints(cast(Attempt, self), fingerprint)

    @property
    def steps(self) -> list[int]:
        """Of the checkpoints in the bucket."""
        parsed = [Kept.parse(name, NOW) for name in self.bucket.objects]
        return sorted(kept.step for kept in parsed if kept)


def trained(checkpoints: Checkpoints, *steps: int) -> Small:
    """A training that saved these steps."""
    training = Small.made()
    for step in steps:
        checkpoints.save(training.go(step - training.position.step).snapshot())
    return training


def go_on(desk: Desk, fingerprint: str = MINE) -> Position | None:
    training = Small.made()
    return desk.checkpoints(fingerprint).go_on(training.model, training.optimizer, training.scheduler)


def step(position: Position | None) -> int | None:
    return position.step if position else None


# Saving


def test_the_last_two_are_kept() -> None:
    desk = Desk.of()
    trained(desk.checkpoints(), 1, 2, 5, 6)
    assert desk.steps == [5, 6]
    assert [told.step for told in desk.told] == [1, 2, 5, 6]
    assert desk.told[-1].object in desk.bucket.objects
    assert desk.told[-1].object.startswith("t/bot/.checkpoints/r/e0001-s0000006-")


def test_what_is_gone_on_from_is_kept_until_there_are_two_newer_ones() -> None:
    desk = Desk.of()
    trained(desk.checkpoints(), 2, 4)
    checkpoints, training = desk.checkpoints(), Small.made()
    training.position = checkpoints.go_on(training.model, training.optimizer, training.scheduler) or Position()
    checkpoints.save(training.go(1).snapshot())
    assert desk.steps == [4, 5]
    checkpoints.save(training.go(1).snapshot())
    assert desk.steps == [5, 6]


def test_nothing_of_another_run_or_of_another_kind_is_deleted() -> None:
    theirs = layout.checkpoint_prefix("t", "bot", "r2") + file_name(1, 1, "0" * 64)
    note = layout.checkpoint_prefix("t", "bot", "r") + "note.txt"
    desk = Desk.of(Bucket({theirs: b"", note: b""}))
    trained(desk.checkpoints(), 2, 3, 4)
    assert desk.bucket.objects.keys() >= {theirs, note}


def test_two_executions_write_two_objects() -> None:
    first, second = Desk.of(), Desk.of(epoch=2)
    for desk in (first, second):
        trained(desk.checkpoints(), 3)
    assert not first.bucket.objects.keys() & second.bucket.objects.keys()


def test_a_step_is_saved_once() -> None:
    desk = Desk.of()
    checkpoints = desk.checkpoints()
    training = trained(checkpoints, 2)
    checkpoints.save(training.snapshot())
    assert len(desk.told) == 1


def test_before_its_time_not_even_a_copy_is_made() -> None:
    desk = Desk.of()
    desk.every_s = 1000
    desk.checkpoints().save_if_due(lambda: pytest.fail("in vain"))


def test_an_upload_that_is_slower_than_the_period_skips_one() -> None:
    goes_on = threading.Event()
    desk = Desk.of(Bucket(before_upload=lambda _: goes_on.wait(30) and None))
    checkpoints, training = desk.checkpoints(), Small.made()
    checkpoints.save_if_due(training.go(1).snapshot)
    checkpoints.save_if_due(lambda: pytest.fail("the one before is on its way"))
    goes_on.set()
    checkpoints.save(training.go(1).snapshot())
    assert desk.steps == [1, 2]


def test_an_older_one_that_arrives_late_is_not_the_last_and_deletes_nothing() -> None:
    goes_on = threading.Event()

    def wait_with_the_first(name: str) -> None:
        if "-s0000001-" in name:
            goes_on.wait(30)

    desk = Desk.of(Bucket(before_upload=wait_with_the_first))
    checkpoints, training = desk.checkpoints(), Small.made()
    checkpoints.save_if_due(training.go(1).snapshot)
    threading.Timer(1.0, goes_on.set).start()
    checkpoints.save(training.go(1).snapshot())
    assert [told.step for told in desk.told] == [2]
    assert desk.steps == [1, 2]


def test_an_upload_that_hangs_does_not_keep_an_attempt_that_has_to_leave(caplog: pytest.LogCaptureFixture) -> None:
    goes_on = threading.Event()
    desk = Desk.of(Bucket(before_upload=lambda _: goes_on.wait(30) and None))
    desk.seconds_left = 0.0
    began = time.monotonic()
    desk.checkpoints().save(Small.made().go(1).snapshot())
    assert time.monotonic() - began < 10
    assert "leaving without a checkpoint of step 1" in caplog.text
    goes_on.set()


def test_an_upload_that_failed_is_logged_and_tried_again_when_it_matters(caplog: pytest.LogCaptureFixture) -> None:
    failures = iter([ConnectionError("the text of an error is not logged")])

    def fail_once(_: str) -> None:
        for failure in failures:
            raise failure

    desk = Desk.of(Bucket(before_upload=fail_once))
    checkpoints, training = desk.checkpoints(), Small.made().go(1)
    checkpoints.save_if_due(training.snapshot)
    for thread in threading.enumerate():
        if thread.name == "checkpoint":
            thread.join()
    assert "the checkpoint of step 1 was not saved: ConnectionError" in caplog.text
    assert "the text of an error" not in caplog.text
    checkpoints.save(training.snapshot())
    assert desk.steps == [1]


# Going on


def test_where_there_is_none_training_begins() -> None:
    assert go_on(Desk.of()) is None


def test_the_newest_is_taken_whatever_the_document_knows() -> None:
    desk = Desk.of()
    trained(desk.checkpoints(), 3, 4)
    desk.run = desk.run.model_copy(update={"checkpoint": desk.told[0]})
    assert step(go_on(desk)) == 4
    assert desk.told[-1].step == 4


def damaged(body: bytes, data: st.DataObject) -> bytes:
    """Cut off, or with one other byte."""
    at = data.draw(st.integers(0, len(body) - 1))
    if data.draw(st.booleans()):
        return body[:at]
    return body[:at] + bytes([body[at] ^ data.draw(st.integers(1, 255))]) + body[at + 1 :]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_instead_of_a_damaged_one_the_one_before_is_taken(data: st.DataObject) -> None:
    desk = Desk.of()
    trained(desk.checkpoints(), 3, 4)
    before, newest = desk.told
    desk.run = desk.run.model_copy(update={"checkpoint": newest})
    desk.bucket.objects[newest.object] = damaged(desk.bucket.objects[newest.object], data)
    assert step(go_on(desk)) == 3
    assert desk.told[-1].step == 3  # the document is put right
    desk.bucket.objects[before.object] = damaged(desk.bucket.objects[before.object], data)
    assert go_on(desk) is None


def test_the_checkpoint_of_the_run_that_is_taken_up_lies_elsewhere() -> None:
    old = Desk.of()
    trained(old.checkpoints(), 3, 4)
    new = Desk.of(old.bucket, run_id="r2", checkpoint=old.told[-1])
    assert step(go_on(new)) == 4
    trained(new.checkpoints(), 6, 7, 8)
    assert old.steps == [3, 4, 7, 8]
    assert step(go_on(new)) == 8


def test_where_the_checkpoint_that_was_promised_is_damaged_the_one_before_it_is_taken() -> None:
    old = Desk.of()
    trained(old.checkpoints(), 3, 4)
    old.bucket.objects[old.told[-1].object] += b"!"
    assert step(go_on(Desk.of(old.bucket, run_id="r2", checkpoint=old.told[-1]))) == 3


@pytest.mark.parametrize("lost", ["deleted", "damaged", "of another training"])
def test_what_was_promised_and_is_lost_fails_the_run(lost: str, caplog: pytest.LogCaptureFixture) -> None:
    old = Desk.of()
    trained(old.checkpoints(), 4)
    promised = old.told[-1]
    source = old.run.source.model_copy(update={"resumes": "r"})
    new = Desk.of(old.bucket, run_id="r2", checkpoint=promised, source=source)
    if lost == "deleted":
        del old.bucket.objects[promised.object]
    elif lost == "damaged":
        old.bucket.objects[promised.object] += b"!"
    with pytest.raises(Refused) as refused:
        go_on(new, "another" if lost == "of another training" else MINE)
    assert [found.code for found in refused.value.problems] == ["checkpoint_gone"]
    assert "the checkpoint of step 4" in caplog.text


def test_what_was_lost_and_promised_to_nobody_is_trained_again(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk.of(checkpoint=Checkpoint(step=4, object="gone", saved_at=NOW))
    assert go_on(desk) is None
    assert "training starts from the beginning" in caplog.text


def test_a_run_that_takes_up_one_without_a_checkpoint_begins() -> None:
    desk = Desk.of()
    desk.run = desk.run.model_copy(update={"source": desk.run.source.model_copy(update={"resumes": "r0"})})
    assert go_on(desk) is None


def test_a_bucket_that_does_not_answer_is_no_damage() -> None:
    """The attempt ends and is tried again; what was done is not thrown away."""
    desk = Desk.of()
    trained(desk.checkpoints(), 4)

    def fail(*_: object) -> bytes:
        raise ConnectionError

    desk.bucket.read = fail  # type: ignore[assignment]
    with pytest.raises(ConnectionError):
        go_on(desk)


# Fingerprints

MANIFEST = {"name": "bot", "base_model": "google/gemma-2b-it", "dataset": {"train": ["a.jsonl"]}}
DATA = (Tokens([1, 2, 3], [-100, 2, 3]), Tokens([4], [4]))


def print_of(data: tuple[Tokens, ...] = DATA, held_out: tuple[Tokens, ...] = (), **parts: Any) -> str:
    manifest = Manifest.model_validate(MANIFEST | parts)
    return fingerprint(manifest, CATALOGUE[manifest.base_model], data, held_out)


@pytest.mark.parametrize(
    "other",
    [
        print_of(base_model="HuggingFaceTB/SmolLM2-135M-Instruct"),
        print_of(method="lora"),
        print_of(lora={"r": 8}),
        print_of(training={"seed": 1}),
        print_of(DATA[::-1]),
        print_of(DATA[:1]),
        print_of(DATA[:1], DATA[1:]),
        print_of((Tokens([1, 2, 3], [1, 2, 3]), DATA[1])),
        print_of((Tokens([1, 2], [-100, 2]), Tokens([3, 4], [3, 4]))),
    ],
)
def test_a_fingerprint_is_of_all_that_training_follows_from(other: str) -> None:
    assert other != print_of()


def test_limits_names_and_labels_are_not_in_it() -> None:
    same = print_of(name="b", compute={"timeout": "2h", "max_cost_usd": 9}, labels={"team": "x"})
    assert same == print_of()
