"""What a run will need: GPU memory, time, cost.

The formulas are simple on purpose and their constants stand here; docs/planning.md holds them against measurements.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

from ruamel.yaml import YAML

from schemas.catalogue import CATALOGUE, Architecture
from schemas.errors import Problem, problem
from schemas.manifest import Manifest
from schemas.run import Estimate

PRICES: dict[str, Any] = YAML(typ="safe", pure=True).load(
    (resources.files("adaptml.planning") / "prices.yaml").read_text("utf-8")
)

NF4_BYTES = 0.5 + 8.25 / 512
"""A parameter in NF4 with double quantisation: 4 bits, and for every 64 parameters an 8-bit constant, whose own
32-bit constants cover 256 of them (Dettmers et al. 2023, QLoRA, section 3): 0.127 bits a parameter."""
BF16_BYTES = 2.0
LORA_STATE_BYTES = 4.0 + 4.0 + 8.0
"""A trained parameter: fp32 weight, gradient, and the two moments of AdamW."""
CUDA_CONTEXT_BYTES = 0.8e9
"""CUDA context and libraries of one process."""
MODEL_FLOPS_UTILISATION = 0.25
"""Share of the peak that QLoRA reaches; cautious."""
STARTUP_S = 60.0
"""Container start, weights, first kernel launches, upload."""


def gpu_memory_bytes(manifest: Manifest) -> float:
    """Peak GPU memory of one micro-batch of one row of max_seq_length tokens, with gradient checkpointing."""
    row = CATALOGUE[manifest.base_model]
    shape = row.architecture
    per_weight = NF4_BYTES if manifest.method == "qlora" else BF16_BYTES
    weights = shape.linear_parameters() * per_weight + BF16_BYTES * (
        shape.embedding_parameters() + shape.norm_parameters()
    )
    lora = shape.lora_parameters(manifest.lora.r, row.target_modules(manifest.lora.target_modules)) * LORA_STATE_BYTES
    return weights + lora + _activation_bytes(shape, manifest.training.max_seq_length) + CUDA_CONTEXT_BYTES


def _activation_bytes(shape: Architecture, tokens: int) -> float:
    """Checkpointed block inputs, one block's inner activations, and fp32 logits with their gradient in chunks."""
    checkpoints = shape.layers * tokens * shape.hidden * BF16_BYTES
    block = tokens * (8 * shape.hidden + 4 * shape.intermediate) * BF16_BYTES
    logits = min(tokens, 1024) * shape.vocab * (4 + 4 + BF16_BYTES)
    return checkpoints + block + logits


def training_seconds(manifest: Manifest, tokens_per_epoch: int, examples: int) -> float:
    """Time on the accelerator: 6 FLOP a parameter and token (Kaplan et al. 2020, section 2.1), and start-up."""
    accelerator = PRICES["accelerators"][manifest.compute.accelerator]
    tokens = tokens_per_epoch * epochs(manifest, examples)
    flop = 6.0 * CATALOGUE[manifest.base_model].architecture.parameters() * tokens
    return STARTUP_S + float(flop / (accelerator["bf16_tflops"] * 1e12 * MODEL_FLOPS_UTILISATION))


def epochs(manifest: Manifest, examples: int) -> float:
    """Passes over the data, from `epochs` or `max_steps`."""
    if manifest.training.epochs is not None:
        return manifest.training.epochs
    return (manifest.training.max_steps or 0) * batch_size(manifest, examples) / max(examples, 1)


def batch_size(manifest: Manifest, examples: int) -> int:
    """Examples an optimizer step. `auto`: about 20 steps an epoch, from 4 to 32 examples a step."""
    asked = manifest.training.batch_size
    return asked if isinstance(asked, int) else max(4, min(32, examples // 20))


def cost_usd(accelerator: str, seconds: float) -> float:
    """List price of a Cloud Run Job with this accelerator for that long."""
    price = PRICES["accelerators"][accelerator]
    per_second = (
        price["usd_per_second"]
        + price["vcpu"] * PRICES["vcpu_usd_per_second"]
        + price["memory_gib"] * PRICES["memory_gib_usd_per_second"]
    )
    return float(per_second * seconds)


def estimate(manifest: Manifest, tokens_per_epoch: int, examples: int) -> Estimate:
    """Memory, time and cost of the run."""
    seconds = training_seconds(manifest, tokens_per_epoch, examples)
    return Estimate(
        gpu_memory_gb=round(gpu_memory_bytes(manifest) / 1e9, 2),
        duration_s=round(seconds),
        cost_usd=round(cost_usd(manifest.compute.accelerator, seconds), 4),
    )


def objections(manifest: Manifest, planned: Estimate) -> list[Problem]:
    """Why the run cannot be started as planned."""
    accelerator = PRICES["accelerators"][manifest.compute.accelerator]
    found = []
    if planned.gpu_memory_gb > accelerator["memory_gb"]:
        found.append(
            problem(
                "does_not_fit",
                needed_gb=planned.gpu_memory_gb,
                available_gb=accelerator["memory_gb"],
                accelerator=manifest.compute.accelerator,
            )
        )
    if planned.cost_usd > manifest.compute.max_cost_usd:
        found.append(problem("too_expensive", cost=f"{planned.cost_usd:.2f}", limit=manifest.compute.max_cost_usd))
    if planned.duration_s > manifest.compute.timeout_s:
        found.append(problem("too_long", duration=planned.duration_s, timeout=manifest.compute.timeout_s))
    return found
