from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from tests.unit.small import Small
from trainer.snapshot import Unreadable, keep_best, put_best, read, restore, write

MINE = "fingerprint"


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("snapshot") / "s"
    write(Small.made().go(4).snapshot(), path, MINE)
    return path.read_bytes()


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("at", [1, 2, 7])
def test_training_that_goes_on_from_a_file_is_the_same_to_the_last_bit(at: int, tmp_path: Path) -> None:
    whole = Small.made().go(12)
    digest = write(Small.made().go(at).snapshot(), tmp_path / "s", MINE)
    other = Small.made().going_on_from(read((tmp_path / "s").read_bytes(), digest, MINE))
    assert other.position.step == at
    other.go(12 - at)
    assert torch.equal(other.weights(), whole.weights())
    assert other.position == whole.position
    assert other.scheduler.get_last_lr() == whole.scheduler.get_last_lr()


def test_a_snapshot_is_not_changed_by_the_steps_that_follow() -> None:
    training = Small.made().go(3)
    before = training.snapshot()
    kept = {name: tensor.clone() for name, tensor in before.tensors.items()}
    training.go(3)
    assert all(torch.equal(before.tensors[name], tensor) for name, tensor in kept.items())
    assert Small.made().going_on_from(before).position.points == [p for p in training.position.points if p["step"] <= 3]


def test_the_best_adapter_so_far_goes_with_it(tmp_path: Path) -> None:
    training = Small.made().go(3)
    best = training.weights()
    keep_best(training.model, training.position)
    digest = write(training.go(2).snapshot(), tmp_path / "s", MINE)
    other = Small.made().going_on_from(read((tmp_path / "s").read_bytes(), digest, MINE)).go(2)
    assert not torch.equal(other.weights(), best)
    assert put_best(other.model, other.position) == 3
    assert torch.equal(other.weights(), best)
    # And once more: a snapshot of what went on from a snapshot.
    again = Small.made().going_on_from(other.snapshot())
    assert put_best(again.model, again.position) == 3
    assert torch.equal(again.weights(), best)


def test_a_better_one_takes_its_place() -> None:
    training = Small.made()
    for _ in range(2):
        keep_best(training.go(2).model, training.position)
    best = training.weights()
    training = Small.made().going_on_from(training.go(1).snapshot())
    assert put_best(training.model, training.position) == 4
    assert torch.equal(training.weights(), best)


def test_where_none_was_kept_the_last_stays() -> None:
    training = Small.made().go(3)
    last = training.weights()
    assert put_best(training.model, training.position) == 3
    assert torch.equal(training.weights(), last)
    assert not [name for name in training.snapshot().tensors if name.startswith("best/")]


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_snapshot_without_the_best_adapter_that_it_speaks_of_changes_nothing(damage: str) -> None:
    training = Small.made().go(2)
    keep_best(training.model, training.position)
    saved = training.snapshot()
    tensors = {name: tensor for name, tensor in saved.tensors.items() if name != "best/1.weight"}
    if damage == "cut":
        tensors["best/1.weight"] = saved.tensors["best/1.weight"][:-1]
    before = training.go(1).weights()
    with pytest.raises(Unreadable, match=r"best/1\.weight is missing, or of another shape"):
        training.going_on_from(dataclasses.replace(saved, tensors=tensors))
    assert torch.equal(training.weights(), before)


def test_any_program_that_reads_safetensors_reads_it(body: bytes, tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(body)
    with safe_open(tmp_path / "s", framework="pt") as file:
        assert file.metadata()["step"] == "4"
        assert "weights/1.weight" in file.keys()  # noqa: SIM118 - it is no dict


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_changed_byte_is_found(body: bytes, data: st.DataObject) -> None:
    at, mask = data.draw(st.integers(0, len(body) - 1)), data.draw(st.integers(1, 255))
    damaged = bytearray(body)
    damaged[at] ^= mask
    with pytest.raises(Unreadable, match="not those that were written"):
        read(bytes(damaged), sha256(body), MINE)


@settings(deadline=None)
@given(st.data())
def test_a_file_that_is_cut_off_or_goes_on_is_found(body: bytes, data: st.DataObject) -> None:
    damaged = data.draw(
        st.one_of(st.integers(0, len(body) - 1).map(lambda n: body[:n]), st.binary(min_size=1).map(body.__add__))
    )
    with pytest.raises(Unreadable):
        read(damaged, sha256(body), MINE)


@settings(deadline=None, max_examples=500)
@given(st.data())
def test_where_the_checksum_was_made_of_the_damage_nothing_else_is_raised(body: bytes, data: st.DataObject) -> None:
    """Damage in the header: in the tensors, the format alone would not know of it."""
    header = 8 + int.from_bytes(body[:8], "little")
    at, bytes_ = data.draw(st.integers(0, header - 1)), data.draw(st.binary(min_size=1, max_size=9))
    damaged = body[:at] + bytes_ + body[at + len(bytes_) :]
    training = Small.made()
    before = training.weights()
    try:
        training.going_on_from(read(damaged, sha256(damaged), MINE))
    except Unreadable:
        assert torch.equal(training.weights(), before)


@pytest.mark.parametrize("other", [b"", b"12345678", b"[" * 99, b"PK\x03\x04", (1 << 62).to_bytes(8, "little") + b"{}"])
def test_anything_else_is_no_checkpoint(other: bytes) -> None:
    with pytest.raises(Unreadable):
        read(other, sha256(other), MINE)


def test_a_snapshot_of_another_training_is_refused(body: bytes) -> None:
    with pytest.raises(Unreadable, match="of another training"):
        read(body, sha256(body), "another")


def test_a_snapshot_of_another_shape_changes_nothing() -> None:
    training, other = Small.made().go(2), Small.made(hidden=5).go(2)
    before = training.weights()
    with pytest.raises(Unreadable, match="another shape"):
        restore(other.snapshot(), training.model, training.optimizer, training.scheduler)
    assert torch.equal(training.weights(), before)


def test_notes_of_another_version_change_nothing() -> None:
    training = Small.made().go(2)
    notes = '{"schedule": {}, "before": null, "patience": null, "momentum": 1}'
    saved = dataclasses.replace(training.snapshot(), notes=notes)
    before = training.go(1).weights()
    with pytest.raises(Unreadable, match="not those of this version"):
        training.going_on_from(saved)
    assert torch.equal(training.weights(), before)
