"""Layers whose weights are unpacked for a while multiply by what is packed."""

from __future__ import annotations

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from torch import nn

from trainer.precision import compute_dtype, suit
from trainer.unpacked import unpacked

CPU = torch.device("cpu")


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(64, 128, bias=bias) for bias in (True, False)]
    packed = [Linear4bit(64, 128, bias=layer.bias is not None, quant_type="nf4") for layer in layers]
    for into, layer in zip(packed, layers, strict=True):
        into.load_state_dict(layer.state_dict())
    made = nn.ModuleList(packed).to(CPU)
    suit(made, CPU)
    return made.requires_grad_(requires_grad=False)


@pytest.mark.parametrize("rows", [1, 7])
def test_answers_are_those_of_the_packed_layer(model: nn.ModuleList, rows: int) -> None:
    x = torch.randn(rows, 64, dtype=compute_dtype(CPU))
    before = [layer(x) for layer in model]
    with unpacked(model, CPU):
        meanwhile = [layer(x) for layer in model]
    after = [layer(x) for layer in model]
    for one, other, again in zip(before, meanwhile, after, strict=True):
        assert other.dtype == one.dtype
        torch.testing.assert_close(other, one, rtol=2e-2, atol=2e-2)
        assert torch.equal(again, one)


def test_the_packed_weights_are_multiplied_by_afterwards_even_if_an_answer_failed(model: nn.ModuleList) -> None:
    with pytest.raises(RuntimeError, match="no answer"), unpacked(model, CPU):
        raise RuntimeError("no answer")
    assert not any("forward" in vars(layer) for layer in model)


def test_a_gpu_unpacks_what_it_multiplies_by_itself(model: nn.ModuleList) -> None:
    with unpacked(model, torch.device("cuda")):
        assert not any("forward" in vars(layer) for layer in model)
