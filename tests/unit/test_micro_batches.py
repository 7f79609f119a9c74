"""Steps that do not fit: memory that does not suffice is pretended, all else is real."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from adaptml.planning.memory import MicroBatch
from schemas.catalogue import CATALOGUE
from schemas.errors import Refused
from schemas.manifest import Manifest
from tests import tiny_model
from tests.cloud import MODEL
from tests.fp32 import in_fp32
from trainer import micro_batches
from trainer.micro_batches import MicroBatches, initial
from trainer.model import MODELS_DIR, load_base, with_lora
from trainer.packing import IGNORED, Packed, Tokens

CPU = torch.device("cpu")
BATCH = [Tokens(list(range(5, 5 + n)), [IGNORED] * (n // 3) + list(range(5 + n // 3, 5 + n))) for n in (40, 9, 17, 30)]


def manifest(**training: Any) -> Manifest:
    document = {"name": "t", "base_model": MODEL, "dataset": {"train": ["t.jsonl"]}, "lora": {"dropout": 0.0}}
    return Manifest.model_validate(document | {"training": training})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with in_fp32(), pytest.MonkeyPatch.context() as patch:
        patch.setenv(MODELS_DIR, str(tiny_model.lay(tmp_path_factory.mktemp("models"))))
        base, _ = load_base(CATALOGUE[MODEL], quantise=True, device=CPU)
        torch.manual_seed(1)
        made = with_lora(base, manifest(), CATALOGUE[MODEL]).train()
        for name, parameter in made.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        yield made


def gradient(model: Any) -> Tensor:
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return found


def memory_for(tokens: int, *, only_with_checkpointing: bool = False) -> Callable[..., Tensor]:
    """A device that has memory for so many tokens at once; what fails has left half of a gradient behind."""
    real, rows = micro_batches.completion_loss, []

    def loss(model: Any, packed: Packed, device: torch.device) -> Tensor:
        rows.append(len(packed.input_ids))
        checkpointing = any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
        if len(packed.input_ids) > tokens or (only_with_checkpointing and not checkpointing):
            real(model, packed, device).backward()
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(model, packed, device)

    return loss


@pytest.fixture
def expected(model: Any) -> tuple[float, Tensor]:
    loss = MicroBatches(model, manifest(), MicroBatch(4096, checkpointing=False), CPU).backward(BATCH)
    return loss, gradient(model)


@pytest.mark.parametrize(
    ("fits", "packing", "left"),
    [
        (64, True, MicroBatch(64, checkpointing=False)),
        (40, True, MicroBatch(40, checkpointing=False)),
        (40, False, MicroBatch(256, checkpointing=False)),
    ],
)
def test_a_step_that_does_not_fit_is_cut_smaller_and_is_the_same_step(
    model: Any, expected: tuple[float, Tensor], fits: int, packing: bool, left: MicroBatch,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(micro_batches, "completion_loss", memory_for(fits))
    cut = MicroBatches(model, manifest(packing=packing), MicroBatch(256, checkpointing=False), CPU)
    loss = cut.backward(BATCH)
    assert cut.current == left
    assert loss == pytest.approx(expected[0], rel=1e-4)
    torch.testing.assert_close(gradient(model), expected[1], rtol=1e-3, atol=1e-6)
    assert ("out of memory" in caplog.text) is (left.tokens < 256)
    assert cut.backward(BATCH) == loss  # and stays so
    assert gradient(model) is not None


def test_what_fits_only_when_blocks_are_computed_twice_is_computed_twice(
    model: Any, expected: tuple[float, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(micro_batches, "completion_loss", memory_for(4096, only_with_checkpointing=True))
    cut = MicroBatches(model, manifest(), MicroBatch(256, checkpointing=False), CPU)
    loss = cut.backward(BATCH)
    assert cut.current == MicroBatch(40, checkpointing=True)
    assert loss == pytest.approx(expected[0], rel=1e-4)
    torch.testing.assert_close(gradient(model), expected[1], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("packing", [True, False])
def test_where_the_least_does_not_fit_the_run_is_refused(
    model: Any, packing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(micro_batches, "completion_loss", memory_for(39))
    cut = MicroBatches(model, manifest(packing=packing), MicroBatch(256, checkpointing=False), CPU)
    with pytest.raises(Refused) as refused:
        cut.backward(BATCH)
    (found,) = refused.value.problems
    assert found.code == "out_of_gpu_memory"
    assert "40 tokens" in found.message
    assert all(parameter.grad is None for parameter in model.parameters())


def test_on_a_cpu_the_micro_batch_depends_on_nothing_but_the_manifest() -> None:
    asked = manifest(max_seq_length=96)
    assert initial(asked, BATCH, 4, CPU) == initial(asked, BATCH[:1], 9, CPU) == MicroBatch(96, checkpointing=False)


@pytest.mark.parametrize(
    ("packing", "expected"), [(True, MicroBatch(96, checkpointing=False)), (False, MicroBatch(40, checkpointing=False))]
)
def test_on_a_gpu_it_is_what_a_step_needs_and_memory_allows(
    packing: bool, expected: MicroBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (20_000_000_000, 24_000_000_000))
    assert initial(manifest(packing=packing), BATCH, 4, torch.device("cuda")) == expected
