"""`python -m trainer.quantise FOLDER`: bf16 and NF4 weights of a downloaded model, ahead of time.

A process of its own for each model, which `trainer.prepare` starts: whatever it loads reaches no hub, and its memory is
free again afterwards.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

from trainer.attention import PACKED
from trainer.prepared import NF4, STAMP, Stamp

_SHARD = "1GB"
"""Files of this size, so that a bucket's are read beside each other."""


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m trainer.quantise", description=__doc__)
    parser.add_argument("folder", type=Path, help="where bf16 weights and nf4/ are laid")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--downloaded", type=Path, help="folder with a model's files, as they came")
    source.add_argument("--gguf", type=Path, help="GGUF file to make the model's files of")
    options = parser.parse_args(arguments)
    transformers_logging.disable_progress_bar()
    if options.gguf is not None:
        from trainer.wheel import unpack

        unpack(options.gguf, options.folder)
    else:
        in_bf16(options.downloaded, options.folder)
    write_nf4(options.folder, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return 0


def in_bf16(downloaded: Path, folder: Path) -> None:
    """Lays a model's files into a folder; weights that are of another type are rounded to bf16.

    Files keep their names and tensors theirs, so that whoever knows the model finds it. What need not be changed is
    linked, not copied.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(path for path in downloaded.iterdir() if path.is_file()):
        target = folder / path.name
        target.unlink(missing_ok=True)
        if path.suffix == ".safetensors" and _is_to_be_rounded(path):
            with safe_open(path, framework="pt") as opened:
                tensors = {name: _rounded(opened.get_tensor(name)) for name in opened.keys()}  # noqa: SIM118
                save_file(tensors, target, metadata=opened.metadata() or {"format": "pt"})
            continue
        try:
            target.hardlink_to(path)
        except OSError:  # not on this file system
            shutil.copyfile(path, target)


def write_nf4(folder: Path, device: torch.device) -> None:
    """Writes `nf4/` beside bf16 weights: just what quantising them while loading would give, and a stamp.

    The whole model, also parts that training leaves out: so it is the model that others know, and quantising and
    loading do the same for every architecture.
    """
    shutil.rmtree(folder / NF4, ignore_errors=True)
    model = load(folder, device, nf4())
    model.save_pretrained(folder / NF4, max_shard_size=_SHARD)
    stamp = Stamp(
        bitsandbytes=metadata.version("bitsandbytes"),
        torch=metadata.version("torch"),
        transformers=metadata.version("transformers"),
        device=device.type,
    )
    (folder / STAMP).write_text(stamp.model_dump_json(indent=2) + "\n", "utf-8")


def nf4() -> BitsAndBytesConfig:
    """`prepared.QUANTISATION`, as transformers says it."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def load(folder: Path, device: torch.device, quantisation: BitsAndBytesConfig | None = None) -> Any:
    """A model as it lies in a folder, which may be quantised already. No remote code, no pickle: safetensors only."""
    return AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.bfloat16,
        attn_implementation=PACKED,
        device_map={"": device},
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        # None would take the place of what the folder's configuration says of its own weights
        **({} if quantisation is None else {"quantization_config": quantisation}),
    )


def _is_to_be_rounded(path: Path) -> bool:
    with safe_open(path, framework="pt") as opened:
        types = {str(opened.get_slice(name).get_dtype()) for name in opened.keys()}  # noqa: SIM118
    return any(re.fullmatch(r"F\d+", name) for name in types)


def _rounded(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor


if __name__ == "__main__":
    sys.exit(main())
