"""What a run delivers, written to a folder: adapter, tokenizer, model card, provenance, checksums."""

from __future__ import annotations

import hashlib
import json
import os
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from safetensors.torch import save_file

from adaptml.gate import judgement
from adaptml.planning.estimate import cost_usd
from adaptml.publishing import CHECKSUMS, SAMPLES
from schemas.catalogue import BaseModelRow
from schemas.run import Metrics, Run
from trainer.card import model_card
from trainer.evaluate import Sample
from trainer.export import Deliverables

_LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "tokenizers", "safetensors", "gguf")


def write(folder: Path, model: Any, tokenizer: Any) -> None:
    """Writes the adapter and the tokenizer. PEFT loads the folder as it is."""
    config = model.peft_config["default"]
    config.inference_mode = True
    config.save_pretrained(folder)
    # bf16 halves the file; the adapter was rounded before it was measured, so nothing is lost here.
    weights = {
        name: tensor.detach().to("cpu", torch.bfloat16).contiguous()
        for name, tensor in get_peft_model_state_dict(model, save_embedding_layers=False).items()
    }
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(folder)


def describe(
    folder: Path,
    run: Run,
    row: BaseModelRow,
    metrics: Metrics,
    samples: list[Sample],
    delivered: Deliverables,
    *,
    seconds: float,
) -> None:
    """Writes what tells of it: samples, provenance, model card. Everything but the checksums is there then."""
    with (folder / SAMPLES).open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(sample.to_dict(), ensure_ascii=False) + "\n" for sample in samples)
    provenance = {
        "run_id": run.run_id,
        "manifest": run.manifest.model_dump(mode="json", by_alias=True) if run.manifest else None,
        "source": run.source.model_dump(mode="json"),
        "dataset": run.dataset.model_dump(mode="json"),
        "base_model": {"id": row.id, "revision": row.revision, "licence": row.licence},
        "metrics": metrics.model_dump(mode="json"),
        **judgement(run.manifest, metrics),
        "exports": [exported.to_dict() for exported in delivered.exported],
        "attempt": run.attempt,
        "execution": run.execution,
        "libraries": {name: metadata.version(name) for name in _LIBRARIES},
        "git_revision": os.environ.get("ADAPTML_REVISION", "unknown"),
        "seconds": round(seconds, 1),
    }
    (folder / "run.json").write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")
    accelerator = run.manifest.compute.accelerator if run.manifest else "nvidia-l4"
    cost = cost_usd(accelerator, seconds)
    card = model_card(run, row, metrics, samples, delivered, seconds=seconds, cost_usd=cost)
    (folder / "README.md").write_text(card, encoding="utf-8")


def checksums(folder: Path) -> dict[str, str]:
    """Writes SHA256SUMS and returns name → SHA-256 of every file, SHA256SUMS included."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    sums = {name: _sha256(folder / name) for name in names if name != CHECKSUMS}
    (folder / CHECKSUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()), encoding="utf-8")
    return sums | {CHECKSUMS: _sha256(folder / CHECKSUMS)}


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
