"""Small models of every architecture of the catalogue with random adapters, and what is exported of them."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from schemas.catalogue import CATALOGUE, BaseModelRow
from schemas.manifest import Manifest
from tests.unit import families
from tests.unit.test_catalogue import config_of
from trainer.model import MODELS_DIR
from trainer.prepared import Origin, seal

CPU = torch.device("cpu")
ROWS: dict[str, BaseModelRow] = {row.architecture.model_type: row for row in CATALOGUE.values() if row.chat is not None}
"""One row of each architecture."""


@dataclass(frozen=True)
class Small:
    """A base model in a models folder, and an adapter on it."""

    row: BaseModelRow
    models: Path
    adapter: Path
    tokenizer: Any
    ids: list[int]

    @property
    def base(self) -> Path:
        return self.models / self.row.folder

    def manifest(self, *forms: str) -> Manifest:
        wanted = {"name": "t", "base_model": self.row.id, "dataset": {"train": ["t.jsonl"]}, "export": list(forms)}
        return Manifest.model_validate(wanted)


def nothing() -> None:
    """A heartbeat that nobody hears."""


def change(file: Path, how: Callable[[dict[str, Any]], Any]) -> None:
    """Writes a JSON file anew."""
    content = json.loads(file.read_text())
    how(content)
    file.write_text(json.dumps(content))


@functools.cache
def _kept(kind: str) -> Path:
    """Made once a process: folders `models` and `adapter`."""
    row = ROWS[kind]
    home = Path(tempfile.mkdtemp(prefix=f"adaptml-small-{kind}-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    base = home / "models" / row.folder
    assert row.chat is not None
    vocab = families.bare(row.chat).get_vocab_size() + 3  # as real embeddings have more rows than words
    hidden = 32 if "gemma" in kind else 64  # as wide as all heads together, or not
    shape = row.architecture.model_copy(
        update={
            "layers": 6 if row.architecture.sliding_window else 2, "hidden": hidden, "heads": 4, "kv_heads": 2,
            "head_dim": 16, "intermediate": 48, "vocab": vocab,
            "sliding_window": 8 if row.architecture.sliding_window else None,
        }
    )  # fmt: skip
    config = config_of(shape)
    if hasattr(config, "vision_config"):
        for name, value in {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}.items():
            setattr(config.vision_config, name, value)
        config.vision_config.num_hidden_layers = 1
    text = config.get_text_config()
    text.initializer_range = hidden**-0.5  # so that every layer matters
    if kind in {"gemma3_text", "gemma3"}:
        text.query_pre_attn_scalar = 16
    if kind == "llama":
        text.rope_parameters = {
            "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
        }  # fmt: skip
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:  # norms and biases, which are fresh otherwise
                parameter.add_(torch.randn_like(parameter) * 0.2)
            elif "embed" in name:
                parameter.mul_(4)
    model.save_pretrained(base, max_shard_size="60KB")
    (base / "tokenizer.json").write_text(families.bare(row.chat).to_str(), "utf-8")
    (base / "tokenizer_config.json").write_text(json.dumps(families.config(row.chat)), "utf-8")
    seal(base, Origin(model=row.id, revision=row.revision, source="test"))

    for part in row.left_out:
        setattr(model.model, part, None)
    targets = row.target_modules("all-linear")
    lora = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in lora.named_parameters():
            if "lora_" in name:
                parameter.copy_((torch.randn_like(parameter) * 0.1).to(torch.bfloat16))
    lora.to(torch.bfloat16).save_pretrained(home / "adapter", save_embedding_layers=False)
    return home


def small(kind: str, set_env: Callable[[str, str], None], into: Path) -> Small:
    """The small model of an architecture, in folders of its own, where the trainer looks for it."""
    shutil.copytree(_kept(kind), into, dirs_exist_ok=True)
    row = ROWS[kind]
    set_env(MODELS_DIR, str(into / "models"))
    tokenizer = AutoTokenizer.from_pretrained(into / "models" / row.folder)
    ids = tokenizer("The quick brown fox jumps over the lazy dog, and the cat sat.")["input_ids"]
    return Small(row, into / "models", into / "adapter", tokenizer, ids)
