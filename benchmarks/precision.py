"""What a CPU multiplies fastest in: matrix products of SmolLM2-135M's shapes in bf16 and in fp32.

`python -m benchmarks.precision`: forward (x wᵀ) and backward to the inputs (g w), the best of several turns each.
`trainer/precision.py` decides by what the CPU says of itself; this shows whether it decides well.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from benchmarks.figure import show
from trainer.precision import compute_dtype

TURNS, TOKENS = 5, 256
SHAPES = {"gate_proj": (576, 1536), "down_proj": (1536, 576), "output layer": (576, 49152)}


def main() -> None:
    """Measures and prints."""
    print(f"this CPU computes in {compute_dtype(torch.device('cpu'))}")
    for name, (width, out) in SHAPES.items():
        for direction in ("forward", "backward"):
            bf16, fp32 = (_gflops(width, out, direction, dtype) for dtype in (torch.bfloat16, torch.float32))
            show(f"{name}, {direction}", bf16, fp32, "fp32", "GFLOP/s in bf16")


def _gflops(width: int, out: int, direction: str, dtype: torch.dtype) -> float:
    weight = torch.randn(out, width).to(dtype)
    given = torch.randn(TOKENS, width if direction == "forward" else out).to(dtype)
    seconds = _best(lambda: given @ (weight.T if direction == "forward" else weight))
    return 2 * TOKENS * width * out / seconds / 1e9


def _best(work: Callable[[], object]) -> float:
    turns = []
    for _ in range(TURNS + 1):
        began = time.perf_counter()
        work()
        turns.append(time.perf_counter() - began)
    return min(turns[1:])


if __name__ == "__main__":
    main()
