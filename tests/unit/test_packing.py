from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from trainer import loss as loss_module
from trainer.attention import PACKED
from trainer.loss import completion_loss, loss_and_hits
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


def test_positions_restart_with_each_example() -> None:
    (row,) = pack([example(3), example(2)], 5)
    assert row.position_ids.tolist() == [0, 1, 2, 0, 1]
    assert row.begins.tolist() == [0, 3, 5]
    assert row.segments.tolist() == [0, 0, 0, 1, 1]
    assert row.longest == 3


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128,
    )  # fmt: skip
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    base = LlamaForCausalLM._from_config(config, attn_implementation=PACKED)
    return get_peft_model(base, lora).eval()


def gradients(model: torch.nn.Module, rows: list[Any], tokens: int) -> tuple[float, list[torch.Tensor]]:
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


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_gradients_are_those_of_all_logits_and_no_logits_are_kept(
    model: torch.nn.Module, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_module, "LOGITS_AT_ONCE", chunk)
    one = example(23, masked=9)
    model.zero_grad()
    kept: list[torch.Size] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        loss = completion_loss(model, pack([one], 0)[0], CPU)
    assert kept
    assert all(64 not in shape for shape in kept)  # as wide as the vocabulary
    loss.backward()
    found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    output = model(input_ids=torch.tensor([one.ids]), labels=torch.tensor([one.labels]))
    (output.loss * one.trained_tokens).backward()
    for ours, theirs in zip(found, (p.grad for p in model.parameters() if p.grad is not None), strict=True):
        assert torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.999
        assert ours.norm().item() == pytest.approx(theirs.norm().item(), rel=2e-2)
    model.zero_grad()


def test_measuring_gives_the_loss_of_training(model: torch.nn.Module) -> None:
    (packed,) = pack([example(23, masked=9), example(8)], 64)
    with torch.no_grad():
        training = completion_loss(model, packed, CPU).item()
    measured, hits = loss_and_hits(model, packed, CPU)
    assert measured == pytest.approx(training, rel=1e-5)
    assert len(hits) == int((packed.next_tokens != IGNORED).sum())


def test_a_row_without_a_label_has_no_loss(model: torch.nn.Module) -> None:
    (packed,) = pack([example(5, masked=5)], 0)
    assert completion_loss(model, packed, CPU).item() == 0
    assert loss_and_hits(model, packed, CPU)[0] == 0
