from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit

from schemas.catalogue import CATALOGUE
from tests import tiny_model
from tests.cloud import MODEL
from trainer.loss import completion_loss
from trainer.model import MODELS_DIR, load_base
from trainer.packing import Tokens, pack
from trainer.precision import autocast, compute_dtype

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    compute_dtype.cache_clear()
    yield
    compute_dtype.cache_clear()


def able(monkeypatch: pytest.MonkeyPatch, **abilities: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, **abilities})


@pytest.mark.parametrize(
    ("abilities", "dtype"),
    [
        ({}, torch.float32),
        ({"avx512_f": True, "avx512_bf16": False}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
    ],
)
def test_a_cpu_computes_in_what_it_multiplies_fast(
    abilities: dict[str, bool], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    able(monkeypatch, **abilities)
    assert compute_dtype(CPU) is dtype
    layer = torch.nn.Linear(4, 4)
    with autocast(CPU):
        assert layer(torch.ones(1, 4)).dtype is dtype


def test_a_gpu_computes_in_bf16() -> None:
    assert compute_dtype(torch.device("cuda")) is torch.bfloat16


@pytest.mark.parametrize("quantise", [True, False])
def test_a_model_computes_the_same_in_both(quantise: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NF4 stays as it is, tied weights stay tied, and the loss differs by rounding."""
    monkeypatch.setenv(MODELS_DIR, str(tiny_model.lay(tmp_path)))
    (packed,) = pack([Tokens(list(range(5, 45)), list(range(5, 45)))], 64)
    losses, weights = [], []
    for native in (True, False):
        compute_dtype.cache_clear()
        able(monkeypatch, avx512_bf16=native)
        dtype = torch.bfloat16 if native else torch.float32
        model, _ = load_base(CATALOGUE[MODEL], quantise=quantise, device=CPU)
        quantised = [module for module in model.modules() if isinstance(module, Linear4bit)]
        assert bool(quantised) is quantise
        assert {module.compute_dtype for module in quantised} <= {dtype}
        assert {p.dtype for p in model.parameters() if p.is_floating_point()} == {dtype}
        assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
        weights.append([module.weight.data.clone() for module in quantised])
        model.get_base_model = lambda model=model: model
        with torch.no_grad():
            losses.append(completion_loss(model, packed, CPU).item())
    assert losses[0] == pytest.approx(losses[1], rel=5e-3)
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))
