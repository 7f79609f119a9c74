"""metrics.jsonl and TensorBoard event files of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter


class MetricsLog:
    """Writes each point to both, as it comes."""

    def __init__(self, folder: Path) -> None:
        self._lines = (folder / "metrics.jsonl").open("w", encoding="utf-8")
        self._board = SummaryWriter(str(folder))

    def step(self, point: dict[str, Any]) -> None:
        """One optimizer step."""
        self._write(point)
        for name in ("loss", "learning_rate", "grad_norm", "tokens_per_s"):
            self._board.add_scalar(f"train/{name}", point[name], point["step"])

    def evaluation(self, *, step: int, loss: float | None) -> None:
        """One measurement on held-out data."""
        if loss is not None:
            self._write({"step": step, "eval_loss": loss})
            self._board.add_scalar("eval/loss", loss, step)

    def close(self) -> None:
        """Everything is on disk after this."""
        self._lines.close()
        self._board.close()

    def _write(self, point: dict[str, Any]) -> None:
        self._lines.write(json.dumps(point) + "\n")
