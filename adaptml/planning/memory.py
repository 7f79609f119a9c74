"""GPU memory of a training, in bytes: weights, LoRA and its optimizer, activations, logits, CUDA's own.

The formulas are simple on purpose and their constants stand here, each with the reason for its bounds.
docs/planning.md says what they leave out and what has been measured.
"""

from __future__ import annotations

from adaptml.planning.span import Span
from schemas.catalogue import CATALOGUE, Architecture
from schemas.manifest import Manifest

NF4_BYTES = 0.5 + 8.25 / 512
"""A parameter in NF4 with double quantisation: 4 bits, and for every 64 parameters an 8-bit constant, whose own
32-bit constants cover 256 of them (Dettmers et al. 2023, QLoRA, section 3): 0.127 bits a parameter."""
BF16_BYTES = 2.0
LORA_STATE_BYTES = 4.0 + 4.0 + 8.0
"""A trained parameter: fp32 weight, gradient, and the two moments of AdamW."""
CUDA_CONTEXT_BYTES = Span(0.4e9, 0.8e9, 1.2e9)
"""CUDA context and libraries of one process; they differ with the driver and with the kernels that were loaded."""
ACTIVATION_SHARE = Span(0.8, 1.0, 1.3)
"""Of the tensors counted in `_activation_bytes`: fewer where kernels are fused or rows stay short of full; more for
norms in fp32, a layer's weights unpacked from NF4, and blocks that PyTorch's allocator holds but cannot use."""


def gpu_memory_bytes(manifest: Manifest) -> float:
    """Expected peak of GPU memory, in bytes."""
    return gpu_memory_span(manifest).expected


def gpu_memory_span(manifest: Manifest) -> Span:
    """Peak GPU memory, in bytes, of a micro-batch of one row of max_seq_length tokens, with gradient checkpointing."""
    row = CATALOGUE[manifest.base_model]
    shape = row.architecture
    per_weight = NF4_BYTES if manifest.method == "qlora" else BF16_BYTES
    others = shape.parameters() - shape.linear_parameters()
    weights = shape.linear_parameters() * per_weight + others * BF16_BYTES
    lora = shape.lora_parameters(manifest.lora.r, row.target_modules(manifest.lora.target_modules)) * LORA_STATE_BYTES
    activations = _activation_bytes(shape, manifest.training.max_seq_length)
    scattering = zip(ACTIVATION_SHARE, CUDA_CONTEXT_BYTES, strict=True)
    return Span(*(weights + lora + share * activations + context for share, context in scattering))


def _activation_bytes(shape: Architecture, tokens: int) -> float:
    """Checkpointed block inputs, one block's inner activations, and fp32 logits with their gradient in chunks.

    What a block keeps for its backward pass: the norms' outputs, both sublayers' outputs and the sum between them, all
    as wide as the hidden state; queries before and after rotation and the attention's output; keys before and after
    rotation and values; gate, its activation, up, and their product. A norm of queries and keys keeps both once more.
    Which token may look where is a square of booleans, one more where local layers look less far, and PyTorch's
    scaled_dot_product_attention turns the one it is given into as many bf16 numbers.
    """
    checkpoints = shape.layers * tokens * shape.hidden * BF16_BYTES
    of_heads = 4 if shape.qk_norm else 3
    width = (shape.block_norms + 3) * shape.hidden + of_heads * (shape.query + shape.key) + 4 * shape.intermediate
    block = tokens * width * BF16_BYTES
    logits = min(tokens, 1024) * shape.vocab * (4 + 4 + BF16_BYTES)
    masks = tokens**2 * ((2 if shape.sliding_window else 1) + BF16_BYTES)
    return checkpoints + block + logits + masks
