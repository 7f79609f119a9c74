"""NF4 weights that were prepared are, to the bit, those that quantising while loading gives, for every architecture."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from schemas.errors import Refused
from tests.unit.exported import CPU, ROWS, Small, small
from trainer import prepared, quantise
from trainer.loss import completion_loss
from trainer.model import load_base, lora_parameters, with_lora
from trainer.packing import Tokens, pack
from trainer.precision import compute_dtype
from trainer.prepared import NF4, STAMP, Origin


@pytest.fixture(params=ROWS)
def ready(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    """A small model of several shards, prepared."""
    made = small(request.param, monkeypatch.setenv, tmp_path)
    assert len(list(made.base.glob("*.safetensors"))) > 1
    monkeypatch.setattr(quantise, "_SHARD", "10KB")
    quantise.write_nf4(made.base, CPU)
    prepared.seal(made.base, Origin(model=made.row.id, revision=made.row.revision, source="test"))
    return made


def loaded(made: Small, *, as_prepared: bool) -> Any:
    hidden = made.models / "hidden"
    if not as_prepared:
        (made.base / STAMP).rename(hidden)
    try:
        return load_base(made.row, quantise=True, device=CPU)[0]
    finally:
        if not as_prepared:
            hidden.rename(made.base / STAMP)


def test_both_ways_of_loading_give_the_same_bits(ready: Small) -> None:
    there, anew = loaded(ready, as_prepared=True), loaded(ready, as_prepared=False)
    names = {name for name, module in there.named_modules() if isinstance(module, Linear4bit)}
    assert {name for name, module in anew.named_modules() if isinstance(module, Linear4bit)} == names
    assert names
    left, right = there.state_dict(), anew.state_dict()
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert tensor.dtype == right[name].dtype, name
        assert torch.equal(tensor, right[name]), name
    for module in (module for module in there.modules() if isinstance(module, Linear4bit)):
        assert module.compute_dtype is compute_dtype(CPU)
        assert module.support_avx512bf16_for_cpu is False  # keep_differentiable
        assert not module.weight.requires_grad
    assert all(getattr(there.model, part) is None for part in ready.row.left_out)
    unquantised = {name for name in left if left[name].dtype is compute_dtype(CPU)}
    assert any("embed_tokens" in name for name in unquantised)
    assert any("norm" in name for name in unquantised)


def test_a_step_of_training_has_the_same_loss_and_gradients(ready: Small) -> None:
    packed = pack([Tokens(ready.ids, list(ready.ids))], 0)[0]
    found = []
    for as_prepared in (True, False):
        torch.manual_seed(5)
        model = with_lora(loaded(ready, as_prepared=as_prepared), ready.manifest("adapter"), ready.row).eval()
        loss = completion_loss(model, packed, CPU)
        loss.backward()
        gradients = [p.grad.flatten() for p in lora_parameters(model) if p.grad is not None]
        found.append((loss.detach(), torch.cat(gradients)))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert found[0][1].abs().sum() > 0


def test_nothing_is_quantised_where_nf4_is_there(
    ready: Small, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for path in ready.base.glob("*.safetensors*"):
        path.unlink()  # so that nothing else can be read
    assert loaded(ready, as_prepared=True) is not None
    assert not caplog.records
    (ready.base / STAMP).write_text("{}")
    with pytest.raises(Refused) as refused:
        load_base(ready.row, quantise=True, device=CPU)
    assert [found.code for found in refused.value.problems] == ["base_model_unavailable"]


def test_what_cannot_be_read_is_quantised_while_loading_and_told(
    ready: Small, caplog: pytest.LogCaptureFixture
) -> None:
    stamp = json.loads((ready.base / STAMP).read_text())
    (ready.base / STAMP).write_text(json.dumps(stamp | {"bitsandbytes": "0.1.0"}))
    with caplog.at_level(logging.WARNING):
        model, _ = load_base(ready.row, quantise=True, device=CPU)
    assert any(isinstance(module, Linear4bit) for module in model.modules())
    assert "quantised by bitsandbytes 0.1.0" in caplog.text


def test_nf4_holds_every_tensor_of_the_model_also_what_training_leaves_out(ready: Small) -> None:
    index = json.loads((ready.base / NF4 / "model.safetensors.index.json").read_text())
    original = json.loads((ready.base / "model.safetensors.index.json").read_text())
    assert set(original["weight_map"]) <= set(index["weight_map"])


def test_weights_of_another_type_are_rounded_to_bf16_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = small("llama", monkeypatch.setenv, tmp_path)
    downloaded, folder = tmp_path / "downloaded", tmp_path / "folder"
    downloaded.mkdir()
    shards = sorted(made.base.glob("*.safetensors"))
    kept = load_file(shards[1])
    wide = {name: tensor.float() + 1e-4 for name, tensor in load_file(shards[0]).items()}
    save_file(wide, downloaded / shards[0].name, {"format": "pt"})
    save_file(kept, downloaded / shards[1].name, {"format": "pt"})
    (downloaded / "config.json").write_text("{}")
    quantise.in_bf16(downloaded, folder)
    quantise.in_bf16(downloaded, folder)  # a call that was cut off is made anew
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in downloaded.iterdir())
    rounded = load_file(folder / shards[0].name)
    assert rounded.keys() == wide.keys()
    assert all(torch.equal(rounded[name], tensor.to(torch.bfloat16)) for name, tensor in wide.items())
    with safe_open(folder / shards[0].name, framework="pt") as opened:
        assert opened.metadata() == {"format": "pt"}
    assert (folder / shards[1].name).samefile(downloaded / shards[1].name)
