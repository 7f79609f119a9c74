from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Future

import psutil
import pytest

from adaptml.dataset import workers
from adaptml.dataset.check import DataSource, check_rows
from adaptml.dataset.chunk import Chunk
from adaptml.dataset.fast import FastPath, Setup
from adaptml.dataset.report import Report
from adaptml.dataset.terms import Terms
from adaptml.dataset.workers import Certified, Workers
from schemas.manifest import Dataset
from tests.cloud import chat_rows, eventually

SETUP = Setup("messages", ("messages",), Terms(control_tokens=("<|im_end|>",), model="m"))
ROWS = chat_rows(60).encode() + b"{]\n" + chat_rows(3, "mail me: a.b@corp.io").encode()


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children() if "adaptml.dataset.worker" in child.cmdline()}


def same(one: Certified, other: Certified) -> bool:
    return one.ends.tolist() == other.ends.tolist() and one.prints.tolist() == other.prints.tolist()


def in_process() -> Certified:
    chunk = Chunk(1, ROWS)
    return Certified(chunk.ends, FastPath(SETUP).certify(chunk))


@pytest.fixture
def started() -> Iterator[Workers]:
    with Workers(1) as running:
        running.start(SETUP)
        yield running


def test_a_process_says_what_is_said_here(started: Workers) -> None:
    eventually(lambda: started._idle.qsize() == 3, what=lambda: "the process is not there")
    answers = [started.begin(Chunk(1, ROWS)).result(timeout=60) for _ in range(10)]  # in turns
    assert all(same(answer, in_process()) for answer in answers)


def test_a_process_that_is_killed_costs_no_answer(started: Workers) -> None:
    answers: list[Future[Certified]] = []
    for number in range(60):
        answers.append(started.begin(Chunk(1, ROWS)))
        if number == 20:
            (pid,) = children()
            os.kill(pid, signal.SIGKILL)
    assert all(same(answer.result(timeout=60), in_process()) for answer in answers)


def test_no_process_is_left_behind() -> None:
    with Workers(2) as running:
        running.start(SETUP)
        running.begin(Chunk(1, ROWS)).result(timeout=60)
        assert len(children()) == 2
    assert children() == set()


def test_a_process_that_cannot_be_started_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with Workers(1) as running:
        running.start(SETUP)
        answers = [running.begin(Chunk(1, ROWS)).result(timeout=60) for _ in range(5)]
    assert all(same(answer, in_process()) for answer in answers)


def test_a_large_file_is_checked_by_processes_with_the_same_report(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"".join([chat_rows(900).encode(), ROWS] * 40)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})

    def report(limit: int) -> Report:
        monkeypatch.setattr(workers, "WORTH_IT", limit)
        source = DataSource("train.jsonl", "train", len(data), lambda: io.BytesIO(data))
        return check_rows([source], Dataset(train=["train.jsonl"]), SETUP.terms)

    assert report(0) == report(len(data) + 1)


@pytest.mark.parametrize(
    ("names", "started"),
    [
        (["a.jsonl"], 1),
        (["a.JSONL.gz", "b.csv"], 1),
        (["a.csv", "b.tsv.gz", "c.parquet"], 0),
        (["a.json"], 0),
    ],
)
def test_processes_start_only_for_files_whose_rows_they_see(
    names: list[str], started: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    counts: list[int] = []
    enter = Workers.__enter__

    def entered(self: Workers) -> Workers:
        counts.append(self._count)
        return enter(self)

    monkeypatch.setattr(Workers, "__enter__", entered)
    sources = [DataSource(name, "train", workers.WORTH_IT, io.BytesIO) for name in names]
    check_rows(sources, Dataset(train=names), SETUP.terms)
    assert counts == [started]


def test_small_data_starts_no_process() -> None:
    assert Workers.for_bytes(workers.WORTH_IT - 1)._count == 0
