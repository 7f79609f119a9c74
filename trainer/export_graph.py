"""What llama.cpp computes of a GGUF file: its graph of each architecture, in fp32, one layer in memory at a time.

It knows nothing but the file, so that logits which agree with the model's own say that names, order of rows,
figures and norms are right. After llama.cpp's src/models/{llama,qwen2,qwen3,gemma,gemma3}.cpp; not llama.cpp itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainer.export_gguf import GEMMA3_GLOBAL_EVERY, ROPE_FREQS, by_name

_ROWS = 16_384
"""Of the output layer, at a time."""


class Graph:
    """A model's file, ready to be asked."""

    def __init__(self, file: gguf.GGUFReader, adapter: gguf.GGUFReader | None = None) -> None:
        self._file = file
        self._tensors = by_name(self._file)
        self.architecture: str = self._key("general.architecture")
        self._lora = adapter
        self._lora_tensors = by_name(self._lora) if self._lora is not None else {}

    @torch.no_grad()
    def logits(self, ids: Sequence[int], alive: Callable[[], None]) -> Tensor:
        """[tokens, vocabulary]."""
        x = self._embedded(ids)
        for layer in range(self._figure("block_count")):
            x = self._block(layer, x)
            alive()
        x = self._norm(x, "output_norm")
        head = self._tensors.get("output.weight", self._tensors["token_embd.weight"])
        parts = range(0, int(head.shape[1]), _ROWS)  # GGUF counts dimensions from the other end
        return torch.cat([x @ _part(head, slice(start, start + _ROWS)).T for start in parts], dim=-1)

    def _embedded(self, ids: Sequence[int]) -> Tensor:
        x = _part(self._tensors["token_embd.weight"], list(ids))
        return x * math.sqrt(x.shape[-1]) if self._is_gemma else x

    def _block(self, layer: int, x: Tensor) -> Tensor:
        block = f"blk.{layer}."
        attended = self._attention(layer, self._norm(x, block + "attn_norm"))
        if self.architecture == "gemma3":
            attended = self._norm(attended, block + "post_attention_norm")
        x = x + attended
        inner = self._norm(x, block + "ffn_norm")
        gate = self._linear(inner, block + "ffn_gate")
        gate = functional.gelu(gate, approximate="tanh") if self._is_gemma else functional.silu(gate)
        out = self._linear(gate * self._linear(inner, block + "ffn_up"), block + "ffn_down")
        if self.architecture == "gemma3":
            out = self._norm(out, block + "post_ffw_norm")
        return x + out

    def _attention(self, layer: int, x: Tensor) -> Tensor:
        block, size = f"blk.{layer}.", self._figure("attention.key_length")
        heads, kv_heads = self._figure("attention.head_count"), self._figure("attention.head_count_kv")
        query, key, value = (self._linear(x, f"{block}attn_{part}").unflatten(-1, (-1, size)) for part in "qkv")
        if f"{block}attn_q_norm.weight" in self._tensors:
            query, key = self._norm(query, f"{block}attn_q_norm"), self._norm(key, f"{block}attn_k_norm")
        is_local = self.architecture == "gemma3" and (layer + 1) % GEMMA3_GLOBAL_EVERY != 0
        query, key = self._turned(query, is_local=is_local), self._turned(key, is_local=is_local)
        key, value = (part.repeat_interleave(heads // kv_heads, dim=1) for part in (key, value))
        scores = torch.einsum("qhd,khd->hqk", query, key) / math.sqrt(size)
        place = torch.arange(len(x))
        back = place[:, None] - place[None, :]
        seen = (back >= 0) & (back < self._figure("attention.sliding_window")) if is_local else back >= 0
        weights = scores.masked_fill(~seen, -math.inf).softmax(-1)
        return self._linear(torch.einsum("hqk,khd->qhd", weights, value).flatten(1), f"{block}attn_output")

    def _turned(self, x: Tensor, *, is_local: bool) -> Tensor:
        """Rotary positions: Llama turns neighbours, the others the two halves of a head."""
        size = self._figure("rope.dimension_count")
        base = self._figure("rope.freq_base_swa") if is_local else self._figure("rope.freq_base")
        frequencies = base ** (-torch.arange(0, size, 2).float() / size)
        if not is_local:
            frequencies = frequencies / self._figure("rope.scaling.factor", 1.0)
        if ROPE_FREQS in self._tensors:
            frequencies = frequencies / self._tensor(ROPE_FREQS)
        angle = torch.arange(len(x)).float()[:, None, None] * frequencies
        cos, sin = angle.cos(), angle.sin()
        if self.architecture == "llama":
            one, other = x[..., 0::2], x[..., 1::2]
            return torch.stack([one * cos - other * sin, other * cos + one * sin], dim=-1).flatten(-2)
        one, other = x.chunk(2, dim=-1)
        return torch.cat([one * cos - other * sin, other * cos + one * sin], dim=-1)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        out = x @ self._tensor(f"{name}.weight").T
        if f"{name}.bias" in self._tensors:
            out = out + self._tensor(f"{name}.bias")
        if (a := self._lora_tensors.get(f"{name}.weight.lora_a")) is None:
            return out
        down, up = _part(a, slice(None)), _part(self._lora_tensors[f"{name}.weight.lora_b"], slice(None))
        return out + self._scale() / down.shape[0] * (x @ down.T @ up.T)

    def _norm(self, x: Tensor, name: str) -> Tensor:
        scale = (x.square().mean(-1, keepdim=True) + self._figure("attention.layer_norm_rms_epsilon")).rsqrt()
        return x * scale * self._tensor(f"{name}.weight")

    def _tensor(self, name: str) -> Tensor:
        return _part(self._tensors[name], slice(None))

    def _scale(self) -> float:
        found = self._lora.get_field(gguf.Keys.Adapter.LORA_ALPHA) if self._lora is not None else None
        return float(found.contents()) if found is not None else 0.0

    @property
    def _is_gemma(self) -> bool:
        return self.architecture.startswith("gemma")

    def _figure(self, key: str, default: Any = None) -> Any:
        return self._key(f"{self.architecture}.{key}", default)

    def _key(self, key: str, default: Any = None) -> Any:
        found = self._file.get_field(key)
        return default if found is None else found.contents()


def _part(tensor: gguf.ReaderTensor, rows: slice | list[int]) -> Tensor:
    """Rows of a stored tensor, in fp32."""
    return torch.from_numpy(np.array(gguf.quants.dequantize(tensor.data[rows], tensor.tensor_type)))
