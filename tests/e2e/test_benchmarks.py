from __future__ import annotations

import json
import subprocess
import sys

from local.paths import ROOT


def test_the_way_of_a_drop_can_be_measured() -> None:
    command = [sys.executable, "-m", "benchmarks.dispatch_latency", "--drops", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    figures = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [figure["figure"] for figure in figures] == [
        "manifest stored to trainer process, median",
        "end of gsutil cp to trainer process, median",
    ]
    assert figures[0]["ours"] > 0  # the other is less than that where gsutil comes back after the trainer has started
    assert all(figure["peer"] > 0 for figure in figures)
