"""Checking a dataset whole, held against reading it alone: datasets' JSON loader, and a bare typed decode by msgspec.

Each measurement is a process of its own, so that its peak memory is its own; ours and the peers take turns, and the
best of each counts, since other work on the machine can only slow one down. Imports are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.figure import show

MEMORY_MIB = 256
"""What the product promises to stay under, whatever the size."""
DATASETS, MSGSPEC = 'datasets.load_dataset("json")', "msgspec typed decode, line by line"
LIMIT_S = 1800


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dataset_check", description=__doc__)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[200, 1000], help="(default: 200 1000)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        what, file = options.measure
        seconds = MEASURES[what](Path(file))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "peak_mib": peak}))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        for megabytes in options.megabytes:
            file = Path(scratch) / f"chat-{megabytes}.jsonl"
            write_chat(file, megabytes * 1_000_000)
            compare(file, options.rounds)
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


def _in_process(what: str, file: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.dataset_check", "--measure", what, str(file)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=LIMIT_S)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _ours(file: Path) -> float:
    from adaptml.dataset.check import DataSource, check_rows, conclude, terms_of
    from schemas.manifest import Manifest

    manifest = Manifest.model_validate(
        {"name": "bench", "base_model": "google/gemma-2b-it", "dataset": {"train": [file.name]}}
    )
    source = DataSource(file.name, "train", file.stat().st_size, lambda: file.open("rb"))
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
