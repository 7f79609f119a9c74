"""Each row of the catalogue against the architecture that transformers builds from it, on the meta device: no memory.

So a row cannot say anything else than the model class does: parameters, shapes of linear layers, and what PEFT adds.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from docs.generate import manifest_schema
from schemas.catalogue import CATALOGUE, FAMILIES, Architecture, BaseModelRow
from schemas.manifest_problems import suggestion

PUBLISHED = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134_515_008,
    "HuggingFaceTB/SmolLM2-360M-Instruct": 361_821_120,
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": 1_711_376_384,
    "google/gemma-2b": 2_506_172_416,
    "google/gemma-2b-it": 2_506_172_416,
    "google/gemma-3-1b-it": 999_885_952,
    "google/gemma-3-4b-it": 3_880_263_168,
    "meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400,
    "meta-llama/Llama-3.2-3B-Instruct": 3_212_749_824,
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "mistralai/Mistral-7B-Instruct-v0.3": 7_248_023_552,
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
    "Qwen/Qwen2.5-3B-Instruct": 3_085_938_688,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
}
"""What others state: Gemma, Qwen 2.5 and Qwen 3 by the `params` of keras-team/keras-hub's presets at 1df65dab; the rest
by the parameters that the safetensors headers of the hub's checkpoints sum up to, as public projects quote them. Gemma
3 4B is keras-hub's 3,880,099,328 of its text part and 64 more rows of the embedding, which the hub's checkpoint has."""
GEMMA_3_4B_WITH_IMAGES = 4_300_079_472
"""As its safetensors headers sum up to."""

SIGLIP = {
    "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
    "image_size": 896, "patch_size": 14, "vision_use_head": False,
}  # fmt: skip
"""The encoder of Gemma 3's images, so400m. Its right figures are those that make up the published sum."""

every_row = pytest.mark.parametrize("row", CATALOGUE.values(), ids=list(CATALOGUE))


def config_of(shape: Architecture) -> Any:
    """The configuration that transformers makes of a row. What the row does not say counts no parameters."""
    figures: dict[str, Any] = {
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.hidden,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.intermediate,
        "vocab_size": shape.vocab,
        "tie_word_embeddings": shape.tied_embeddings,
        "sliding_window": shape.sliding_window,
    }
    if shape.model_type == "gemma3":
        figures = {"text_config": figures, "vision_config": SIGLIP, "tie_word_embeddings": shape.tied_embeddings}
    return AutoConfig.for_model(shape.model_type, **figures)


def build(shape: Architecture) -> Any:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config_of(shape), dtype=torch.bfloat16)


@functools.cache
def built(model: str) -> Any:
    return build(CATALOGUE[model].architecture)


def decoder(model: Any) -> Any:
    return model.model.language_model if hasattr(model.model, "language_model") else model.model


def count(row: BaseModelRow) -> int:
    """Parameters of all that is trained through; `parameters()` names tied ones once."""
    left_out = sum(p.numel() for part in row.left_out for p in getattr(built(row.id).model, part).parameters())
    return sum(p.numel() for p in built(row.id).parameters()) - left_out


@every_row
def test_a_row_counts_the_parameters_that_transformers_builds_from_it(row: BaseModelRow) -> None:
    assert row.architecture.parameters() == count(row)


@every_row
def test_a_row_counts_the_parameters_that_others_publish(row: BaseModelRow) -> None:
    assert row.architecture.parameters() == PUBLISHED[row.id]


def test_gemma_3_4b_is_the_published_model_less_what_is_for_images() -> None:
    assert sum(p.numel() for p in built("google/gemma-3-4b-it").parameters()) == GEMMA_3_4B_WITH_IMAGES


@every_row
def test_the_linear_layers_of_a_block_have_the_rows_shapes_biases_and_names(row: BaseModelRow) -> None:
    shape = row.architecture
    for layer in decoder(built(row.id)).layers:
        found = {n.rsplit(".", 1)[-1]: m for n, m in layer.named_modules() if isinstance(m, torch.nn.Linear)}
        assert {name: (m.in_features, m.out_features) for name, m in found.items()} == shape.linear_shapes()
        biased = {name for name, module in found.items() if module.bias is not None}
        assert biased == ({"q_proj", "k_proj", "v_proj"} if shape.qkv_bias else set())


@every_row
def test_norms_and_biases_are_what_is_neither_linear_nor_embedding(row: BaseModelRow) -> None:
    parameters = dict(decoder(built(row.id)).named_parameters())
    norms = sum(p.numel() for name, p in parameters.items() if "norm" in name)
    biases = sum(p.numel() for name, p in parameters.items() if name.endswith(".bias"))
    assert (norms, biases) == (row.architecture.norm_parameters(), row.architecture.bias_parameters())


def added_by_peft(model: Any, targets: list[str]) -> int:
    with torch.device("meta"):
        adapted = get_peft_model(model, LoraConfig(r=16, target_modules=targets))
    return sum(p.numel() for name, p in adapted.named_parameters() if "lora_" in name)


@every_row
@pytest.mark.parametrize("asked", ["attention", "all-linear", ["q_proj", "v_proj"]], ids=str)
def test_peft_adds_as_many_parameters_as_the_row_says(row: BaseModelRow, asked: str | list[str]) -> None:
    """With two layers: all are alike, as another test holds, and PEFT takes its time for each."""
    shallow = row.architecture.model_copy(update={"layers": 2})
    targets = row.target_modules(asked)
    assert added_by_peft(decoder(build(shallow)), targets) == shallow.lora_parameters(16, targets)


def test_lora_on_gemma_2b_has_the_parameters_of_the_original() -> None:
    row = CATALOGUE["google/gemma-2b-it"]
    targets = row.target_modules("attention")
    assert targets == ["q_proj", "k_proj", "v_proj", "o_proj"]
    assert added_by_peft(build(row.architecture), targets) == row.architecture.lora_parameters(16, targets) == 3_686_400


@every_row
def test_what_the_row_says_of_norms_and_windows_is_what_the_model_type_has(row: BaseModelRow) -> None:
    """So that a copied row with another model_type does not keep them."""
    shape, config = row.architecture, built(row.id).config.get_text_config()
    block = decoder(built(row.id)).layers[0]
    assert hasattr(block.self_attn, "q_norm") == shape.qk_norm
    assert sum("norm" in name for name, _ in block.named_children()) == shape.block_norms
    windows = {layer.self_attn.sliding_window for layer in decoder(built(row.id)).layers if "sliding" in kind(layer)}
    assert windows == ({shape.sliding_window} if shape.sliding_window else set())
    # trainer/loss.py takes the logits from the output layer alone.
    assert getattr(config, "final_logit_softcapping", None) is None


def kind(layer: Any) -> str:
    return getattr(layer.self_attn, "layer_type", None) or ""


@every_row
def test_what_is_left_out_is_there_to_be_left_out(row: BaseModelRow) -> None:
    others = {name for name, _ in built(row.id).model.named_children()} - {"language_model"}
    assert set(row.left_out) == (others if row.architecture.model_type == "gemma3" else set())


@every_row
def test_a_row_is_whole(row: BaseModelRow) -> None:
    owner, name = row.id.split("/")
    assert row.folder == f"{owner}--{name}"
    assert row.licence
    assert row.context % 64 == 0
    assert row.chat is None or row.chat in FAMILIES
    assert row.architecture.heads % row.architecture.kv_heads == 0


def test_every_family_is_used_and_closes_turns_with_a_control_token() -> None:
    assert {row.chat for row in CATALOGUE.values()} - {None} == set(FAMILIES)
    for family in FAMILIES.values():
        assert family.end_of_turn in family.control_tokens
        assert family.bos is None or family.bos in family.control_tokens


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("gemma-2b-it", "google/gemma-2b-it"),
        ("GOOGLE/GEMMA-2B-IT", "google/gemma-2b-it"),
        ("google/gemma-3-1b-pt", "google/gemma-3-1b-it"),
        ("Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-7B-Instruct"),
        ("Qwen3-8B", "Qwen/Qwen3-8B"),
        ("meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-1B-Instruct"),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("mistralai/Mistral-7B-Instruct-v0.2", "mistralai/Mistral-7B-Instruct-v0.3"),
        ("smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("unsloth/Llama-3.2-3B-Instruct", "meta-llama/Llama-3.2-3B-Instruct"),
    ],
)
def test_the_model_that_was_meant_is_suggested(asked: str, meant: str) -> None:
    assert suggestion(asked, CATALOGUE, "models") == f"Did you mean {meant}?"


def test_an_editor_is_offered_every_model() -> None:
    assert manifest_schema()["properties"]["base_model"]["enum"] == sorted(CATALOGUE)
