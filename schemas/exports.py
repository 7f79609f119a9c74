"""The forms in which a trained model is delivered."""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal

Form = Literal["adapter", "merged", "gguf"]

GGUF_ARCHITECTURES = MappingProxyType(
    {
        "gemma": "gemma",
        "gemma3": "gemma3",
        "gemma3_text": "gemma3",
        "llama": "llama",
        "mistral": "llama",
        "qwen2": "qwen2",
        "qwen3": "qwen3",
    }
)
"""model_type of transformers → what llama.cpp calls it. Only those that trainer/export_graph.py computes: no file is
delivered that nothing has run."""
