"""NF4 weights on a CPU, unpacked while a model answers."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from torch import Tensor
from torch.nn.functional import linear

from trainer.precision import compute_dtype


@contextmanager
def unpacked(model: Any, device: torch.device) -> Iterator[None]:
    """On a CPU, layers multiply by weights that are unpacked already; for what needs no gradient.

    bitsandbytes unpacks a layer for each product there, and an answer takes a product with every layer for each token:
    of 80 tokens of SmolLM2-135M on two cores, most of a minute. A GPU's kernels unpack what they are about to multiply.
    """
    packed = [layer for layer in model.modules() if isinstance(layer, Linear4bit)] if device.type == "cpu" else []
    for layer in packed:
        weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(compute_dtype(device))
        layer.forward = functools.partial(_product, weight, layer.bias)
    try:
        yield
    finally:
        for layer in packed:
            del layer.forward


def _product(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    return linear(x.to(weight.dtype), weight, None if bias is None else bias.to(weight.dtype)).to(x.dtype)
