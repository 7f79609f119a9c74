from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from trainer.loss import completion_loss
from trainer.packing import IGNORED, Tokens, pack

CPU = torch.device("cpu")


def example(length: int, masked: int = 0, seed: int = 0) -> Tokens:
    ids = random.Random(f"{seed}-{length}").choices(range(3, 64), k=length)
    return Tokens(ids, [IGNORED] * masked + ids[masked:])


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(0, 64))
def test_packing_loses_and_repeats_nothing(lengths: list[int], row_tokens: int) -> None:
    examples = [example(length, seed=i) for i, length in enumerate(lengths)]
    rows = pack(examples, row_tokens)
    unpacked = [row.input_ids[row.segments == s].tolist() for row in rows for s in row.segments.unique().tolist()]
    assert sorted(unpacked) == sorted(e.ids for e in examples)
    for row in rows:
        assert len(row.input_ids) <= row_tokens or len(row.segments.unique()) == 1
        assert sum(row.next_tokens != IGNORED) == sum(row.position_ids > 0)


def test_positions_restart_and_attention_stays_within_an_example() -> None:
    (row,) = pack([example(3), example(2)], 5)
    assert row.position_ids.tolist() == [0, 1, 2, 0, 1]
    mask = row.attention_mask()[0, 0]
    assert not mask[3, :3].any()
    assert mask[4].tolist() == [False, False, False, True, True]
    assert not mask[0, 1]


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128,
    )  # fmt: skip
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    return get_peft_model(LlamaForCausalLM(config), lora).eval()


def gradients(model: torch.nn.Module, rows: list, tokens: int) -> tuple[float, list[torch.Tensor]]:
    model.zero_grad()
    total = 0.0
    for row in rows:
        loss = completion_loss(model, row, CPU) / tokens
        loss.backward()
        total += loss.item()
    return total, [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_a_packed_step_has_the_loss_and_gradients_of_its_examples_one_by_one(model: torch.nn.Module) -> None:
    examples = [example(length, masked=length // 3) for length in (17, 5, 29, 11)]
    tokens = sum(e.trained_tokens for e in examples)
    loss, grads = gradients(model, pack(examples, 64), tokens)
    alone, grads_alone = gradients(model, pack(examples, 0), tokens)
    assert loss == pytest.approx(alone, rel=2e-3)  # bf16 autocast
    for one, other in zip(grads, grads_alone, strict=True):
        assert torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.999


def test_the_loss_is_the_mean_over_the_trained_tokens_that_transformers_computes(model: torch.nn.Module) -> None:
    one = example(23, masked=9)
    with torch.no_grad():
        ours = completion_loss(model, pack([one], 0)[0], CPU).item() / one.trained_tokens
        theirs = model(input_ids=torch.tensor([one.ids]), labels=torch.tensor([one.labels])).loss.item()
    assert ours == pytest.approx(theirs, rel=5e-3)
