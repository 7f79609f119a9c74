"""The numbers that a device computes in: bf16, or fp32 where bf16 would only be emulated."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit

_NATIVE = ("avx512_bf16", "amx_bf16")
"""Abilities of CPUs that multiply in bf16. Others take a matrix product in it apart: on an AVX2 machine it was 8 times
slower than in fp32 forward, 40 times backward (docs/performance.md)."""


@cache
def compute_dtype(device: torch.device) -> torch.dtype:
    """In what the device multiplies fastest, of what is precise enough."""
    if device.type == "cpu" and not any(torch.cpu.get_capabilities().get(name) for name in _NATIVE):
        return torch.float32
    return torch.bfloat16


def autocast(device: torch.device) -> torch.autocast:
    """A context in which layers compute in `compute_dtype`."""
    is_bf16 = compute_dtype(device) is torch.bfloat16
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_bf16)


def suit(model: Any, device: torch.device) -> None:
    """Makes a model of bf16 weights compute in `compute_dtype`: what is not quantised becomes fp32, if that is it."""
    dtype = compute_dtype(device)
    if dtype is torch.bfloat16:
        return
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.compute_dtype = dtype
            module.compute_type_is_set = True
    for parameter in model.parameters():
        if parameter.is_floating_point():  # NF4 is kept in bytes
            parameter.data = parameter.data.to(dtype)
