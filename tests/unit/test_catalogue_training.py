"""Every architecture of the catalogue in small, through the trainer's own loading, LoRA and loss, on the CPU."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from schemas.catalogue import CATALOGUE, Architecture, BaseModelRow
from schemas.manifest import Manifest
from tests.unit import families
from tests.unit.test_catalogue import config_of
from trainer.loss import completion_loss
from trainer.model import MODELS_DIR, chat_tokenizer, checkpoint_blocks, load_base, lora_parameters, with_lora
from trainer.packing import IGNORED, Tokens, pack
from trainer.prepared import Origin, seal

CPU = torch.device("cpu")
of_each_type = pytest.mark.parametrize(
    "row",
    {row.architecture.model_type: row for row in CATALOGUE.values() if row.chat is not None}.values(),
    ids=lambda row: row.architecture.model_type,
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """For models so small more threads only wait for each other, long ones on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small(row: BaseModelRow, vocab: int) -> Architecture:
    """The row's architecture, but for its size; of Gemma 3's layers the sixth is the first that is not local."""
    window, layers = (8, 6) if row.architecture.sliding_window else (None, 2)
    return row.architecture.model_copy(
        update={
            "layers": layers, "hidden": 32, "heads": 4, "kv_heads": 2, "head_dim": 8, "intermediate": 48,
            "vocab": vocab, "sliding_window": window,
        }
    )  # fmt: skip


@pytest.fixture
def prepared(row: BaseModelRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Architecture:
    """The row's model in small lies in the models folder, with random weights and its family's tokenizer."""
    monkeypatch.setenv(MODELS_DIR, str(tmp_path))
    assert row.chat is not None
    folder = tmp_path / row.folder
    shape = small(row, families.bare(row.chat).get_vocab_size())
    config = config_of(shape)
    if hasattr(config, "vision_config"):
        for name, value in {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}.items():
            setattr(config.vision_config, name, value)
        config.vision_config.num_hidden_layers = 1
    torch.manual_seed(7)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(families.bare(row.chat).to_str(), "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(families.config(row.chat)), "utf-8")
    seal(folder, Origin(model=row.id, revision=row.revision, source="test"))
    return shape


def asked(row: BaseModelRow, target_modules: str) -> Manifest:
    lora = {"r": 4, "dropout": 0.0, "target_modules": target_modules}
    return Manifest.model_validate({"name": "t", "base_model": row.id, "dataset": {"train": ["t.jsonl"]}, "lora": lora})


def example(length: int, masked: int, vocab: int) -> Tokens:
    ids = torch.randint(vocab - 1, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    return Tokens(ids, [IGNORED] * masked + ids[masked:])


@of_each_type
@pytest.mark.parametrize("target_modules", ["attention", "all-linear"])
def test_lora_goes_where_the_plan_counts_it(row: BaseModelRow, prepared: Architecture, target_modules: str) -> None:
    manifest = asked(row, target_modules)
    model, _ = load_base(row, quantise=False, device=CPU)
    assert sum(p.numel() for p in model.parameters()) == prepared.parameters()
    model = with_lora(model, manifest, row)
    planned = prepared.lora_parameters(4, row.target_modules(target_modules))
    assert sum(p.numel() for p in lora_parameters(model)) == planned


@of_each_type
def test_a_packed_step_has_the_loss_that_transformers_computes(row: BaseModelRow, prepared: Architecture) -> None:
    """Examples are longer than the window, so that a local layer that looked further back would tell."""
    model, _ = load_base(row, quantise=False, device=CPU)
    model = with_lora(model, asked(row, "all-linear"), row).eval()
    examples = [example(length, length // 3, prepared.vocab) for length in (17, 5, 29)]
    theirs = 0.0
    with torch.no_grad():
        for one in examples:
            output = model(input_ids=torch.tensor([one.ids]), labels=torch.tensor([one.labels]))
            theirs += output.loss.item() * one.trained_tokens
        (packed,) = pack(examples, 64)
        ours = completion_loss(model, packed, CPU).item()
    assert ours == pytest.approx(theirs, rel=2e-3)


@of_each_type
def test_every_part_of_a_qlora_adapter_learns(row: BaseModelRow, prepared: Architecture) -> None:
    model, _ = load_base(row, quantise=True, device=CPU)
    model = with_lora(model, asked(row, "all-linear"), row).train()
    packed = pack([example(29, 9, prepared.vocab)], 0)[0]
    completion_loss(model, packed, CPU).backward()
    learning = {name: p.grad for name, p in model.named_parameters() if "lora_B" in name}
    assert len(learning) == prepared.layers * 7
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in learning.values())


@of_each_type
def test_blocks_that_are_computed_again_give_the_same_gradients(row: BaseModelRow, prepared: Architecture) -> None:
    """As on a GPU whose memory does not suffice otherwise."""
    model, _ = load_base(row, quantise=False, device=CPU)
    model = with_lora(model, asked(row, "attention"), row).train()
    torch.nn.init.ones_(next(p for name, p in model.named_parameters() if "lora_B" in name))
    packed = pack([example(29, 9, prepared.vocab), example(5, 1, prepared.vocab)], 64)[0]
    found = []
    for checkpointing in (False, True):
        checkpoint_blocks(model, checkpointing)
        model.zero_grad()
        completion_loss(model, packed, CPU).backward()
        found.append(torch.cat([p.grad.flatten() for p in lora_parameters(model) if p.grad is not None]))
    assert found[0].abs().sum() > 0
    assert torch.equal(*found)


@of_each_type
def test_an_adapter_fits_the_whole_model(row: BaseModelRow, prepared: Architecture, tmp_path: Path) -> None:
    """As those load it who have the base model from elsewhere, with all its parts."""
    model, _ = load_base(row, quantise=False, device=CPU)
    model = with_lora(model, asked(row, "attention"), row)
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)  # "auto" asks the hub
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / row.folder)
    assert all(getattr(whole.model, part, None) is not None for part in row.left_out)
    loaded: Any = PeftModel.from_pretrained(whole, tmp_path / "adapter")
    names = ({name for name, _ in one.named_parameters() if "lora_" in name} for one in (loaded, model))
    assert next(names) == next(names)


@of_each_type
def test_the_tokenizer_of_the_folder_is_the_familys(row: BaseModelRow, prepared: Architecture) -> None:
    chat = chat_tokenizer(row)
    assert row.family is not None
    assert set(chat.control_tokens) <= {*row.control_tokens, families.EOS[row.chat or ""]}
    assert prepared.vocab == families.bare(row.chat or "").get_vocab_size()
