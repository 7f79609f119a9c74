"""Coverage-guided fuzzing of everything that reads what users send: the manifest and each format of data.

    python -m tests.fuzz [TARGET …] --runs 1000000 [--seconds 600]
    python -m tests.fuzz TARGET --replay FILE

libFuzzer ends its process when it is done, or when an input raises, takes too long or takes too much memory: each
target has processes of its own. Such inputs are kept in .local/fuzz.
"""

from __future__ import annotations

import argparse
import math
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

KEPT = Path(".local/fuzz")
SECONDS_OF_AN_INPUT = 5
"""Of work. Of waiting ten times as much, since the machine may have other things to do."""
MEMORY_MB = 1024
RUNS_OF_A_PROCESS = 20_000
"""Code that atheris instruments leaves some kilobytes behind with each input; the same code as it is leaves none."""
MOST_BYTES = 4096
NAMES = (
    *("manifest", "inline", "jsonl", "json", "csv", "tsv", "parquet"),
    *("jsonl.gz", "json.gz", "csv.gz", "parquet.gz", "differential"),
)


@dataclass(frozen=True)
class Outcome:
    """What became of fuzzing one target."""

    inputs: int = 0
    seconds: float = 0.0
    peak_mb: int = 0
    found: tuple[str, ...] = ()
    """Files with inputs that went wrong, or what else did."""

    def then(self, other: Outcome) -> Outcome:
        """Of both, one after the other."""
        peak_mb = max(self.peak_mb, other.peak_mb)
        return Outcome(self.inputs + other.inputs, self.seconds + other.seconds, peak_mb, self.found + other.found)


def main() -> int:
    """The exit status: 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument("--runs", type=int, default=100_000, help="inputs, of all targets together")
    parser.add_argument("--seconds", type=int, default=0, help="at most, of all targets together")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="one input once more, without libFuzzer")
    parser.add_argument("--libfuzzer", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if unknown := set(given.targets) - set(NAMES):
        parser.error(f"there is no target {', '.join(unknown)}")
    targets = given.targets or list(NAMES)
    if given.libfuzzer is not None:
        _become_libfuzzer(targets[0], given.libfuzzer)
    if given.replay is not None:
        from tests.fuzz.targets import TARGETS

        TARGETS[targets[0]](given.replay.read_bytes())
        return 0
    for ended_by in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ended_by, lambda number, _: sys.exit(128 + number))
    KEPT.mkdir(parents=True, exist_ok=True)
    outcomes = [_fuzzed(name, -(-given.runs // len(targets)), given.seconds // len(targets)) for name in targets]
    inputs, seconds = sum(outcome.inputs for outcome in outcomes), sum(outcome.seconds for outcome in outcomes)
    found = sum(len(outcome.found) for outcome in outcomes)
    print(f"{'together':14} {inputs:>11,} inputs {seconds:>8,.0f} s   {found} found")
    return 1 if found else 0


def _fuzzed(name: str, runs: int, seconds: int) -> Outcome:
    """Fuzzes one target, one process after the other, and says how it went."""
    outcome = Outcome()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as corpus:
        while outcome.inputs < runs and not (seconds and outcome.seconds >= seconds):
            left, seconds_left = min(RUNS_OF_A_PROCESS, runs - outcome.inputs), seconds and seconds - outcome.seconds
            outcome = outcome.then(_process(name, Path(corpus), left, math.ceil(seconds_left)))
            if outcome.found:
                break
    speed, found = outcome.inputs / outcome.seconds, ", ".join(outcome.found) or "nothing found"
    counts = f"{name:14} {outcome.inputs:>11,} inputs {outcome.seconds:>8,.0f} s {speed:>7,.0f}/s"
    print(f"{counts} {outcome.peak_mb:>6,} MB   {found}", flush=True)
    return outcome


def _process(name: str, corpus: Path, runs: int, seconds: int) -> Outcome:
    log, began = KEPT / f"{name}.log", time.monotonic()
    limits = [
        *(f"-runs={runs}", f"-max_total_time={seconds}", f"-timeout={10 * SECONDS_OF_AN_INPUT}"),
        f"-report_slow_units={10 * SECONDS_OF_AN_INPUT}",  # which would be told on a busy machine, and is no fault
        *(f"-rss_limit_mb={MEMORY_MB}", f"-max_len={MOST_BYTES}", f"-artifact_prefix={KEPT}/{name}-"),
        *("-print_final_stats=1", f"-dict={corpus}/words", f"{corpus}/inputs"),
    ]
    with log.open("wb") as output:
        command = [sys.executable, "-m", "tests.fuzz", name, "--libfuzzer", *limits]
        child = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            status = child.wait()
        finally:
            child.kill()
            child.wait()
    said = log.read_text(errors="replace")
    inputs = [int(count) for count in re.findall(r"(?:^#|number_of_executed_units: )(\d+)", said, re.MULTILINE)]
    peaks = [int(megabytes) for megabytes in re.findall(r"(?:rss: |peak_rss_mb: +)(\d+)", said)]
    kept = re.findall(r"Test unit written to (\S+)", said)
    found = [file for file in kept if "-timeout-" not in file or _hangs(name, Path(file))]
    if status and not kept:
        found = [f"exit status {status}, see {log}"]
    return Outcome(max(inputs, default=0), time.monotonic() - began, max(peaks, default=0), tuple(found))


def _hangs(name: str, file: Path) -> bool:
    """False where an input took long because the machine stood still, which is seen by trying once more."""
    try:
        subprocess.run(
            [sys.executable, "-m", "tests.fuzz", name, "--replay", file], timeout=10 * SECONDS_OF_AN_INPUT, check=True
        )
    except subprocess.SubprocessError:
        return True
    file.unlink()
    return False


def _become_libfuzzer(name: str, arguments: list[str]) -> None:
    """Does not return."""
    import atheris

    with atheris.instrument_imports(include=["schemas", "adaptml"]):
        from tests.fuzz import corpus, mutate, targets

    inputs = Path(arguments[-1])
    if not inputs.exists():
        inputs.mkdir()
        for i, seed in enumerate(corpus.seeds(name)):
            (inputs / f"seed-{i}").write_bytes(seed)
        words = ["".join(f"\\x{byte:02x}" for byte in word.encode()) for word in corpus.words(name)]
        (inputs.parent / "words").write_text("".join(f'"{word}"\n' for word in words))

    def run(data: bytes) -> None:
        began = time.process_time()
        targets.TARGETS[name](data)
        assert time.process_time() - began < SECONDS_OF_AN_INPUT

    def changed(data: bytes, most: int, seed: int) -> bytes:
        return mutate.mutated(name, data, most, random.Random(seed), atheris.Mutate)

    atheris.Setup([sys.argv[0], *arguments], run, custom_mutator=changed)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
