from __future__ import annotations

import io
import os
from concurrent.futures import Future

import numpy as np
import pytest

from adaptml.dataset import check, native
from adaptml.dataset.check import DataSource, check_rows
from adaptml.dataset.chunk import Chunk
from adaptml.dataset.fast import FastPath
from adaptml.dataset.fingerprints import Prints
from adaptml.dataset.report import Report
from adaptml.dataset.terms import Terms
from adaptml.dataset.usual import Setup
from adaptml.dataset.workers import MOST_THREADS, Workers
from schemas.manifest import Dataset
from tests.cloud import chat_rows
from tests.unit.rows import chunks_of

SETUP = Setup("messages", ("messages",), Terms(control_tokens=("<|im_end|>",), model="m"))
ROWS = chat_rows(60).encode() + b"{]\n" + chat_rows(3, "mail me: a.b@corp.io").encode()


def test_threads_say_what_one_says() -> None:
    with Workers() as running:
        running.start(SETUP)
        answers: list[Future[Prints]] = [running.begin(Chunk(1, ROWS)) for _ in range(50)]
        expected = FastPath(SETUP).certify(Chunk(1, ROWS))
        assert all(np.array_equal(answer.result(timeout=60), expected) for answer in answers)


def test_the_report_does_not_depend_on_how_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"".join([chat_rows(900).encode(), ROWS] * 40)

    def report(cores: int) -> Report:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
        source = DataSource("train.jsonl", "train", len(data), lambda: io.BytesIO(data))
        with chunks_of(100_000):
            return check_rows([source], Dataset(train=["train.jsonl"]), SETUP.terms)

    assert report(1) == report(3)


def test_as_many_as_there_are_cores_but_not_very_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "certify", lambda *_: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(2)))
    assert Workers().at_once == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert Workers().at_once == MOST_THREADS + 1
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert Workers().at_once == 3
    monkeypatch.setattr(native, "certify", None)
    assert Workers().at_once == 2


def test_they_end_with_the_check_also_where_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[Workers] = []
    leave = Workers.__exit__

    def leaving(self: Workers, *error: object) -> None:
        leave(self, *error)  # type: ignore[arg-type]
        ended.append(self)

    def fails(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Workers, "__exit__", leaving)
    monkeypatch.setattr(check, "_check_file", fails)
    source = DataSource("train.jsonl", "train", 5, io.BytesIO)
    with pytest.raises(MemoryError):
        check_rows([source], Dataset(train=["train.jsonl"]), SETUP.terms)
    (workers,) = ended
    workers.start(SETUP)
    with pytest.raises(RuntimeError):
        workers.begin(Chunk(1, ROWS))
