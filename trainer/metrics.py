"""metrics.jsonl and TensorBoard event files of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from adaptml.planning.memory import MicroBatch
from trainer.evaluate import Measured

_TRAINING = (
    "epoch",
    "loss",
    "learning_rate",
    "grad_norm",
    "tokens_per_s",
    "tokens",
    "trained_tokens",
)
_GPU = ("gpu_memory_gb", "gpu_use_percent", "gpu_power_w", "gpu_temperature_c")
_HELD_OUT = ("eval_loss", "eval_perplexity", "eval_token_accuracy", "eval_exact_match")
BOARDS = {
    **{name: f"train/{name}" for name in _TRAINING},
    **{name: f"gpu/{name.removeprefix('gpu_')}" for name in _GPU},
    **{name: f"eval/{name.removeprefix('eval_')}" for name in _HELD_OUT},
}
"""Name in metrics.jsonl → what TensorBoard calls it."""


class MetricsLog:
    """Writes each point to both, as it comes."""

    def __init__(self, folder: Path, points: list[dict[str, Any]]) -> None:
        """Begins with the points of what training goes on from, and appends to them."""
        self._lines = (folder / "metrics.jsonl").open("w", encoding="utf-8")
        self._board = SummaryWriter(str(folder))
        self._points = points
        for point in points:
            self._write(point)

    def step(self, point: dict[str, Any]) -> None:
        """One optimizer step."""
        self._add(point)

    def evaluation(self, step: int, measured: Measured | None) -> None:
        """One measurement on held-out data, of the adapter as it was after this step."""
        if measured is not None:
            self._add({"step": step} | {f"eval_{name}": figure for name, figure in measured.figures.items()})

    def out_of_memory(self, step: int, micro_batch: MicroBatch) -> None:
        """After so many steps memory did not suffice; what training goes on with."""
        tokens, checkpointing = micro_batch
        self._add({"step": step, "micro_batch_tokens": tokens, "gradient_checkpointing": checkpointing})

    def close(self) -> None:
        """Everything is on disk after this."""
        self._lines.close()
        self._board.close()

    def _add(self, point: dict[str, Any]) -> None:
        self._points.append(point)
        self._write(point)

    def _write(self, point: dict[str, Any]) -> None:
        self._lines.write(json.dumps(point) + "\n")
        for name, board in BOARDS.items():
            if name in point:
                self._board.add_scalar(board, point[name], point["step"])
