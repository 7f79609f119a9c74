"""Checking a dataset whole, held against reading it alone: datasets' JSON loader, and a bare typed decode by msgspec.

Each measurement is a process of its own; its memory, with that of its workers, is looked at fifty times a second. Ours
and the peers take turns, and the best of each counts, since other work on the machine can only slow one down. Imports
are not counted.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from adaptml.dataset.check import DataSource, check_rows, conclude, terms_of
from benchmarks.figure import show
from schemas.manifest import Manifest

MEMORY_MIB = 256
"""What the product promises to stay under, whatever the size."""
DATASETS, MSGSPEC = 'datasets.load_dataset("json")', "msgspec typed decode, line by line"
LIMIT_S = 1800
NETWORK = 100_000_000
"""Bytes a second: what one stream from a bucket gives, roughly."""


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dataset_check", description=__doc__)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[200, 1000], help="(default: 200 1000)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        what, file = options.measure
        print(json.dumps({"seconds": MEASURES[what](Path(file))}))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        for megabytes in options.megabytes:
            file = Path(scratch) / f"chat-{megabytes}.jsonl"
            write_chat(file, megabytes * 1_000_000)
            compare(file, options.rounds)
            if megabytes == min(options.megabytes):
                overlap(file, options.rounds)
            file.unlink()
    return 0


def compare(file: Path, rounds: int) -> None:
    """Prints the figures of one file."""
    size = file.stat().st_size / 1e6
    results: dict[str, list[dict[str, float]]] = {what: [] for what in MEASURES}
    for _ in range(rounds):
        for what in MEASURES:
            results[what].append(_in_process(what, file))
    speed = {what: size / min(r["seconds"] for r in found) for what, found in results.items()}
    name = f"full validation of {size:,.0f} MB of chat JSONL"
    show(f"{name}, throughput", speed["ours"], speed["datasets"], DATASETS, "MB/s")
    show(f"{name}, throughput", speed["ours"], speed["msgspec"], MSGSPEC, "MB/s")
    peak = max(r["peak_mib"] for r in results["ours"])
    show(f"{name}, peak memory", peak, MEMORY_MIB, "the promised limit", "MiB")
    show(f"{name}, peak memory", peak, max(r["peak_mib"] for r in results["datasets"]), DATASETS, "MiB")


class Slow(io.RawIOBase):
    """A file that arrives at NETWORK bytes a second, as from a bucket; waiting for it takes no processor."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("rb")
        self._started = time.perf_counter()
        self._given = 0

    def read(self, size: int = -1) -> bytes:
        """The next bytes, not before their time."""
        chunk = self._file.read(size)
        self._given += len(chunk)
        time.sleep(max(0.0, self._started + self._given / NETWORK - time.perf_counter()))
        return chunk


def overlap(file: Path, rounds: int) -> None:
    """Prints how long the check of a file takes that is still arriving, beside its arrival alone."""
    took = min(_check_s(file, lambda: Slow(file)) for _ in range(rounds))
    size = file.stat().st_size
    name = f"validation of {size / 1e6:,.0f} MB while they arrive at {NETWORK / 1e6:.0f} MB/s, time"
    show(name, took, size / NETWORK, "their arrival alone", "s")


def _in_process(what: str, file: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.dataset_check", "--measure", what, str(file)]
    process = psutil.Popen(command, stdout=subprocess.PIPE, text=True)
    peak, deadline = 0.0, time.monotonic() + LIMIT_S
    while process.poll() is None and time.monotonic() < deadline:
        peak = max(peak, _resident_mib(process))
        time.sleep(0.02)
    output, _ = process.communicate(timeout=10)
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    return found | {"peak_mib": peak}


def _resident_mib(process: psutil.Popen) -> float:
    """Of a process and all that it has started; pages that they share count for each."""
    try:
        family = [process, *process.children(recursive=True)]
        return sum(member.memory_info().rss for member in family) / 2**20
    except psutil.Error:
        return 0.0  # it ended meanwhile


def _ours(file: Path) -> float:
    return _check_s(file, lambda: file.open("rb"))


def _check_s(file: Path, opened: Callable[[], io.IOBase]) -> float:
    """Seconds that a check of every row takes."""
    manifest = Manifest.model_validate(
        {"name": "bench", "base_model": "google/gemma-2b-it", "dataset": {"train": [file.name]}}
    )
    source = DataSource(file.name, "train", file.stat().st_size, opened)
    started = time.perf_counter()
    report = check_rows([source], manifest.dataset, terms_of(manifest))
    conclude(report, manifest.dataset)
    seconds = time.perf_counter() - started
    assert not report.errors
    assert report.examples["train"] > 100_000
    return seconds


def _msgspec(file: Path) -> float:
    import msgspec

    message = msgspec.defstruct("Message", [("role", str), ("content", str)])
    decoder = msgspec.json.Decoder(msgspec.defstruct("Row", [("messages", list[message])]))  # type: ignore[valid-type]
    started = time.perf_counter()
    with file.open("rb") as lines:
        for line in lines:
            decoder.decode(line)
    return time.perf_counter() - started


def _datasets(file: Path) -> float:
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    import datasets

    with tempfile.TemporaryDirectory(dir=file.parent) as cache:
        started = time.perf_counter()
        datasets.load_dataset("json", data_files=str(file), cache_dir=cache, split="train")
        return time.perf_counter() - started


MEASURES: dict[str, Callable[[Path], float]] = {"ours": _ours, "msgspec": _msgspec, "datasets": _datasets}


def write_chat(file: Path, size: int) -> None:
    """About `size` bytes of conversations with prose of made-up words, code, quotes, and letters beyond ASCII."""
    with file.open("wb") as target:
        while target.tell() < size:
            target.writelines(_lines(1000, seed=target.tell()))


def _lines(count: int, seed: int) -> Iterator[bytes]:
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(2000)]
    words += ["naïve", "Größe", "“quoted”", "it's", '"said"', "x = [1, 2];", "C:\\temp", "<b>", "42", "£9.99"]
    for number in range(count):
        messages: list[dict[str, Any]] = []
        if number % 3 == 0:
            messages.append({"role": "system", "content": "You help the customers of a shop."})
        for _ in range(rng.randint(1, 4)):
            messages.append({"role": "user", "content": f"{' '.join(rng.choices(words, k=rng.randint(5, 40)))}?"})
            answer = [" ".join(rng.choices(words, k=rng.randint(10, 60))) for _ in range(rng.randint(1, 3))]
            messages.append({"role": "assistant", "content": ".\n\n".join(answer)})
        yield json.dumps({"messages": messages}, ensure_ascii=number % 2 == 0).encode() + b"\n"


if __name__ == "__main__":
    sys.exit(main())
