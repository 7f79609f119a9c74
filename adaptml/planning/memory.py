"""GPU memory of a training, in bytes: weights, LoRA and its optimizer, activations, logits, CUDA's own.

The formulas count what is there, and their constants stand here, each with the reason for its bounds.
docs/planning.md says what they leave out and what has been measured.
"""

from __future__ import annotations

from typing import NamedTuple

from adaptml.planning.span import Span
from schemas.catalogue import CATALOGUE, Architecture
from schemas.manifest import Manifest

NF4_BYTES = 0.5 + 8.25 / 512
"""A parameter in NF4 with double quantisation: 4 bits, and for every 64 parameters an 8-bit constant, whose own
32-bit constants cover 256 of them (Dettmers et al. 2023, QLoRA, section 3): 0.127 bits a parameter."""
BF16_BYTES = 2.0
FP32_BYTES = 4.0
LORA_STATE_BYTES = 4.0 + 4.0 + 8.0
"""A trained parameter: fp32 weight, gradient, and the two moments of AdamW."""
CUDA_CONTEXT_BYTES = Span(0.4e9, 0.8e9, 1.2e9)
"""CUDA context and libraries of one process; they differ with the driver and with the kernels that were loaded."""
ACTIVATION_SHARE = Span(0.9, 1.0, 1.2)
"""Of what is counted: less where rows stay short of full; more for blocks that PyTorch's allocator holds but cannot
use."""
LOGIT_BYTES = FP32_BYTES + BF16_BYTES + BF16_BYTES
"""The logarithm of a word's probability in fp32, beside the logit before it and the probability after it in bf16."""
LOGITS_AT_ONCE = 1024
"""Positions whose logits `trainer.loss` has at a time: with a vocabulary of 256 k words, 1 GB in fp32."""


class MicroBatch(NamedTuple):
    """What goes through the model at once."""

    tokens: int
    """Of a packed row."""
    checkpointing: bool
    """Whether only the inputs of blocks are kept for the backward pass, and the rest is computed again."""


def smallest(manifest: Manifest) -> MicroBatch:
    """The least that a training can do with: one row that holds the longest example."""
    return MicroBatch(manifest.training.max_seq_length, checkpointing=True)


def gpu_memory_bytes(manifest: Manifest) -> float:
    """Expected peak of GPU memory with the smallest micro-batch, in bytes."""
    return gpu_memory_span(manifest).expected


def gpu_memory_span(manifest: Manifest, micro_batch: MicroBatch | None = None) -> Span:
    """Peak of GPU memory, in bytes; with the smallest micro-batch where none is given."""
    row = CATALOGUE[manifest.base_model]
    shape, lora = row.architecture, manifest.lora
    per_weight = NF4_BYTES if manifest.method == "qlora" else BF16_BYTES
    others = shape.parameters() - shape.linear_parameters()
    weights = shape.linear_parameters() * per_weight + others * BF16_BYTES
    targets = row.target_modules(lora.target_modules)
    state = shape.lora_parameters(lora.r, targets) * LORA_STATE_BYTES
    activations = activation_bytes(shape, targets, lora.dropout > 0, micro_batch or smallest(manifest))
    scattering = zip(ACTIVATION_SHARE, CUDA_CONTEXT_BYTES, strict=True)
    return Span(*(weights + state + share * activations + context for share, context in scattering))


def activation_bytes(shape: Architecture, targets: list[str], has_dropout: bool, micro_batch: MicroBatch) -> float:
    """What a micro-batch adds at its peak.

    Either at its end, when all blocks have left what they keep and the first logits are there; or in the backward pass
    of the last block. With checkpointing a block keeps its input, and the rest for as long as it is computed again.
    """
    tokens = micro_batch.tokens
    logits = min(tokens, LOGITS_AT_ONCE) * shape.vocab * LOGIT_BYTES
    # Gradients of the MLP's four wide tensors, and the largest weight unpacked.
    backward = tokens * 4 * shape.intermediate * BF16_BYTES + shape.hidden * shape.intermediate * BF16_BYTES
    block = tokens * block_bytes(shape, targets, 1 if has_dropout else None)
    if micro_batch.checkpointing:
        return shape.layers * tokens * shape.hidden * BF16_BYTES + max(logits, block + backward)
    return shape.layers * block + max(logits, backward)


def block_bytes(shape: Architecture, targets: list[str], dropout_mask_bytes: int | None) -> float:
    """What one block keeps of one token for the backward pass, under bf16 autocast.

    The hidden state in fp32 before each norm, likewise queries and keys where they are normed; queries, keys, values
    and the output of attention; gate, its activation, and up; the input of each adapted layer once more in bf16, and
    where there is dropout, which of it was dropped (a byte each on a GPU). Layers that are not adapted keep nothing:
    their weights get no gradient.
    """
    norms = shape.block_norms * shape.hidden + ((shape.query + shape.key) if shape.qk_norm else 0)
    attention_and_mlp = 2 * (shape.query + shape.key) + 3 * shape.intermediate
    adapted = sum(shape.linear_shapes()[name][0] for name in targets)
    return norms * FP32_BYTES + attention_and_mlp * BF16_BYTES + adapted * (BF16_BYTES + (dropout_mask_bytes or 0))
