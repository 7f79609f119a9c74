from __future__ import annotations

from typing import Any

import pytest

from schemas.catalogue import CATALOGUE
from trainer.export_fitness import fitness

CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "r": 16,
    "lora_alpha": 32,
    "target_modules": ["q_proj", "v_proj"],
    "bias": "none",
    "modules_to_save": None,
    "use_dora": False,
    "use_rslora": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "fan_in_fan_out": False,
}
LAYER = "base_model.model.model.layers.0.self_attn.q_proj"


def shapes(layer: str = LAYER, r: int = 16) -> dict[str, tuple[int, ...]]:
    return {f"{layer}.lora_A.weight": (r, 64), f"{layer}.lora_B.weight": (48, r)}


@pytest.mark.parametrize(
    "layer",
    [
        LAYER,
        "base_model.model.model.layers.31.mlp.down_proj",
        LAYER.replace("model.layers", "model.language_model.layers"),
    ],
)
def test_an_adapter_as_we_make_them_is_taken(layer: str) -> None:
    found = fitness(CONFIG, shapes(layer))
    assert (found.vllm, found.llama_cpp, found.max_lora_rank) == ([], [], 16)


def test_every_layer_of_the_catalogue_is_one_that_is_taken() -> None:
    for row in CATALOGUE.values():
        for name in row.target_modules("all-linear"):
            part = "self_attn" if name[0] in "qkvo" else "mlp"
            layer = f"base_model.model.model.layers.3.{part}.{name}"
            assert not fitness(CONFIG, shapes(layer)).vllm, name


@pytest.mark.parametrize(("r", "needed"), [(1, 1), (2, 8), (8, 8), (12, 16), (100, 128), (256, 256), (300, 320)])
def test_vllm_is_told_the_next_rank_that_it_knows(r: int, needed: int) -> None:
    assert fitness(CONFIG | {"r": r}, shapes(r=r)).max_lora_rank == needed


def test_a_rank_that_vllm_does_not_have_is_named() -> None:
    found = fitness(CONFIG | {"r": 1024}, shapes(r=1024))
    assert found.vllm == ["rank 1024 is more than 512"]
    assert not found.llama_cpp


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bias": "all"}, "bias is all"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is set"),
        ({"use_dora": True}, "use_dora is set"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern is set"),
        ({"alpha_pattern": {"q_proj": 8}}, "alpha_pattern is set"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is set"),
        ({"peft_type": "IA3"}, "peft_type is IA3"),
    ],
)
def test_what_neither_takes_is_named(change: dict[str, Any], said: str) -> None:
    found = fitness(CONFIG | change, shapes())
    assert found.vllm == found.llama_cpp == [said]


def test_llama_cpp_knows_nothing_of_rank_stabilised_scaling() -> None:
    found = fitness(CONFIG | {"use_rslora": True}, shapes())
    assert (found.vllm, found.llama_cpp) == ([], ["use_rslora is set"])


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({}, "there is no LoRA tensor"),
        (shapes() | {"base_model.model.lm_head.weight": (9, 9)}, "base_model.model.lm_head.weight is no lora_A"),
        ({f"{LAYER}.lora_A.weight": (16, 64)}, "model.layers.0.self_attn.q_proj has only one of lora_A and lora_B"),
        (shapes(r=8), "do not fit rank 16"),
        (shapes("base_model.model.lm_head"), "lm_head is no linear layer of a decoder block"),
        ({name.replace(".weight", ".default.weight"): s for name, s in shapes().items()}, "is no lora_A or lora_B"),
    ],
)
def test_tensors_that_neither_takes_are_named(tensors: dict[str, tuple[int, ...]], said: str) -> None:
    assert said in fitness(CONFIG, tensors).vllm[0]
    assert fitness(CONFIG, tensors).llama_cpp
