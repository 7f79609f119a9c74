"""Where the time of a run goes, from the start of its process to the adapter in the bucket.

`python -m benchmarks.job`: a drop of Alpaca-style rows in a local cloud, trained for real by SmolLM2-135M; the phases
are read off the trainer's log. Beside it stands what cannot be saved: a process that imports the same libraries, and
the steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from benchmarks.figure import show
from benchmarks.training import DATA
from local.paths import ROOT
from schemas.run import Run
from schemas.run_states import RunState
from tests.cloud import TestCloud, eventually, manifest

PHASES = {
    "imports, and taking the run": "owning ",
    "reading and tokenising the data": "data is tokenised",
    "waiting for the base model, which loads beside it": "base model is loaded",
    "LoRA, optimizer, held-out loss before": "examples, ",
    "the first step": "first step is done",
    "the other steps": "training is done",
    "held-out loss after, sample answers": "evaluation is done",
    "adapter, card, checksums": "files are written",
    "upload, commit, publishing the version": "held-out loss ",
}
"""Name → what the log says at its end."""
_IMPORTS = "import torch, transformers, peft, bitsandbytes, google.cloud.storage, google.cloud.firestore"


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.job", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="the median of each phase counts (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="optimizer steps (default: %(default)s)")
    options = parser.parse_args()
    if not DATA.is_file():
        print(f"the data is not there: {DATA}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        cloud = TestCloud.start(Path(scratch))
        try:
            found = [_phases(cloud, _run(cloud, number, options.steps)) for number in range(options.runs)]
        finally:
            cloud.stop()
    floor = statistics.median(_imports_s() for _ in range(options.runs))
    median = {name: statistics.median(phases[name] for phases in found) for name in PHASES}
    total = sum(median.values())
    for name, seconds in median.items():
        show(name, seconds, total, "the whole of it", "s")
    to_first = sum(list(median.values())[:5])
    show("process start to first step", to_first, floor + median["the first step"], "imports and the step alone", "s")
    steps = median["the first step"] + median["the other steps"]
    show("process start to adapter in the bucket", total, floor + steps, "imports and steps alone", "s")
    return 0


def _run(cloud: TestCloud, number: int, steps: int) -> Run:
    name = f"job-{number}"
    cloud.put(f"bench/{name}/train.jsonl", DATA.read_bytes())
    training = {"max_steps": steps, "batch_size": 4}
    generation = cloud.put(f"bench/{name}/manifest.yaml", manifest(training=training))
    return cloud.wait(cloud.run_id("bench", name, generation), RunState.SUCCEEDED, within_s=900)


def _phases(cloud: TestCloud, run: Run) -> dict[str, float]:
    """Seconds of each phase."""
    if run.state is not RunState.SUCCEEDED or run.execution is None:
        raise RuntimeError(f"{run.run_id} is {run.state}: {run.error}")
    execution = run.execution
    # The trainer has its last word after the run has succeeded.
    eventually(lambda: cloud.services.jobs.look_up(execution).state.has_ended, within_s=60)
    began = cloud.services.jobs.look_up(execution).started_at
    if began is None:
        raise RuntimeError(f"{execution} never started")
    log = cloud.home / "logs" / "executions" / f"{execution.rpartition('/')[2]}.log"
    entries = [json.loads(line) for line in log.read_text("utf-8").splitlines() if line.startswith("{")]
    phases, before = {}, began.timestamp()
    for name, text in PHASES.items():
        ended = next(entry for entry in entries if text in entry["message"])
        at = datetime.fromisoformat(ended["time"]).timestamp()
        phases[name], before = at - before, at
    return phases


def _imports_s() -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", _IMPORTS], cwd=ROOT, check=True, timeout=300)
    return time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
