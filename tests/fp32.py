"""Training computed in fp32 on every CPU: where bf16 is native, its rounding hides what is compared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch

from trainer.precision import compute_dtype


@contextmanager
def in_fp32() -> Iterator[None]:
    """As on a CPU without bf16."""
    compute_dtype.cache_clear()
    with patch.object(torch.cpu, "get_capabilities", dict):
        try:
            yield
        finally:
            compute_dtype.cache_clear()
