"""What a checkpoint costs: its size, the pause it makes in training, and writing it, held against `torch.save`.

SmolLM2-135M, rank 16 on q, k, v, o. The upload is the network's: at 100 MB/s it takes what the size says.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import get_scheduler

from benchmarks.figure import show
from schemas.catalogue import CATALOGUE
from schemas.manifest import Manifest
from tests import models
from tests.cloud import MODEL
from trainer import snapshot
from trainer.model import load_base, lora_parameters, with_lora
from trainer.snapshot import Position

TURNS = 7


def main() -> int:
    """Returns the exit status."""
    model, optimizer, scheduler = _trained_one_step()
    position = Position(step=1000, points=[{"step": step, "loss": 1.0 / step} for step in range(1, 1001)])
    with tempfile.TemporaryDirectory() as folder:
        path, bare = Path(folder) / "ours", Path(folder) / "bare"
        taken = snapshot.take(model, optimizer, scheduler, position)
        snapshot.write(taken, path, "")
        adapter = sum(parameter.numel() for parameter in lora_parameters(model)) * 2
        show("size of a checkpoint", path.stat().st_size / 1e6, adapter / 1e6, "the adapter in bf16", "MB")
        saving = _seconds(lambda: torch.save(taken.tensors, bare))
        taking = _seconds(lambda: snapshot.take(model, optimizer, scheduler, position))
        writing = _seconds(lambda: snapshot.write(taken, path, ""))
        digest = snapshot.write(taken, path, "")

        def go_on() -> None:
            snapshot.restore(snapshot.read(path.read_bytes(), digest, ""), model, optimizer, scheduler)

        show("pause of training, to copy the state", taking, saving, "torch.save", "s")
        show("writing it with its checksum, in the background", writing, saving, "torch.save", "s")
        show("reading, checking and restoring it", _seconds(go_on), saving, "torch.save", "s")
    return 0


def _trained_one_step() -> tuple[Any, Any, Any]:
    models.prepare()
    document = {"name": "bench", "base_model": MODEL, "dataset": {"train": ["train.jsonl"]}}
    model, _ = load_base(CATALOGUE[MODEL], quantise=True, device=torch.device("cpu"))
    model = with_lora(model, Manifest.model_validate(document), CATALOGUE[MODEL])
    optimizer = torch.optim.AdamW(lora_parameters(model))
    scheduler = get_scheduler("cosine", optimizer, 3, 1000)
    for parameter in lora_parameters(model):
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    scheduler.step()
    return model, optimizer, scheduler


def _seconds(work: Callable[[], object]) -> float:
    """Median of several turns."""
    turns = []
    for _ in range(TURNS):
        began = time.perf_counter()
        work()
        turns.append(time.perf_counter() - began)
    return statistics.median(turns)


if __name__ == "__main__":
    sys.exit(main())
