"""metrics.jsonl and TensorBoard event files of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

_BOARDS = {
    "loss": "train/loss",
    "learning_rate": "train/learning_rate",
    "grad_norm": "train/grad_norm",
    "tokens_per_s": "train/tokens_per_s",
    "eval_loss": "eval/loss",
}


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

    def evaluation(self, *, step: int, loss: float | None) -> None:
        """One measurement on held-out data."""
        if loss is not None:
            self._add({"step": step, "eval_loss": loss})

    def close(self) -> None:
        """Everything is on disk after this."""
        self._lines.close()
        self._board.close()

    def _add(self, point: dict[str, Any]) -> None:
        self._points.append(point)
        self._write(point)

    def _write(self, point: dict[str, Any]) -> None:
        self._lines.write(json.dumps(point) + "\n")
        for name, board in _BOARDS.items():
            if name in point:
                self._board.add_scalar(board, point[name], point["step"])
