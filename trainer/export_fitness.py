"""Whether vLLM and llama.cpp would load an adapter: their rules over its configuration, names and shapes.

Pure. The rules are those of vLLM (vllm/lora/peft_helper.py, lora/utils.py, config/lora.py) and of llama.cpp
(convert_lora_to_gguf.py, src/llama-adapter.cpp) in 2026. Neither program is run.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What `--max-lora-rank` takes."""
_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<half>[AB])\.weight")
_LAYER = re.compile(r"(.*\.)?layers\.\d+\.(self_attn|mlp)\.\w+_proj")


@dataclass(frozen=True)
class Fitness:
    """What speaks against an adapter; nothing where both lists are empty."""

    vllm: list[str] = field(default_factory=list)
    llama_cpp: list[str] = field(default_factory=list)
    max_lora_rank: int | None = None
    """What vLLM must be told; None where it has no such rank."""


def fitness(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Fitness:
    """Of an adapter with this adapter_config.json and tensors of these names and shapes."""
    both = [*_of_config(config), *_of_tensors(config, shapes)]
    rank = int(config.get("r") or 0)
    needed = next((allowed for allowed in VLLM_RANKS if allowed >= rank), None)
    vllm = [] if needed else [f"rank {rank} is more than {VLLM_RANKS[-1]}"]
    # llama.cpp scales by alpha / rank, whatever the configuration says; vLLM knows of rsLoRA.
    llama_cpp = ["use_rslora is set"] if config.get("use_rslora") else []
    return Fitness(both + vllm, both + llama_cpp, needed)


def _of_config(config: Mapping[str, Any]) -> Iterator[str]:
    if str(config.get("peft_type", "LORA")).upper() != "LORA":
        yield f"peft_type is {config['peft_type']}"
    if config.get("bias", "none") != "none":
        yield f"bias is {config['bias']}"
    # One scale is read for all layers, so patterns would be passed over in silence.
    for name in ("modules_to_save", "use_dora", "rank_pattern", "alpha_pattern", "trainable_token_indices"):
        if config.get(name):
            yield f"{name} is set"
    if config.get("fan_in_fan_out"):
        yield "fan_in_fan_out is set"


def _of_tensors(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    pairs: dict[str, dict[str, tuple[int, ...]]] = defaultdict(dict)
    for name, shape in shapes.items():
        if (match := _KEY.fullmatch(name)) is None:
            yield f"{name} is no lora_A or lora_B weight"
        else:
            pairs[match["module"]][match["half"]] = shape
    if not pairs:
        yield "there is no LoRA tensor"
    for module, halves in sorted(pairs.items()):
        if halves.keys() != {"A", "B"}:
            yield f"{module} has only one of lora_A and lora_B"
            continue
        a, b = halves["A"], halves["B"]
        if len(a) != 2 or len(b) != 2 or a[0] != config.get("r") or b[1] != config.get("r"):
            yield f"{module}: shapes {a} and {b} do not fit rank {config.get('r')}"
        if not _LAYER.fullmatch(module):
            yield f"{module} is no linear layer of a decoder block"
