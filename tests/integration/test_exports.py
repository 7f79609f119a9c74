"""Exports as runs deliver them: trained, checked, told, or refused before anything is committed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from local import paths
from schemas.catalogue import CATALOGUE
from schemas.manifest import Manifest
from schemas.run_states import RunState
from tests import models, tiny_model
from tests.cloud import MODEL
from tests.training import Desk
from trainer import evaluate, export
from trainer.export_merge import Merged
from trainer.model import MODELS_DIR

SETTINGS: dict[str, Any] = {
    "lora": {"r": 4},
    "training": {"max_steps": 4, "batch_size": 6, "learning_rate": 1e-2, "max_seq_length": 96},
    "export": ["merged", "gguf"],
}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv(MODELS_DIR, str(tiny_model.lay(tmp_path)))
    monkeypatch.setattr(evaluate, "NEW_TOKENS", 4)
    return tmp_path / CATALOGUE[MODEL].folder


@pytest.mark.usefixtures("tiny")
def test_a_version_holds_what_was_asked_for_and_tells_of_it(tmp_path: Path) -> None:
    desk = Desk(every_s=1000, **SETTINGS)
    assert desk.attempt() == 0
    assert desk.run.state is RunState.SUCCEEDED, desk.run.error
    assert desk.run.artifacts is not None
    assert desk.run.artifacts.sha256.keys() >= {
        "adapter_model.safetensors", "adapter.gguf", "model-bf16.gguf", "merged/config.json",
        "merged/model.safetensors", "merged/tokenizer.json", "README.md", "run.json",
    }  # fmt: skip
    for name in desk.run.artifacts.sha256:
        (tmp_path / "v1" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "v1" / name).write_bytes(desk.delivered(name))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "v1" / "merged")
    assert sum(p.numel() for p in loaded.parameters())

    told = {one["form"]: one for one in json.loads(desk.delivered("run.json"))["exports"]}
    assert told.keys() == {"merged", "gguf"}
    assert told["gguf"]["files"] == ["adapter.gguf", "model-bf16.gguf"]
    assert told["gguf"]["size_bytes"] == sum(len(desk.delivered(name)) for name in told["gguf"]["files"])
    assert told["merged"]["seconds"] > 0
    assert told["merged"]["checks"]["held_out_loss"] == pytest.approx(desk.run.metrics.eval_loss_after, rel=0.05)
    card = desk.delivered("README.md").decode()
    for words in (
        "AutoPeftModelForCausalLM.from_pretrained", "--lora-modules bot=path/to/this/folder", "--max-lora-rank 8",
        "--lora adapter.gguf", "llama-cli -m model-bf16.gguf", "ollama create bot",
        'from_pretrained("path/to/this/folder/merged")', "| merged | ", "| gguf | 2 | ",
    ):  # fmt: skip
        assert words in card


@pytest.mark.usefixtures("tiny")
def test_the_adapter_alone_is_told_without_the_others() -> None:
    desk = Desk(every_s=1000, **SETTINGS | {"export": ["adapter"]})
    assert desk.attempt() == 0
    assert not [name for name in desk.run.artifacts.sha256 if "gguf" in name or "merged" in name]  # type: ignore[union-attr]
    card = desk.delivered("README.md").decode()
    assert "--lora-modules" in card
    assert "## Exports" not in card
    assert "Ollama:" not in card
    assert json.loads(desk.delivered("run.json"))["exports"] == []


@pytest.mark.usefixtures("tiny")
def test_an_export_that_differs_fails_the_run_before_anything_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Merged.tensor
    monkeypatch.setattr(Merged, "tensor", lambda self, name: right(self, name) * 1.1)
    desk = Desk(every_s=1000, **SETTINGS)
    assert desk.attempt() == 0
    assert desk.run.state is RunState.FAILED
    assert desk.run.error is not None
    assert desk.run.error.code == "export_failed"
    assert "the export merged cannot be delivered: layers." in desk.run.error.message
    assert desk.run.artifacts is None
    assert not [name for name in desk.bucket.objects if name.startswith("t/bot/v1/") or ".staging" in name]


def test_what_cannot_be_exported_fails_before_the_first_step(tiny: Path) -> None:
    config = json.loads((tiny / "config.json").read_text())
    rope = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 256}
    (tiny / "config.json").write_text(json.dumps(config | {"rope_parameters": rope}))
    desk = Desk(every_s=1000, **SETTINGS)
    assert desk.attempt() == 0
    assert desk.run.state is RunState.FAILED
    assert desk.run.error is not None
    assert "positions scaled by yarn" in desk.run.error.message
    assert desk.run.progress.step == 0


@pytest.mark.usefixtures("tiny")
def test_an_adapter_that_vllm_does_not_load_is_delivered_with_a_word_about_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "fitness", lambda *_: export.Fitness(vllm=["rank 1024 is more than 512"]))
    desk = Desk(every_s=1000, **SETTINGS | {"export": ["adapter"]})
    assert desk.attempt() == 0
    assert "vLLM does not take this adapter: rank 1024 is more than 512." in desk.delivered("README.md").decode()


@pytest.fixture
def prepared() -> Iterator[None]:
    before = os.environ.get(MODELS_DIR)
    models.prepare()
    yield
    os.environ.pop(MODELS_DIR)
    if before is not None:
        os.environ[MODELS_DIR] = before


@pytest.mark.slow
@pytest.mark.usefixtures("prepared")
def test_the_real_model_is_the_same_in_every_form(tmp_path: Path) -> None:
    row = CATALOGUE[MODEL]
    base = paths.MODELS / row.folder
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    lora = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=row.target_modules("attention")))
    with torch.no_grad():
        for name, parameter in lora.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.02)
    lora.to(torch.bfloat16).save_pretrained(tmp_path, save_embedding_layers=False)
    del model, lora
    tokenizer = AutoTokenizer.from_pretrained(base)
    wanted = {"name": "t", "base_model": row.id, "dataset": {"train": ["t"]}, "export": ["merged", "gguf"]}
    manifest = Manifest.model_validate(wanted)
    ids = tokenizer("How many grams are 3 pounds and 12 ounces? About 1700.")["input_ids"]

    export.require(manifest, row, tokenizer)
    cpu = torch.device("cpu")
    found = export.deliver(manifest, row, tmp_path, tokenizer, ids, lambda _: None, cpu, lambda: None)
    for one in found.exported:
        assert one.checks["logits_differ_by"] < 0.06  # type: ignore[operator]

    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "model.gguf").hardlink_to(tmp_path / export.MODEL_GGUF)
    tokens = torch.tensor([ids])
    with torch.no_grad():
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)(tokens).logits
        read = AutoModelForCausalLM.from_pretrained(tmp_path / "alone", gguf_file="model.gguf", dtype=torch.float32)
        assert torch.allclose(read(tokens).logits, merged, atol=1e-3)
    words = AutoTokenizer.from_pretrained(tmp_path / "alone", gguf_file="model.gguf")
    assert words.chat_template == tokenizer.chat_template
    assert words("Hello 123")["input_ids"] == tokenizer("Hello 123")["input_ids"]
