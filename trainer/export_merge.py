"""The adapter merged into the base model's own 16-bit weights, tensor by tensor.

The merge never starts from NF4: what quantisation loses would then be in the merged weights for good. Each weight is
base + (alpha / r) · B A in fp32, rounded to bf16 once. One tensor is in memory at a time, and one shard while it is
written.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

SHARD_BYTES = 1 << 30
INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_COPIED = re.compile(r"[\w.-]+\.(json|jinja|model|txt)|(LICENSE|NOTICE|USE_POLICY)[\w.-]*")
"""Configuration, tokenizer, chat template, processor, and what the base's licence says."""
_WRAPPERS = re.compile(r"^((base_model\.model|model|language_model)\.)+")
_KEY = re.compile(r"(?P<module>.+)\.lora_(?P<half>[AB])\.weight")


class NotWhole(Exception):  # noqa: N818 - says what is wrong with the weights
    """The base's folder, or the adapter, does not hold what a merge needs."""


def plain(name: str) -> str:
    """A tensor's or module's name without what a checkpoint, a model of more than text, or PEFT puts before it."""
    return _WRAPPERS.sub("", name)


class Weights:
    """The tensors of a folder of safetensors, read one at a time."""

    def __init__(self, folder: Path) -> None:
        index = folder / INDEX
        if index.is_file():
            files = json.loads(index.read_text("utf-8"))["weight_map"]
            names = sorted(set(files.values()))
        else:
            names = [_SINGLE]
        if missing := [name for name in names if not (folder / name).is_file()]:
            raise NotWhole(f"{missing[0]} is missing")
        self.folder = folder
        self._files = {name: safe_open(folder / name, framework="pt") for name in names}
        self._file_of = {tensor: name for name, opened in self._files.items() for tensor in opened.keys()}  # noqa: SIM118
        if index.is_file() and set(files) != set(self._file_of):
            raise NotWhole("the index and the files name different tensors")

    @property
    def names(self) -> list[str]:
        """In the order of the files."""
        return list(self._file_of)

    def shape(self, name: str) -> tuple[int, ...]:
        """Without reading the tensor."""
        return tuple(self._files[self._file_of[name]].get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """As safetensors calls it: BF16, F16, F32, U8, …"""
        return str(self._files[self._file_of[name]].get_slice(name).get_dtype())

    def tensor(self, name: str) -> Tensor:
        """Reads one."""
        tensor: Tensor = self._files[self._file_of[name]].get_tensor(name)
        return tensor


class Adapter:
    """A LoRA as it lies in a folder."""

    def __init__(self, folder: Path) -> None:
        self.config: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        self.tensors: dict[str, Tensor] = load_file(folder / "adapter_model.safetensors")
        rank = self.config["r"]
        self.scale = self.config["lora_alpha"] / (math.sqrt(rank) if self.config.get("use_rslora") else rank)
        halves: dict[str, dict[str, Tensor]] = {}
        for name, tensor in self.tensors.items():
            if (match := _KEY.fullmatch(name)) is None:
                raise NotWhole(f"{name} is no LoRA tensor")
            halves.setdefault(plain(match["module"]), {})[match["half"]] = tensor
        self.pairs = {module: (both["A"], both["B"]) for module, both in halves.items()}
        """Plain name of a layer → (A, B)."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name → shape of each tensor."""
        return {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}


class Merged:
    """Base and adapter as one model. Raises NotWhole where they do not fit."""

    def __init__(self, base: Weights, adapter: Adapter) -> None:
        self.base, self.adapter = base, adapter
        layers = {plain(name).removesuffix(".weight") for name in base.names}
        if strange := sorted(adapter.pairs.keys() - layers):
            raise NotWhole(f"the base has no weights for {strange[0]}")
        require_full_precision(base)

    @property
    def names(self) -> list[str]:
        """The base's."""
        return self.base.names

    def is_changed(self, name: str) -> bool:
        """True where the adapter adds to it."""
        return plain(name).removesuffix(".weight") in self.adapter.pairs and name.endswith(".weight")

    def tensor(self, name: str) -> Tensor:
        """One merged weight, in bf16 as the base was trained on."""
        weight = self.base.tensor(name).to(torch.bfloat16)
        if not self.is_changed(name):
            return weight
        a, b = self.adapter.pairs[plain(name).removesuffix(".weight")]
        return torch.addmm(weight.float(), b.float(), a.float(), alpha=self.adapter.scale).to(torch.bfloat16)

    def size_bytes(self) -> int:
        """Of all weights in bf16."""
        return sum(2 * torch.Size(self.base.shape(name)).numel() for name in self.names)


def require_full_precision(base: Weights) -> None:
    """Raises NotWhole where the base's weights were quantised: a merge into them would be a merge into their errors."""
    config = json.loads((base.folder / "config.json").read_text("utf-8"))
    if config.get("quantization_config"):
        raise NotWhole("the base's weights are quantised")
    if strange := [name for name in base.names if base.dtype(name) not in {"BF16", "F16", "F32"}]:
        raise NotWhole(f"the base's {strange[0]} is of type {base.dtype(strange[0])}")


def write(merged: Merged, target: Path, alive: Callable[[], None]) -> None:
    """Writes a folder that `from_pretrained` loads: the base's, with merged weights in bf16."""
    target.mkdir()
    for path in sorted(merged.base.folder.iterdir()):
        if path.is_file() and _COPIED.fullmatch(path.name) and path.name != INDEX:
            shutil.copyfile(path, target / path.name)
    config = json.loads((target / "config.json").read_text("utf-8"))
    config.pop("torch_dtype", None)
    (target / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}, indent=2) + "\n", encoding="utf-8")

    shards = list(_shards(merged))
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = _SINGLE if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {}
        for name in names:
            tensors[name] = merged.tensor(name).contiguous()
            alive()
        save_file(tensors, target / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
        alive()
    if len(shards) > 1:
        index = {"metadata": {"total_size": merged.size_bytes()}, "weight_map": weight_map}
        (target / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _shards(merged: Merged) -> Iterator[list[str]]:
    """The names of each file's tensors, in their order."""
    names: list[str] = []
    size = 0
    for name in merged.names:
        more = 2 * torch.Size(merged.base.shape(name)).numel()
        if names and size + more > SHARD_BYTES:
            yield names
            names, size = [], 0
        names.append(name)
        size += more
    yield names
