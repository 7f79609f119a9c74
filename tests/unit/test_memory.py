"""The plan of activations, held to what autograd keeps of a real forward pass; and the micro-batch that follows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from adaptml.planning.memory import MicroBatch, block_bytes, gpu_memory_span, smallest
from adaptml.planning.micro_batch import ENOUGH_TOKENS, MOST_TOKENS, choose, smaller
from schemas.catalogue import CATALOGUE, Architecture, BaseModelRow
from schemas.manifest import Manifest
from tests.unit.test_catalogue import config_of
from trainer.attention import PACKED, no_mask
from trainer.model import checkpoint_blocks

TOKENS = 256
of_each_type = pytest.mark.parametrize(
    "row",
    {row.architecture.model_type: row for row in CATALOGUE.values()}.values(),
    ids=lambda row: row.architecture.model_type,
)


def shape_of(row: BaseModelRow, layers: int) -> Architecture:
    """Wide enough that what the plan leaves out (the LoRA's own outputs, one number a row) is small beside it."""
    return row.architecture.model_copy(
        update={
            "layers": layers, "hidden": 256, "heads": 4, "kv_heads": 2, "head_dim": 64, "intermediate": 768,
            "vocab": 64, "sliding_window": TOKENS if row.architecture.sliding_window else None,
        }
    )  # fmt: skip


def kept_bytes(row: BaseModelRow, layers: int, targets: str, dropout: float, *, checkpointing: bool = False) -> int:
    """What autograd keeps of a forward pass in bf16 for the backward pass, the weights aside."""
    config = config_of(shape_of(row, layers))
    if hasattr(config, "vision_config"):
        for name, value in {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}.items():
            setattr(config.vision_config, name, value)
        config.vision_config.num_hidden_layers = 1
    base = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation=PACKED)
    for part in row.left_out:
        setattr(base.model, part, None)
    lora = LoraConfig(
        r=2, lora_dropout=dropout, target_modules=row.target_modules(targets), task_type="CAUSAL_LM"
    )  # fmt: skip
    model: Any = get_peft_model(base, lora)
    model.train()
    checkpoint_blocks(model, checkpointing)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    begins = torch.tensor([0, TOKENS // 2, TOKENS], dtype=torch.int32)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16),
    ):
        output = model.get_base_model().model(  # noqa: F841 - what it needs must live until all is counted
            input_ids=torch.randint(1, 60, (1, TOKENS)), position_ids=torch.arange(TOKENS)[None],
            attention_mask=no_mask(torch.device("cpu")), cu_seq_lens_q=begins, max_length_q=TOKENS // 2,
            use_cache=False,
        )  # fmt: skip
    return sum(kept.values())


@of_each_type
@pytest.mark.parametrize(("targets", "dropout"), [("attention", 0.05), ("all-linear", 0.0)])
def test_a_block_keeps_what_the_plan_counts(row: BaseModelRow, targets: str, dropout: float) -> None:
    """The difference that a block makes. The CPU keeps what was dropped in fp32."""
    found = kept_bytes(row, 2, targets, dropout) - kept_bytes(row, 1, targets, dropout)
    planned = TOKENS * block_bytes(shape_of(row, 1), row.target_modules(targets), 4 if dropout else None)
    assert found == pytest.approx(planned, rel=0.05)


@of_each_type
def test_with_checkpointing_a_block_keeps_its_input(row: BaseModelRow) -> None:
    found = [kept_bytes(row, layers, "attention", 0.05, checkpointing=True) for layers in (1, 2)]
    assert found[1] - found[0] == pytest.approx(TOKENS * 256 * 2, rel=0.05)


def asked(model: str, length: int, method: str = "qlora", **lora: Any) -> Manifest:
    document = {
        "name": "t", "base_model": model, "dataset": {"train": ["t.jsonl"]}, "method": method, "lora": lora,
        "training": {"max_seq_length": length},
    }  # fmt: skip
    return Manifest.model_validate(document)


manifests = st.builds(
    asked, st.sampled_from(sorted(CATALOGUE)), st.integers(64, 2048), st.sampled_from(["qlora", "lora"])
)
gigabytes = st.floats(1, 100).map(lambda gb: gb * 1e9)


@given(manifests, st.integers(1, 2048), st.integers(1, 100_000), gigabytes)
def test_the_micro_batch_fits_or_is_the_least(
    manifest: Manifest, longest: int, per_step: int, memory_bytes: float
) -> None:
    chosen = choose(manifest, longest=longest, per_step=per_step, memory_bytes=memory_bytes)
    assert longest <= chosen.tokens <= max(longest, min(per_step, MOST_TOKENS))
    fits = gpu_memory_span(manifest, chosen).high <= memory_bytes
    assert fits or chosen == MicroBatch(longest, checkpointing=True)
    if chosen.checkpointing:
        without = MicroBatch(max(longest, min(ENOUGH_TOKENS, per_step)), checkpointing=False)
        assert gpu_memory_span(manifest, without).high > memory_bytes


@given(manifests, st.integers(1, 2048), st.integers(1, 100_000), gigabytes, st.floats(1, 10))
def test_with_more_memory_no_block_is_computed_twice_that_was_not(
    manifest: Manifest, longest: int, per_step: int, memory_bytes: float, times: float
) -> None:
    little = choose(manifest, longest=longest, per_step=per_step, memory_bytes=memory_bytes)
    much = choose(manifest, longest=longest, per_step=per_step, memory_bytes=memory_bytes * times)
    assert little.checkpointing >= much.checkpointing
    if little.checkpointing == much.checkpointing:
        assert little.tokens <= much.tokens


@given(manifests, st.integers(1, 3000))
def test_after_each_failure_less_memory_is_needed_until_nothing_is_left(manifest: Manifest, longest: int) -> None:
    current: MicroBatch | None = MicroBatch(max(longest, MOST_TOKENS), checkpointing=False)
    seen = []
    while current is not None:
        assert current.tokens >= longest
        seen.append(gpu_memory_span(manifest, current).expected)
        last, current = current, smaller(current, longest)
    assert last == MicroBatch(longest, checkpointing=True)
    assert seen == sorted(seen, reverse=True)
    assert len(seen) < 20


def test_an_l4_computes_nothing_twice_until_it_must() -> None:
    def on_l4(model: str, length: int) -> MicroBatch:
        return choose(asked(model, length), longest=length, per_step=16_384, memory_bytes=23.6e9)

    assert on_l4("HuggingFaceTB/SmolLM2-135M-Instruct", 2048) == MicroBatch(MOST_TOKENS, checkpointing=False)
    assert not on_l4("google/gemma-2b-it", 2048).checkpointing
    assert on_l4("meta-llama/Llama-3.1-8B-Instruct", 8192).checkpointing


def test_the_plan_at_intake_is_of_the_least() -> None:
    manifest = asked("google/gemma-2b-it", 512)
    assert gpu_memory_span(manifest) == gpu_memory_span(manifest, smallest(manifest))
