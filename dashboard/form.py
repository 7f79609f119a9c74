"""The form's settings as the manifest that they stand for. Pure."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML

from schemas import layout
from schemas.catalogue import CATALOGUE
from schemas.manifest import Dataset, Manifest

DEFAULT = Manifest(name="form", base_model=next(iter(CATALOGUE)), dataset=Dataset(train=["train.jsonl"]))
"""What the form begins with is what a manifest means that says nothing."""
RANKS = (4, 8, 16, 32, 64, 128)
LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
_SAYS_NOTHING = frozenset({"run", "train", "data", "dataset"})


@dataclass(frozen=True)
class Settings:
    """What a person chooses. Names are the manifest's."""

    base_model: str
    train: list[str]
    validation: list[str] = field(default_factory=list)
    method: str = DEFAULT.method
    epochs: float = DEFAULT.training.epochs or 3.0
    learning_rate: float = DEFAULT.training.learning_rate
    r: int = DEFAULT.lora.r
    target_modules: str = str(DEFAULT.lora.target_modules)
    max_seq_length: int = DEFAULT.training.max_seq_length
    overlong: str = DEFAULT.training.overlong
    train_on: str = DEFAULT.training.train_on
    batch_size: int | None = None
    """None: the trainer's choice."""
    patience: int | None = None
    """Of early stopping; None: no early stopping."""
    on_invalid_row: str = DEFAULT.dataset.on_invalid_row
    max_cost_usd: float = DEFAULT.compute.max_cost_usd


def manifest_text(settings: Settings) -> str:
    """The manifest as somebody would write it. All that the form shows is in it: a tenant's defaults must not make
    something else of it."""
    dataset: dict[str, Any] = {"train": settings.train, "on_invalid_row": settings.on_invalid_row}
    if settings.validation:
        dataset["validation"] = settings.validation
    training: dict[str, Any] = {
        "epochs": settings.epochs,
        "learning_rate": settings.learning_rate,
        "max_seq_length": settings.max_seq_length,
        "overlong": settings.overlong,
        "train_on": settings.train_on,
        "batch_size": settings.batch_size or "auto",
    }
    if settings.patience is not None:
        training["early_stopping"] = {"patience": settings.patience}
    manifest = {
        "base_model": settings.base_model,
        "dataset": dataset,
        "method": settings.method,
        "lora": {"r": settings.r, "alpha": 2 * settings.r, "target_modules": settings.target_modules},
        "training": training,
        "compute": {"max_cost_usd": settings.max_cost_usd},
    }
    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.representer.sort_base_mapping_type_on_output = False
    yaml.dump(manifest, stream)
    return stream.getvalue()


def folder_of(names: list[str]) -> str:
    """What to call a drop with these data files."""
    words = (layout.slug(name.partition(".")[0]) for name in names)
    return next((word for word in words if word not in _SAYS_NOTHING), "my-adapter")
