"""The model, and the LoRA by itself, as GGUF files: names, order of rows and metadata as llama.cpp has them.

Conventions: llama.cpp's convert_hf_to_gguf.py and convert_lora_to_gguf.py, and the specification in ggml/docs/gguf.md.
What llama.cpp computes of it is in trainer/export_graph.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from torch import Tensor
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from schemas.exports import GGUF_ARCHITECTURES
from trainer.export_merge import Adapter, Merged, plain
from trainer.export_vocabulary import Vocabulary

ROPE_FREQS = "rope_freqs.weight"
GEMMA3_GLOBAL_EVERY = 6
"""llama.cpp has it in its code: each sixth layer of Gemma 3 looks at everything, the others at a window."""
_ACTIVATIONS = {"llama": "silu", "qwen2": "silu", "qwen3": "silu", "gemma": "gelu", "gemma3": "gelu"}


class Unsupported(Exception):  # noqa: N818 - says what is wrong with the model
    """llama.cpp would compute something else than the model does, or cannot hold it."""


@dataclass(frozen=True)
class Layout:
    """Where llama.cpp looks for a model's tensors, and what it makes of them."""

    architecture: str
    config: Any
    """Of the text part."""

    @classmethod
    def of(cls, folder: Path) -> Layout:
        """Of a model's folder. Raises Unsupported."""
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        architecture = GGUF_ARCHITECTURES.get(config.model_type)
        if architecture is None:
            raise Unsupported(f"models of type {config.model_type}")
        layout = cls(architecture, config.get_text_config())
        for problem in layout._objections():
            raise Unsupported(problem)
        return layout

    @property
    def head_dim(self) -> int:
        """Features of a head."""
        config = self.config
        return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads

    def name(self, tensor: str) -> str | None:
        """llama.cpp's name of a tensor; None for one that it computes nothing with: images, or an output layer that is
        the embedding once more."""
        short = plain(tensor)
        if short == "lm_head.weight":
            return None if self.config.tie_word_embeddings else "output.weight"
        if not short.startswith(("layers.", "embed_tokens.", "norm.")):
            return None
        names = _names(self.architecture, self.config.num_hidden_layers)
        found = names.get_name(f"model.{short}", try_suffixes=(".weight", ".bias"))
        if found is None:
            raise Unsupported(f"no name for {short}")
        return found

    def rows(self, tensor: str, weight: Tensor) -> Tensor:
        """The rows in llama.cpp's order, which for Llama's q and k turns neighbours instead of halves."""
        heads = {"q_proj": self.config.num_attention_heads, "k_proj": self.config.num_key_value_heads}
        layer = tensor.rpartition(".")[0].rpartition(".")[2]
        if self.architecture != "llama" or layer not in heads:
            return weight
        halves = weight.reshape(heads[layer], 2, -1, *weight.shape[1:])
        return halves.transpose(1, 2).reshape(weight.shape)

    def stored(self, tensor: str, weight: Tensor) -> np.ndarray[Any, Any]:
        """A tensor as it lies in the file: bf16, and fp32 what has one dimension, which is what llama.cpp takes."""
        if self.architecture.startswith("gemma") and tensor.endswith("norm.weight"):
            weight = weight.float() + 1.0  # Gemma's norms multiply by 1 + w
        weight = self.rows(tensor, weight).contiguous()
        if weight.ndim == 1:
            return weight.float().numpy()
        return weight.to(torch.bfloat16).view(torch.uint8).numpy()

    def rope_factors(self) -> np.ndarray[Any, Any] | None:
        """What each frequency is divided by, where Llama 3's scaling changes them."""
        rope = self.config.rope_parameters
        if rope.get("rope_type") != "llama3":
            return None
        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](self.config, torch.device("cpu"))
        plain_ones = rope["rope_theta"] ** (-torch.arange(0, self.head_dim, 2).float() / self.head_dim)
        factors: np.ndarray[Any, Any] = (plain_ones / scaled).numpy()
        return factors

    def describe(self, writer: GGUFWriter) -> None:
        """The figures of the architecture."""
        config = self.config
        rope = config.rope_parameters
        writer.add_vocab_size(config.vocab_size)
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_key_length(self.head_dim)
        writer.add_value_length(self.head_dim)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_dimension_count(self.head_dim)
        everywhere = rope.get("full_attention", rope)
        writer.add_rope_freq_base(everywhere["rope_theta"])
        if everywhere["rope_type"] == "linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(everywhere["factor"])
        if self.architecture == "gemma3":
            writer.add_rope_freq_base_swa(rope["sliding_attention"]["rope_theta"])
            writer.add_sliding_window(config.sliding_window)
        writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)

    def _objections(self) -> Iterator[str]:
        config, is_gemma3 = self.config, self.architecture == "gemma3"
        activation = getattr(config, "hidden_activation", None) or config.hidden_act
        if not activation.startswith(_ACTIVATIONS[self.architecture]):
            yield f"the activation {activation}"
        for cap in ("attn_logit_softcapping", "final_logit_softcapping"):
            if getattr(config, cap, None) is not None:
                yield cap
        kinds = list(getattr(config, "layer_types", None) or [])
        if is_gemma3:
            places = range(1, config.num_hidden_layers + 1)
            known = ["full_attention" if i % GEMMA3_GLOBAL_EVERY == 0 else "sliding_attention" for i in places]
            if kinds != known:
                yield "another order of local and global layers"
            if config.query_pre_attn_scalar != self.head_dim:
                yield "another scale of attention"
        elif "sliding_attention" in kinds or (not kinds and getattr(config, "sliding_window", None)):
            yield "a sliding window"
        for kind, rope in config.rope_parameters.items() if is_gemma3 else [("", config.rope_parameters)]:
            known_types = {"llama": {"default", "llama3"}, "gemma3": {"default", "linear"}}
            if rope["rope_type"] not in known_types.get(self.architecture, {"default"}):
                yield f"positions scaled by {rope['rope_type']}"
            if kind == "sliding_attention" and rope["rope_type"] != "default":
                yield "scaled positions of local layers"
            if rope.get("partial_rotary_factor", 1.0) != 1.0:
                yield "positions on a part of each head"


_ARCH = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name in GGUF_ARCHITECTURES.values()}


@functools.cache
def _names(architecture: str, layers: int) -> gguf.TensorNameMap:
    return gguf.get_tensor_name_map(_ARCH[architecture], layers)


@dataclass(frozen=True)
class Naming:
    """What a file says of where it is from."""

    name: str
    licence: str
    base: str


def write_model(
    path: Path, merged: Merged, layout: Layout, vocabulary: Vocabulary, naming: Naming, alive: Callable[[], None]
) -> None:
    """The merged model, one tensor in memory at a time. Raises Unsupported."""
    writer = _writer(path, layout, naming)
    writer.add_type(gguf.GGUFType.MODEL)
    layout.describe(writer)
    vocabulary.write(writer)
    names = {name: stored for name in merged.names if (stored := layout.name(name)) is not None}
    factors = layout.rope_factors()
    if factors is not None:
        writer.add_tensor_info(ROPE_FREQS, factors.shape, factors.dtype, factors.nbytes)
    for name, stored in names.items():
        shape = merged.base.shape(name)
        elements = torch.Size(shape).numel()
        if len(shape) == 1:
            writer.add_tensor_info(stored, shape, np.dtype(np.float32), 4 * elements)
        else:
            writer.add_tensor_info(stored, shape, np.dtype(np.uint16), 2 * elements, GGMLQuantizationType.BF16)
    _begin(writer)
    if factors is not None:
        writer.write_tensor_data(factors)
    for name in names:
        writer.write_tensor_data(layout.stored(name, merged.tensor(name)))
        alive()
    writer.close()


def write_adapter(path: Path, adapter: Adapter, layout: Layout, naming: Naming) -> None:
    """The LoRA by itself, in fp32: every backend of llama.cpp takes that, and bf16 values stay what they are."""
    writer = _writer(path, layout, naming)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(adapter.config["lora_alpha"]))
    for name, tensor in adapter_tensors(adapter, layout).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def adapter_tensors(adapter: Adapter, layout: Layout) -> dict[str, np.ndarray[Any, Any]]:
    """llama.cpp's name → values of each half. Rows that a layer's weights have in another order, B has, too."""
    found = {}
    for module, (a, b) in adapter.pairs.items():
        stored = layout.name(f"{module}.weight")
        if stored is None:
            raise Unsupported(f"an adapter on {module}")
        found[f"{stored}.lora_a"] = a.float().contiguous().numpy()
        found[f"{stored}.lora_b"] = layout.rows(f"{module}.weight", b).float().contiguous().numpy()
    return found


def values(tensor: gguf.ReaderTensor) -> np.ndarray[Any, Any]:
    """A stored tensor in fp32, its shape as PyTorch has it."""
    return np.asarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type))


def raw(tensor: gguf.ReaderTensor) -> np.ndarray[Any, Any]:
    """A stored tensor's bytes, as `Layout.stored` makes them."""
    return np.asarray(tensor.data)


def by_name(file: GGUFReader) -> dict[str, gguf.ReaderTensor]:
    """Name → tensor."""
    return {tensor.name: tensor for tensor in file.tensors}


def _writer(path: Path, layout: Layout, naming: Naming) -> GGUFWriter:
    writer = GGUFWriter(path, layout.architecture)
    writer.add_name(naming.name)
    writer.add_license(naming.licence)
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, naming.base)
    writer.add_base_model_repo_url(0, f"https://huggingface.co/{naming.base}")
    return writer


def _begin(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
