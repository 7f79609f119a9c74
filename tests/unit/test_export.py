"""What is exported of every architecture of the catalogue in small: made, read back, compared; and what is refused."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from schemas.errors import Refused
from tests.unit.exported import CPU, ROWS, Small, change, nothing, small
from trainer import export, export_gguf, export_merge
from trainer.export_graph import Graph
from trainer.export_merge import Adapter, Merged, Weights, plain
from trainer.export_vocabulary import Vocabulary

of_each_type = pytest.mark.parametrize("kind", list(ROWS))
READ_BY_TRANSFORMERS = ["llama", "mistral", "qwen2", "gemma3_text"]
"""Whose GGUF files transformers reads, too. It takes Qwen 3's heads to be hidden / heads wide, which they are not."""


@pytest.fixture
def made(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Small:
    return small(kind, monkeypatch.setenv, tmp_path)


@functools.cache
def _delivered(kind: str) -> tuple[Small, export.Deliverables, int]:
    home = Path(tempfile.mkdtemp(prefix="adaptml-exported-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    beats: list[int] = []
    with pytest.MonkeyPatch.context() as patched:
        one = small(kind, patched.setenv, home)
        return one, deliver(one, "adapter", "merged", "gguf", alive=lambda: beats.append(1)), len(beats)


@pytest.fixture
def whole(kind: str) -> Small:
    """With everything exported; not to be changed."""
    return _delivered(kind)[0]


def deliver(one: Small, *forms: str, alive: Callable[[], None] = nothing) -> export.Deliverables:
    export.require(one.manifest(*forms), one.row, one.tokenizer)
    return export.deliver(one.manifest(*forms), one.row, one.adapter, one.tokenizer, one.ids, lambda _: 1.5, CPU, alive)


def logits(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([ids])).logits[0].float()


def adapted(one: Small, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    base = AutoModelForCausalLM.from_pretrained(one.base, dtype=dtype)
    return logits(PeftModel.from_pretrained(base, str(one.adapter)), one.ids)


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).square().mean().sqrt() / other.std())


@of_each_type
def test_every_form_is_made_and_checked(kind: str) -> None:
    made, delivered, beats = _delivered(kind)
    assert [one.form for one in delivered.exported] == ["merged", "gguf"]
    for one in delivered.exported:
        assert one.checks["logits_differ_by"] < 0.04  # type: ignore[operator]
        assert one.checks["adapter_moves_logits_by"] > 0.1  # type: ignore[operator]
        assert one.size_bytes == sum((made.adapter / name).stat().st_size for name in one.files)
    assert delivered.exported[0].checks["held_out_loss"] == 1.5
    assert not delivered.fitness.vllm
    assert not delivered.fitness.llama_cpp
    assert beats > 2 * len(Weights(made.base).names)


@of_each_type
def test_the_merged_folder_is_the_adapter_in_one_model(whole: Small) -> None:
    merged = AutoModelForCausalLM.from_pretrained(whole.adapter / "merged", dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(whole.base, dtype=torch.float32)
    without = logits(base, whole.ids)
    by_peft = PeftModel.from_pretrained(base, str(whole.adapter)).merge_and_unload().state_dict()
    expected = {name: tensor.to(torch.bfloat16).float() for name, tensor in by_peft.items()}
    for name, tensor in merged.state_dict().items():  # PEFT's own merge, in fp32, rounded once
        if "vision" not in name:
            assert torch.allclose(tensor, expected[name], rtol=2.0**-7, atol=1e-6), name
    found = logits(merged, whole.ids)
    assert distance(found, adapted(whole)) < 0.02
    assert distance(found, without) > 0.1
    tokenizer = AutoTokenizer.from_pretrained(whole.adapter / "merged")
    assert tokenizer.chat_template == whole.tokenizer.chat_template
    assert tokenizer("a b")["input_ids"] == whole.tokenizer("a b")["input_ids"]


@of_each_type
def test_the_gguf_file_computes_what_the_adapter_does(whole: Small) -> None:
    assert (
        distance(Graph(GGUFReader(whole.adapter / export.MODEL_GGUF)).logits(whole.ids, nothing), adapted(whole)) < 0.02
    )


@of_each_type
def test_the_lora_file_on_a_base_file_computes_what_the_adapter_does(whole: Small, tmp_path: Path) -> None:
    """As llama.cpp's --lora: the base's own GGUF file with the adapter's beside it."""
    adapter = Adapter(whole.adapter)
    for a, b in adapter.pairs.values():
        a.zero_()
        b.zero_()
    layout = export_gguf.Layout.of(whole.base)
    words = Vocabulary.read(GGUFReader(whole.adapter / export.MODEL_GGUF))
    base, naming = tmp_path / "base.gguf", export_gguf.Naming("t", "MIT", whole.row.id)
    export_gguf.write_model(base, Merged(Weights(whole.base), adapter), layout, words, naming, nothing)
    found = Graph(GGUFReader(base), GGUFReader(whole.adapter / export.ADAPTER_GGUF)).logits(whole.ids, nothing)
    assert distance(found, adapted(whole)) < 1e-3
    assert distance(Graph(GGUFReader(base)).logits(whole.ids, nothing), found) > 0.1


@pytest.mark.parametrize("kind", READ_BY_TRANSFORMERS)
def test_transformers_reads_the_gguf_file_as_the_same_weights(whole: Small, tmp_path: Path) -> None:
    """Names, order of rows and norms, by a reader that is not ours. It reads neither Llama 3's scaled positions nor
    Gemma 3's window, so the weights are asked under the base's own configuration."""
    alone = tmp_path / "model.gguf"  # beside an adapter_config.json transformers would look for the base
    alone.hardlink_to(whole.adapter / export.MODEL_GGUF)
    found = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=alone.name, dtype=torch.float32)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(whole.base), dtype=torch.float32)
    model.load_state_dict(found.state_dict())
    assert distance(logits(model, whole.ids), adapted(whole)) < 0.02
    assert found.config.rms_norm_eps == pytest.approx(model.config.rms_norm_eps)
    assert found.config.eos_token_id == whole.tokenizer.eos_token_id


def kind_of(one: Small) -> str:
    return one.row.architecture.model_type


@of_each_type
def test_the_lora_file_says_what_llama_cpp_asks_for(whole: Small) -> None:
    file = GGUFReader(whole.adapter / export.ADAPTER_GGUF)
    said = {key: file.get_field(key) for key in ("general.type", "adapter.type", "adapter.lora.alpha")}
    assert [found.contents() for found in said.values() if found] == ["adapter", "lora", 8.0]
    model = GGUFReader(whole.adapter / export.MODEL_GGUF)
    shapes = {tensor.name: tuple(map(int, tensor.shape)) for tensor in model.tensors}
    halves = {tensor.name: tuple(map(int, tensor.shape)) for tensor in file.tensors}
    assert len(halves) == len(load_file(whole.adapter / "adapter_model.safetensors"))
    for name, (first, second) in halves.items():  # as llama-adapter.cpp compares them
        columns, rows = shapes[name.rpartition(".")[0]]
        assert (first, second) == ((columns, 4) if name.endswith(".lora_a") else (4, rows))
    architectures = {(f := one.get_field("general.architecture")) and f.contents() for one in (file, model)}
    assert len(architectures) == 1


@pytest.mark.parametrize("kind", ["llama"])
def test_the_adapter_is_delivered_alone_unless_more_is_asked_for(made: Small) -> None:
    before = sorted(made.adapter.iterdir())
    delivered = deliver(made, "adapter")
    assert not delivered.exported
    assert sorted(made.adapter.iterdir()) == before
    assert deliver(made, "gguf").exported
    assert {path.name for path in made.adapter.iterdir()} - {path.name for path in before} == {
        export.ADAPTER_GGUF, export.MODEL_GGUF,
    }  # fmt: skip


def refused(one: Small, *forms: str) -> str:
    with pytest.raises(Refused) as refusal:
        deliver(one, *forms)
    (found,) = refusal.value.problems
    assert found.code == "export_failed"
    return found.message


@pytest.mark.parametrize("kind", ["llama"])
@pytest.mark.parametrize(
    ("name", "broken", "said"),
    [
        ("scale", lambda merged, name: Merged.tensor(merged, name) * 1.5, "is not the sum of base and adapter"),
        ("base", lambda merged, name: merged.base.tensor(name), "is not the sum of base and adapter"),
        ("nan", lambda merged, name: Merged.tensor(merged, name) * float("nan"), "is not the sum"),
    ],
)
def test_a_wrong_merge_is_found(
    made: Small, monkeypatch: pytest.MonkeyPatch, name: str, broken: Callable[[Merged, str], torch.Tensor], said: str
) -> None:
    right = Merged.tensor

    class Wrong(Merged):
        def tensor(self, name: str) -> torch.Tensor:
            monkeypatch.setattr(Merged, "tensor", right)
            return broken(self, name) if self.is_changed(name) else right(self, name)

    monkeypatch.setattr(export, "Merged", Wrong)
    assert said in refused(made, "merged")


@pytest.mark.parametrize("kind", ["llama"])
def test_weights_that_were_written_differently_are_found(made: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(tensors: dict[str, torch.Tensor], file: Path, **named: Any) -> None:
        save_file({name: tensor + 0.01 for name, tensor in tensors.items()}, file, **named)

    monkeypatch.setattr(export_merge, "save_file", damaged)
    assert "was written differently" in refused(made, "merged")


@pytest.mark.parametrize("kind", ["gemma", "llama", "qwen2"])
def test_a_gguf_file_that_computes_something_else_is_found(made: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where every tensor is as our own code says: the graph, which knows only the file, disagrees."""
    kind = kind_of(made)
    if kind == "llama":
        monkeypatch.setattr(export_gguf.Layout, "rows", lambda self, tensor, weight: weight)
    elif kind == "gemma":
        monkeypatch.setattr(
            export_gguf.Layout,
            "stored",
            lambda self, tensor, weight: (
                weight.float().numpy() if weight.ndim == 1 else weight.view(torch.uint8).numpy()
            ),
        )
    else:
        right = export_gguf.GGUFWriter.add_rope_freq_base
        monkeypatch.setattr(export_gguf.GGUFWriter, "add_rope_freq_base", lambda self, base: right(self, base / 500))
    assert "differ from the adapter's by" in refused(made, "gguf")


@pytest.mark.parametrize("kind", ["qwen3"])
def test_an_adapter_that_rounding_swallows_is_told(made: Small) -> None:
    file = made.adapter / "adapter_model.safetensors"
    save_file({name: tensor * 1e-6 for name, tensor in load_file(file).items()}, file)
    assert "lost in rounding" in refused(made, "merged")


@pytest.mark.parametrize("kind", ["qwen3"])
def test_an_adapter_of_nothing_may_be_the_base_model(made: Small) -> None:
    file = made.adapter / "adapter_model.safetensors"
    save_file({n: t * 0 if "lora_B" in n else t for n, t in load_file(file).items()}, file)
    assert deliver(made, "merged").exported[0].checks["adapter_moves_logits_by"] == 0


@pytest.mark.parametrize("kind", ["llama"])
def test_an_adapter_that_llama_cpp_does_not_load_is_refused_as_gguf_only(made: Small) -> None:
    change(made.adapter / "adapter_config.json", lambda config: config.update(use_rslora=True))
    assert "use_rslora is set" in refused(made, "gguf")
    assert not deliver(made, "adapter").exported


def refused_before(one: Small, *forms: str) -> str:
    with pytest.raises(Refused) as refusal:
        export.require(one.manifest(*forms), one.row, one.tokenizer)
    (found,) = refusal.value.problems
    assert found.code == "export_failed"
    return found.message


@pytest.mark.parametrize(
    ("kind", "how", "said"),
    [
        ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}, "scaled by yarn"),
        ("llama", {"hidden_act": "gelu"}, "the activation gelu"),
        ("mistral", {"sliding_window": 4096}, "a sliding window"),
        ("gemma3_text", {"query_pre_attn_scalar": 168}, "another scale of attention"),
        ("gemma3_text", {"layer_types": ["full_attention"] * 6}, "another order of local and global layers"),
        ("gemma3_text", {"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
    ],
)
def test_a_model_that_llama_cpp_would_compute_otherwise_is_refused_before_training(
    made: Small, how: dict[str, Any], said: str
) -> None:
    change(made.base / "config.json", lambda config: config.update(how))
    assert said in refused_before(made, "gguf")


@pytest.mark.parametrize("kind", ["qwen3"])
def test_quantised_base_weights_are_refused_before_training(made: Small) -> None:
    change(made.base / "config.json", lambda config: config.update(quantization_config={"quant_method": "x"}))
    assert "the base's weights are quantised" in refused_before(made, "merged")


@pytest.mark.parametrize("kind", ["qwen3"])
def test_base_weights_that_are_not_whole_are_refused_before_training(made: Small) -> None:
    next(made.base.glob("model-00002*")).unlink()
    assert "is missing" in refused_before(made, "merged")


@pytest.mark.parametrize("kind", ["qwen3"])
def test_too_little_disk_is_refused_before_training(made: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    assert "GB of disk left" in refused_before(made, "merged", "gguf")


@pytest.mark.parametrize("kind", ["gemma3"])
def test_a_model_of_more_than_text_keeps_its_other_parts(whole: Small) -> None:
    base, merged = Weights(whole.base), Weights(whole.adapter / "merged")
    seen = [name for name in base.names if plain(name).startswith(("vision_tower", "multi_modal"))]
    assert seen
    assert all(torch.equal(base.tensor(name), merged.tensor(name)) for name in seen)
    file = GGUFReader(whole.adapter / export.MODEL_GGUF)
    assert {tensor.name.partition(".")[0] for tensor in file.tensors} == {"token_embd", "blk", "output_norm"}


@pytest.mark.parametrize("kind", ["llama"])
def test_large_models_are_written_in_shards(made: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_merge, "SHARD_BYTES", 40_000)
    files = deliver(made, "merged").exported[0].files
    assert sum(name.endswith(".safetensors") for name in files) > 2
    index = json.loads((made.adapter / "merged" / export_merge.INDEX).read_text())
    assert set(index["weight_map"]) == set(Weights(made.base).names)
    assert (
        distance(logits(AutoModelForCausalLM.from_pretrained(made.adapter / "merged"), made.ids), adapted(made)) < 0.02
    )


@pytest.mark.parametrize("kind", ["llama"])
def test_memory_is_freed_whoever_refers_to_the_model(made: Small) -> None:
    model = AutoModelForCausalLM.from_pretrained(made.base)
    kept = list(model.parameters())
    export.release(model)
    assert not sum(parameter.numel() for parameter in kept)


def test_neighbours_of_llama_are_halves_elsewhere() -> None:
    """The order of rows of one head of 4: halves (0 1 | 2 3) become pairs (0 2)(1 3)."""
    config = type("Config", (), {"num_attention_heads": 2, "num_key_value_heads": 1})()
    rows = export_gguf.Layout("llama", config).rows("model.layers.0.self_attn.q_proj.weight", torch.arange(8)[:, None])
    assert np.array_equal(rows.flatten(), [0, 2, 1, 3, 4, 6, 5, 7])
