from __future__ import annotations

import pytest

from adaptml.planning.estimate import batch_size, cost_usd, estimate, gpu_memory_bytes, objections
from schemas.catalogue import CATALOGUE
from schemas.manifest import Manifest

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


def manifest(model: str = "google/gemma-2b-it", **settings: object) -> Manifest:
    return Manifest.model_validate({"name": "bot", "base_model": model, "dataset": {"train": ["a.jsonl"]}} | settings)


def test_gemma_2b_has_the_parameters_of_the_original() -> None:
    shape = CATALOGUE["google/gemma-2b-it"].architecture
    assert shape.parameters() == 2_506_172_416
    assert shape.lora_parameters(16, ATTENTION) == 3_686_400


def test_quantising_shrinks_the_plan_and_length_grows_it() -> None:
    qlora, lora = gpu_memory_bytes(manifest()), gpu_memory_bytes(manifest(method="lora"))
    long = gpu_memory_bytes(manifest(training={"max_seq_length": 8192}))
    assert qlora < lora
    assert qlora < long


def test_an_hour_on_an_l4_costs_about_what_the_list_says() -> None:
    assert cost_usd("nvidia-l4", 3600) == pytest.approx(0.672 + 4 * 0.0648 + 16 * 0.0072, rel=0.01)


def test_the_original_100_samples_stay_under_a_dollar() -> None:
    planned = estimate(manifest(), tokens_per_epoch=100 * 120, examples=100)
    assert planned.cost_usd < 1
    assert not objections(manifest(), planned)


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"training": {"max_seq_length": 131_072}}, "does_not_fit"),
        ({"compute": {"max_cost_usd": 0.01}}, "too_expensive"),
        ({"compute": {"timeout": "60s"}}, "too_long"),
    ],
)
def test_a_plan_that_cannot_be_kept_is_objected_to(settings: dict[str, object], code: str) -> None:
    asked = manifest(**settings)
    found = objections(asked, estimate(asked, tokens_per_epoch=2_000_000, examples=4000))
    assert code in {p.code for p in found}


@pytest.mark.parametrize(("examples", "size"), [(1, 4), (80, 4), (200, 10), (100_000, 32)])
def test_batch_size_auto(examples: int, size: int) -> None:
    assert batch_size(manifest(), examples) == size
