"""Attention of packed rows, held to the definition with a mask as large as the row squared."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForCausalLM

from schemas.catalogue import CATALOGUE
from tests.unit.test_catalogue import config_of
from tests.unit.test_catalogue_training import small
from trainer import attention
from trainer.attention import PACKED, Heads, has_kernel, one_by_one, try_kernel

CPU = torch.device("cpu")
QUERIES, KEYS, WIDTH, SCALE = 4, 2, 8, 0.3


def parts(tokens: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(tokens)
    return [torch.randn(1, heads, tokens, WIDTH, generator=generator) for heads in (QUERIES, KEYS, KEYS)]


def beginnings(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)


def defined(query: Tensor, key: Tensor, value: Tensor, begins: Tensor, scale: float, window: int | None) -> Tensor:
    """softmax(q·k) v, where a token may look. [1, heads, tokens, width] to [1, tokens, heads, width]."""
    tokens, groups = query.shape[2], query.shape[1] // key.shape[1]
    number = torch.arange(len(begins) - 1).repeat_interleave(begins.diff())
    distance = torch.arange(tokens)[:, None] - torch.arange(tokens)[None, :]
    allowed = (number[:, None] == number[None, :]) & (distance >= 0)
    if window is not None:
        allowed &= distance < window
    scores = query @ key.repeat_interleave(groups, 1).mT * scale
    weights = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
    return (weights @ value.repeat_interleave(groups, 1)).transpose(1, 2)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.none() | st.integers(1, 25))
def test_every_example_looks_back_at_itself_alone(lengths: list[int], window: int | None) -> None:
    given_parts, begins = parts(sum(lengths)), beginnings(lengths)
    module = SimpleNamespace(num_key_value_groups=QUERIES // KEYS, is_causal=True)
    query, key, value = given_parts
    found = one_by_one(module, query, key, value, begins, SCALE, window)
    torch.testing.assert_close(found, defined(query, key, value, begins, SCALE, window), rtol=1e-4, atol=1e-5)


def kernel(spoil: Callable[[Tensor], Tensor] = lambda found: found) -> Callable[..., Tensor]:
    """A stand-in with the signature of `varlen_attn`, which runs on some GPUs only."""

    def varlen_attn(
        query: Tensor, key: Tensor, value: Tensor, begins: Tensor, of_keys: Tensor, longest: int, longest_key: int,
        *, scale: float, window_size: tuple[int, int], enable_gqa: bool,
    ) -> Tensor:  # fmt: skip
        assert begins.dtype == torch.int32
        assert torch.equal(begins, of_keys)
        assert longest == longest_key == int(begins.diff().max())
        assert enable_gqa == (query.shape[1] != key.shape[1])
        back, ahead = window_size
        assert ahead == 0
        asked, offered, held = (part.transpose(0, 1)[None] for part in (query, key, value))
        return spoil(defined(asked, offered, held, begins, scale, None if back == -1 else back + 1)[0])

    return varlen_attn


@pytest.mark.parametrize("window", [None, 3, 100])
@pytest.mark.parametrize("keys", [1, 2, 4])
def test_the_kernel_is_called_as_it_is_documented(
    window: int | None, keys: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "varlen_attn", kernel())
    difference = try_kernel(Heads(CPU, QUERIES, keys, 64, window))
    assert difference is not None
    assert difference < 0.02


def refuse(_: Tensor) -> Tensor:
    raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.")


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda found: found * 1.2, "wrong"),
        (lambda found: found.roll(1, 0), "wrong"),
        (lambda found: found * torch.nan, "wrong"),
        (lambda found: found.detach() + 0.2 * found - 0.2 * found.detach(), "wrong"),  # its gradients alone
        (refuse, "none"),
    ],
)
def test_a_kernel_that_errs_or_refuses_is_not_used(spoil: Any, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "varlen_attn", kernel(spoil))
    difference = try_kernel(Heads(CPU, QUERIES, KEYS, 64, None))
    if found == "none":
        assert difference is None
    else:
        assert difference is not None
        assert not difference < 0.05


def test_on_a_cpu_there_is_no_kernel() -> None:
    heads = Heads(CPU, QUERIES, KEYS, 64, None)
    assert try_kernel(heads) is None
    assert not has_kernel(heads)


@pytest.mark.parametrize("model_type", ["gemma3", "llama", "qwen3"])
def test_generation_is_that_of_transformers(model_type: str) -> None:
    """Also with a prompt that is longer than the window of local layers."""
    row = next(row for row in CATALOGUE.values() if row.architecture.model_type == model_type)
    config = config_of(small(row, 128))
    if hasattr(config, "vision_config"):
        for name, value in {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}.items():
            setattr(config.vision_config, name, value)
        config.vision_config.num_hidden_layers = 1
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config).eval()
    prompt = torch.randint(1, 128, (1, 19))
    answers = []
    for implementation in ("sdpa", PACKED):
        model.set_attn_implementation(implementation)
        asked: Any = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
        answers.append(model.generate(prompt, **asked)[0].tolist())
    assert answers[0] == answers[1]
