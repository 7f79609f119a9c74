"""The forms in which the trained model is delivered besides PEFT's adapter: merged, and as GGUF.

Each is read back and compared before anything is committed. What differs ends the run with `export_failed`: a version
that cannot be used as it says is worse than none.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM

from schemas.catalogue import BaseModelRow
from schemas.errors import Refused, problem
from schemas.manifest import Manifest
from trainer import export_gguf, export_merge
from trainer.attention import PACKED
from trainer.export_fitness import Fitness, fitness
from trainer.export_gguf import Layout, Naming, Unsupported
from trainer.export_graph import Graph
from trainer.export_merge import Adapter, Merged, NotWhole, Weights, plain
from trainer.export_vocabulary import NotAlike, Vocabulary, vocabulary
from trainer.precision import suit
from trainer.prepared import models_dir

log = logging.getLogger(__name__)

MERGED, ADAPTER_GGUF, MODEL_GGUF = "merged", "adapter.gguf", "model-bf16.gguf"
PROBE_TOKENS = 48
TOLERANCE = 0.1
"""Of logits, as the root mean square of the difference over that of the logits themselves. Two ways of computing one
model in bf16 differ by 0.01 to 0.03 (docs/export.md), a wrong scale, order or layer by 0.2 and more. What is smaller is
for the comparisons of single tensors, which are exact."""
_ULP = 2.0**-7
"""bf16 has 8 bits: two roundings of the same number are at most so far apart, relative to it."""


@dataclass(frozen=True)
class Exported:
    """One form that was made, and what was found out about it."""

    form: str
    files: list[str]
    size_bytes: int
    seconds: float
    """Of writing and checking it."""
    checks: dict[str, float | int | str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As run.json holds it."""
        return asdict(self)


@dataclass(frozen=True)
class Deliverables:
    """What besides the adapter, and whether the adapter is one that others load."""

    exported: list[Exported]
    fitness: Fitness


def require(manifest: Manifest, row: BaseModelRow, tokenizer: Any) -> None:
    """Raises Refused where an export that was asked for cannot be made: said before training is paid for."""
    with _told("merged" if "merged" in manifest.export else "gguf"):
        if forms := [form for form in manifest.export if form != "adapter"]:
            base = Weights(models_dir() / row.folder)
            export_merge.require_full_precision(base)
            _require_space(base, forms)
    if "gguf" in manifest.export:
        with _told("gguf"):
            layout = Layout.of(models_dir() / row.folder)
            for name in base.names:
                layout.name(name)
            _vocabulary(row, layout, tokenizer)


def deliver(
    manifest: Manifest,
    row: BaseModelRow,
    folder: Path,
    tokenizer: Any,
    ids: Sequence[int],
    loss: Callable[[Any], float | None],
    device: torch.device,
    alive: Callable[[], None],
) -> Deliverables:
    """Makes what the manifest asks for beside the adapter in `folder`, checks it, and says what came of it.

    Logits are compared on the tokens `ids`; `loss` measures a model on the held-out data. Raises Refused where a check
    fails, and what `alive` raises. The memory of the trained model must be free by now.
    """
    adapter = Adapter(folder)
    fit = fitness(adapter.config, adapter.shapes())
    forms = [form for form in ("merged", "gguf") if form in manifest.export]
    if not forms:
        return Deliverables([], fit)
    if "gguf" in forms and fit.llama_cpp:
        what = f"llama.cpp takes no such adapter: {fit.llama_cpp[0]}"
        raise Refused([problem("export_failed", form="gguf", what=what)])
    base_folder = models_dir() / row.folder
    probe = list(ids[:PROBE_TOKENS])
    exported = []
    with _told(forms[0]):
        merged = Merged(Weights(base_folder), adapter)
        truth = _truth(base_folder, folder, merged, probe, device, alive)
    for form in forms:
        started = time.monotonic()
        with _told(form):
            if form == "merged":
                files, checks = _merged(folder, merged, truth, probe, loss, device, alive)
            else:
                files, checks = _gguf(folder, merged, truth, probe, manifest, row, tokenizer, alive)
        size = sum((folder / name).stat().st_size for name in files)
        exported.append(Exported(form, files, size, round(time.monotonic() - started, 1), checks))
        log.info("exported %s: %.1f MB, %s", form, size / 1e6, checks)
    return Deliverables(exported, fit)


def release(model: Any) -> None:
    """Frees the memory of a model's weights, whoever still refers to it: the next one needs it."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Whole:
    """A model without an adapter, for what asks PEFT's models for the one below."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def get_base_model(self) -> Any:
        """The model."""
        return self._model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


@dataclass(frozen=True)
class Truth:
    """What the base's own 16-bit weights with the adapter beside them compute: what every export must compute, too."""

    base: Tensor
    """Logits without the adapter."""
    adapted: Tensor
    """Logits with it."""


def _truth(
    base_folder: Path,
    folder: Path,
    merged: Merged,
    ids: list[int],
    device: torch.device,
    alive: Callable[[], None],
) -> Truth:
    """Loads the base and the adapter as a user of PEFT would, and holds the merge to PEFT's own sum of the two."""
    model = _load(base_folder, device)
    base = _logits(model, ids, device)
    alive()
    adapted_model = PeftModel.from_pretrained(model, str(folder))
    adapted_model.eval()
    adapted = _logits(adapted_model, ids, device)
    alive()
    _require_sums(adapted_model, merged, alive)
    release(adapted_model)
    return Truth(base, adapted)


@torch.no_grad()
def _require_sums(model: Any, merged: Merged, alive: Callable[[], None]) -> None:
    """Each merged weight is what PEFT says that layer's base and adapter sum up to, and some weight has changed."""
    names = {plain(name): name for name in merged.names}
    layers = {plain(name): layer for name, layer in model.named_modules() if hasattr(layer, "get_delta_weight")}
    if missing := merged.adapter.pairs.keys() - layers.keys():
        raise NotWhole(f"PEFT does not find {min(missing)} in the adapter")
    changed = has_delta = False
    for module, layer in layers.items():
        weight, delta = layer.base_layer.weight.float().cpu(), layer.get_delta_weight("default").float().cpu()
        if module not in merged.adapter.pairs:  # a layer of the same name where training left a part out: PEFT adds 0
            continue
        found, expected = merged.tensor(names[f"{module}.weight"]).float(), (weight + delta).to(torch.bfloat16).float()
        if not torch.allclose(found, expected, rtol=_ULP, atol=1e-6):
            raise NotWhole(f"{module} is not the sum of base and adapter")
        changed |= bool((found != weight).any())
        has_delta |= bool((delta != 0).any())
        alive()
    if has_delta and not changed:
        raise NotWhole("all that the adapter adds is lost in rounding to bf16: merged, it would be the base model")


def _merged(
    folder: Path,
    merged: Merged,
    truth: Truth,
    ids: list[int],
    loss: Callable[[Any], float | None],
    device: torch.device,
    alive: Callable[[], None],
) -> tuple[list[str], dict[str, float | int | str]]:
    target = folder / MERGED
    export_merge.write(merged, target, alive)
    written = Weights(target)
    if set(written.names) != set(merged.names):
        raise NotWhole("the files hold other tensors than the base")
    for name in merged.names:
        if not torch.equal(written.tensor(name), merged.tensor(name)):
            raise NotWhole(f"{name} was written differently")
        alive()
    model = _load(target, device)
    difference = _require_same(_logits(model, ids, device), truth, "the loaded model's logits")
    held_out_loss = loss(Whole(model))
    release(model)
    files = sorted(path.relative_to(folder).as_posix() for path in target.iterdir())
    checks: dict[str, float | int | str] = {"logits_differ_by": difference, "adapter_moves_logits_by": _effect(truth)}
    if held_out_loss is not None:
        checks["held_out_loss"] = round(held_out_loss, 4)
    return files, checks


def _gguf(
    folder: Path,
    merged: Merged,
    truth: Truth,
    ids: list[int],
    manifest: Manifest,
    row: BaseModelRow,
    tokenizer: Any,
    alive: Callable[[], None],
) -> tuple[list[str], dict[str, float | int | str]]:
    layout = Layout.of(merged.base.folder)
    words = _vocabulary(row, layout, tokenizer)
    model_path, adapter_path = folder / MODEL_GGUF, folder / ADAPTER_GGUF
    naming = Naming(manifest.name, row.licence, row.id)
    export_gguf.write_adapter(adapter_path, merged.adapter, layout, naming)
    export_gguf.write_model(model_path, merged, layout, words, naming, alive)
    model = gguf.GGUFReader(model_path)
    alive()
    _require_stored(model, gguf.GGUFReader(adapter_path), merged, layout, words, alive)
    found = Graph(model).logits(ids, alive)
    difference = _require_same(found, truth, "the file's logits, as llama.cpp computes them,")
    return [ADAPTER_GGUF, MODEL_GGUF], {
        "logits_differ_by": difference,
        "adapter_moves_logits_by": _effect(truth),
        "tensors": len(model.tensors),
        "tokenizer": f"{words.model} ({words.pre})",
    }


def _require_stored(
    model: gguf.GGUFReader,
    adapter: gguf.GGUFReader,
    merged: Merged,
    layout: Layout,
    words: Vocabulary,
    alive: Callable[[], None],
) -> None:
    """Both files hold every tensor to the bit, and every name of the adapter's is in the model."""
    stored = export_gguf.by_name(model)
    for name in merged.names:
        if (found := layout.name(name)) is None:
            continue
        expected = layout.stored(name, merged.tensor(name))
        if found not in stored or not np.array_equal(export_gguf.raw(stored[found]), expected):
            raise NotWhole(f"{found} is not the merged weight")
        alive()
    halves = export_gguf.by_name(adapter)
    expected_halves = export_gguf.adapter_tensors(merged.adapter, layout)
    if halves.keys() != expected_halves.keys():
        raise NotWhole("the adapter's file holds other tensors")
    for name, half in expected_halves.items():
        if name.rpartition(".")[0] not in stored:
            raise NotWhole(f"the adapter's {name} fits no tensor of the model")
        if not np.array_equal(export_gguf.values(halves[name]), half):
            raise NotWhole(f"the adapter's {name} is not PEFT's")
    if Vocabulary.read(model) != words:
        raise NotAlike("the tokenizer was written differently")


def _vocabulary(row: BaseModelRow, layout: Layout, tokenizer: Any) -> Vocabulary:
    end = None if row.family is None else row.family.end_of_turn
    folder = models_dir() / row.folder
    return vocabulary(folder, tokenizer, rows=layout.config.vocab_size, end_of_turn=end)


def _load(folder: Path, device: torch.device) -> Any:
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.bfloat16,
        attn_implementation=PACKED,
        device_map={"": device},
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
    )
    suit(model, device)
    return model.eval()


@torch.no_grad()
def _logits(model: Any, ids: list[int], device: torch.device) -> Tensor:
    found: Tensor = model(input_ids=torch.tensor([ids], device=device)).logits[0].float().cpu()
    return found


def _distance(one: Tensor, other: Tensor) -> float:
    """Root mean square of the difference, relative to that of the logits around their mean."""
    scale = (other - other.mean()).square().mean().sqrt()
    return float(((one - other).square().mean().sqrt() / scale).item())


def _effect(truth: Truth) -> float:
    return round(_distance(truth.base, truth.adapted), 5)


def _require_same(found: Tensor, truth: Truth, what: str) -> float:
    difference = _distance(found, truth.adapted)
    if not difference <= TOLERANCE:  # also where it is no number
        raise NotWhole(f"{what} differ from the adapter's by {difference:.3f}, more than {TOLERANCE}")
    return round(difference, 5)


def _require_space(base: Weights, forms: Sequence[str]) -> None:
    """Raises NotWhole where the files would not fit: found out before training."""
    needed = len(forms) * sum(2 * torch.Size(base.shape(name)).numel() for name in base.names)
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if needed > free:
        raise NotWhole(f"the files take {needed / 1e9:.1f} GB, the trainer has {free / 1e9:.1f} GB of disk left")


@contextlib.contextmanager
def _told(form: str) -> Iterator[None]:
    """Whatever is wrong with an export ends the run, and says so."""
    try:
        yield
    except (NotWhole, Unsupported, NotAlike) as error:
        raise Refused([problem("export_failed", form=form, what=str(error))]) from error
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise Refused([problem("export_failed", form=form, what="the trainer's disk is full")]) from error
