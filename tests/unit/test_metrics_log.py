from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.evaluate import Measured
from trainer.metrics import BOARDS, MetricsLog

MEASURED = Measured(loss=0.5, token_accuracy=0.75, exact_match=0.25, examples=4, tokens=40, short_answers=4)
FIRST = {
    "step": 1, "epoch": 0.5, "loss": 2.0, "learning_rate": 1e-4, "grad_norm": 0.3, "tokens_per_s": 900.0,
    "tokens": 512, "trained_tokens": 200,
    "gpu_memory_gb": 4.5, "gpu_use_percent": 97.0, "gpu_power_w": 71.5, "gpu_temperature_c": 64.0,
}  # fmt: skip
SECOND = {"step": 2, "loss": 1.5, "tokens": 1024}


def written(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]


def boards(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself reads."""
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(e.step, round(e.value, 6)) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_each_point_is_a_line_and_a_place_on_each_board(tmp_path: Path) -> None:
    points: list[dict[str, Any]] = []
    log = MetricsLog(tmp_path, points)
    log.evaluation(0, MEASURED)
    log.step(FIRST)
    log.step(SECOND)
    log.evaluation(2, None)
    log.close()
    assert written(tmp_path) == points
    assert points[1:] == [FIRST, SECOND]
    assert points[0] == {
        "step": 0, "eval_loss": 0.5, "eval_perplexity": MEASURED.figures["perplexity"],
        "eval_token_accuracy": 0.75, "eval_exact_match": 0.25,
    }  # fmt: skip
    drawn = boards(tmp_path)
    assert drawn.keys() == set(BOARDS.values())
    assert drawn["train/loss"] == [(1, 2.0), (2, 1.5)]
    assert drawn["train/tokens"] == [(1, 512.0), (2, 1024.0)]
    assert drawn["gpu/power_w"] == [(1, 71.5)]
    assert drawn["eval/token_accuracy"] == [(0, 0.75)]


def test_what_is_gone_on_from_is_written_again(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, [FIRST])
    log.step(SECOND)
    log.close()
    assert written(tmp_path) == [FIRST, SECOND]
    assert boards(tmp_path)["train/loss"] == [(1, 2.0), (2, 1.5)]
