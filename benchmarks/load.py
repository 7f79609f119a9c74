"""How long a job takes to have its base model, and what it reads for that: NF4 prepared, against quantising at load.

`python -m benchmarks.load`: SmolLM2-135M, prepared from its wheel. Both ways take turns in processes of their own,
which have imported all libraries before the clock starts; the folder is in the page cache in both.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.figure import show
from local.paths import ROOT
from schemas.catalogue import CATALOGUE
from trainer.prepare import Source, prepare
from trainer.prepared import STAMP, needed

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
PEER = "bf16 weights, quantised while loading"

_TURN = """
import json, sys, time, warnings, logging
warnings.simplefilter("ignore"); logging.disable(logging.WARNING)
import torch
from schemas.catalogue import CATALOGUE
from trainer.model import load_base
import transformers.models.llama.modeling_llama, bitsandbytes
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
started = time.perf_counter()
model, _ = load_base(CATALOGUE[sys.argv[1]], quantise=True, device=device)
if torch.cuda.is_available():
    torch.cuda.synchronize()
print(json.dumps(time.perf_counter() - started))
"""


def main() -> None:
    """Prepares, measures, prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--turns", type=int, default=7, help="of each way; the median counts")
    options = parser.parse_args()
    row = CATALOGUE[MODEL]
    with tempfile.TemporaryDirectory(prefix="adaptml-load-") as scratch:
        models, hidden = Path(scratch) / "nf4", Path(scratch) / "bf16"
        prepare(row, models, Source())
        shutil.copytree(models, hidden)
        (hidden / row.folder / STAMP).write_text("{}")  # as if another version had quantised it
        seconds: dict[Path, list[float]] = {models: [], hidden: []}
        for _ in range(options.turns):
            for folder, measured in seconds.items():
                measured.append(_turn(folder))
        show(
            "seconds until the base model is loaded, median",
            statistics.median(seconds[models]),
            statistics.median(seconds[hidden]),
            PEER,
            "s",
        )
        folder = models / row.folder
        show("bytes of the files that are read", _read(folder, "nf4") / 1e6, _read(folder, "bf16") / 1e6, PEER, "MB")


def _turn(models: Path) -> float:
    environment = {
        "PATH": "/usr/bin:/bin",
        "ADAPTML_MODELS_DIR": str(models),
        "HF_HUB_OFFLINE": "1",
        "HOME": str(models),
    }
    command = [sys.executable, "-c", _TURN, MODEL]
    ended = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    return float(json.loads(ended.stdout.splitlines()[-1]))


def _read(folder: Path, variant: str) -> int:
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return sum((folder / name).stat().st_size for name in needed(names, variant))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
