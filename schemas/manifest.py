"""The manifest: what to train, on what, how. The only place where a setting is described.

Names are those that users of PEFT, TRL, Axolotl and hosted fine-tuning services already know; the ones that differ
between them are accepted as well (schemas/aliases.py). What a drop says becomes a Manifest in
schemas/manifest_reading.py.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from schemas.catalogue import CATALOGUE
from schemas.exports import Form
from schemas.text import printable

NAME_PATTERN = r"[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?"
"""Tenants and adapters: safe in a Firestore id, an object name, a label and a URL."""
SHA256_PATTERN = "^[0-9a-f]{64}$"

EXCLUSIVE = (
    (("training", "epochs"), ("training", "max_steps")),
    (("dataset", "validation"), ("dataset", "validation_split")),
)
"""Pairs of which a manifest gives one at most."""

FileName = Annotated[str, Field(min_length=1, max_length=500)]
_Files = Annotated[list[FileName], Field(max_length=100)]
_TrainFiles = Annotated[list[FileName], Field(min_length=1, max_length=100)]
_Modules = Annotated[list[Annotated[str, Field(min_length=1, max_length=100)]], Field(min_length=1, max_length=16)]
_Exports = Annotated[list[Form], Field(min_length=1)]
_Seconds = Annotated[int, Field(ge=60, le=86_400)]
_DURATION = re.compile(r"(\d{1,6})\s*(s|m|h)?")
GROUPS = ("attention", "all-linear")
"""Words of lora.target_modules that stand for several layers."""


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _modules(value: Any) -> Any:
    """One name as a list of one, names with commas as a list of them, a list of one group as that group."""
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list):
        return value
    names = [name.strip() if isinstance(name, str) else name for name in names]
    return names[0] if len(names) == 1 and names[0] in GROUPS else names


def _seconds(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if not (match := _DURATION.fullmatch(value.strip())):
        raise ValueError("expected a duration such as 3600s, 60m or 1h")
    return int(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2] or "s"]


class Settings(BaseModel):
    """A part of the manifest. Unknown fields are refused; what was read cannot be changed."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True, use_attribute_docstrings=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[info.field_name or ""]
        if isinstance(value, bool) and field.annotation is not bool:
            raise ValueError(f"cannot be {str(value).lower()}")
        return value


class Dataset(Settings):
    """Which files hold the examples."""

    train: Annotated[_TrainFiles, BeforeValidator(_one_or_more, json_schema_input_type=_TrainFiles | FileName)]
    """Training files, relative to the manifest."""
    validation: Annotated[_Files, BeforeValidator(_one_or_more, json_schema_input_type=_Files | FileName)] = []
    """Held-out files; their loss is measured before and after."""
    validation_split: Annotated[float, Field(gt=0, le=0.5)] | None = None
    """Or: the share of the training examples to hold out. Without either, 5 % (at least one example) is held out."""
    format: Literal["auto", "messages", "prompt_completion", "alpaca", "sharegpt", "text"] = "auto"
    """The shape of a row; `auto` recognises it from the first row."""
    columns: dict[
        Literal[
            "messages",
            "role",
            "content",
            "prompt",
            "completion",
            "instruction",
            "input",
            "output",
            "system",
            "history",
            "conversations",
            "from",
            "value",
            "text",
            "tools",
            "functions",
        ],
        Annotated[str, Field(min_length=1, max_length=200)],
    ] = {}
    """Where the files use other names: the name of a shape's field → the name in the files."""
    on_invalid_row: Literal["fail", "quarantine"] = "fail"
    """Whether a row that cannot be used refuses the drop, or is left out and listed."""
    sha256: dict[str, Annotated[str, Field(pattern=SHA256_PATTERN)]] = {}
    """Optional pins: file name → SHA-256 in hex."""

    @model_validator(mode="after")
    def _one_way_to_hold_out(self) -> Dataset:
        if self.validation and self.validation_split is not None:
            raise ValueError("dataset.validation and dataset.validation_split exclude each other")
        return self


class Lora(Settings):
    """The adapter's shape (PEFT's LoraConfig)."""

    r: Annotated[int, Field(ge=1, le=256)] = 16
    """Rank."""
    alpha: Annotated[int, Field(ge=1, le=1024)] = 32
    """Scaling: the adapter's output is multiplied by alpha / r."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Dropout on the adapter's input."""
    target_modules: Annotated[
        Literal["attention", "all-linear"] | _Modules,
        BeforeValidator(_modules, json_schema_input_type=Literal["attention", "all-linear"] | _Modules | str),
    ] = "attention"
    """Layers to adapt: `attention` (q, k, v, o), `all-linear`, or names of linear layers."""


class EarlyStopping(Settings):
    """Stop when the held-out loss no longer falls, and save the adapter with which it was lowest."""

    patience: Annotated[int, Field(ge=1, le=100)] = 3
    """Evaluations without improvement before stopping."""


class Training(Settings):
    """How to train."""

    epochs: Annotated[float, Field(gt=0, le=100)] | None = None
    """Passes over the data; 3 unless max_steps is given."""
    max_steps: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Or: optimizer steps."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2.0e-4
    """Highest learning rate (AdamW)."""
    lr_scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup_ratio: Annotated[float, Field(ge=0, le=0.5)] = 0.03
    """Share of all steps in which the learning rate rises from 0."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    """AdamW's weight decay, on the adapter's weights."""
    max_grad_norm: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Gradients of a step with a greater norm are scaled down to it."""
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = "auto"
    """Examples an optimizer step; the trainer derives micro-batches from memory."""
    max_seq_length: Annotated[int, Field(ge=32, le=131_072)] = 2048
    """Tokens an example may have; at most what the base model reads."""
    overlong: Literal["reject", "truncate", "drop"] = "reject"
    """What to do with an example of more tokens."""
    packing: bool = True
    """Put several examples in one row without letting them see each other."""
    train_on: Literal["completions", "all"] = "completions"
    """Which tokens the loss counts: the assistant's, or all."""
    early_stopping: EarlyStopping | None = None
    """Measure the held-out loss after each epoch, stop when it no longer falls, and save the adapter of the epoch with
    the lowest. Without it the last adapter is saved."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 42
    """Of the adapter's first weights, dropout, shuffling and the split."""

    @model_validator(mode="before")
    @classmethod
    def _end_after_three_epochs(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("epochs") is None and data.get("max_steps") is None:
            return data | {"epochs": 3.0}
        return data

    @model_validator(mode="after")
    def _one_way_to_end(self) -> Training:
        if self.epochs is not None and self.max_steps is not None:
            raise ValueError("training.epochs and training.max_steps exclude each other")
        return self


class Evaluation(Settings):
    """The gate: what a version must reach on held-out data to be promoted. One that does not is delivered all the same,
    marked `promotable: false`."""

    max_eval_loss: Annotated[float, Field(gt=0, le=100)] | None = None
    """Highest held-out loss after training, in nats a token, of a version that may be promoted."""
    min_improvement: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Least relative fall of the held-out loss, from before training to after; 0.05 is 5 %."""


class Compute(Settings):
    """What the run may use."""

    accelerator: Literal["nvidia-l4"] = "nvidia-l4"
    """The GPU of the Cloud Run Job."""
    timeout_s: Annotated[
        _Seconds,
        Field(alias="timeout"),
        BeforeValidator(
            _seconds, json_schema_input_type=_Seconds | Annotated[str, Field(pattern=r"^\d{1,6}\s*[smh]?$")]
        ),
    ] = 3600
    """Time for one attempt, e.g. `3600s` or `1h`; a bare number counts seconds."""
    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """How often training may begin before the run is FAILED."""
    max_cost_usd: Annotated[float, Field(gt=0, le=10_000)] = 2.00
    """The run is refused when its estimate is higher."""

    model_config = ConfigDict(populate_by_name=True)


class Manifest(Settings):
    """One training: base model, data, method and limits."""

    schema_version: Literal[1] = 1
    """Of this format."""
    name: Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")]
    """The adapter's name; its versions are numbered. Default: the folder's name."""
    base_model: Annotated[str, Field(json_schema_extra={"enum": sorted(CATALOGUE)})]
    """An id of the catalogue."""
    dataset: Dataset
    method: Literal["qlora", "lora"] = "qlora"
    """`qlora` holds the base model in NF4, `lora` in bf16."""
    lora: Lora = Lora()
    training: Training = Training(epochs=3.0)
    evaluation: Evaluation | None = None
    """What the version must reach to be promoted; without it every version may be."""
    compute: Compute = Compute()
    export: Annotated[_Exports, BeforeValidator(_one_or_more, json_schema_input_type=_Exports | Form)] = ["adapter"]
    """What to deliver besides PEFT's adapter, which always is: `merged`, base and adapter as one model in bf16, below
    `merged/`; `gguf`, the LoRA as `adapter.gguf` and the merged model as `model-bf16.gguf` (docs/export.md)."""
    labels: Annotated[
        dict[Annotated[str, Field(max_length=63)], Annotated[str, Field(max_length=63)]], Field(max_length=32)
    ] = {}
    """For your own bookkeeping; kept on the run."""
    dry_run: bool = False
    """Stop after validation, preview and estimate."""


def is_safe_file_name(name: str) -> bool:
    """True for a name that stays in the drop's folder and reads the same everywhere."""
    parts = name.split("/")
    return (
        all(part not in {"", ".", ".."} for part in parts)
        and "\\" not in name
        and "://" not in name
        and name == printable(name, 500)
    )


def is_drop_name(name: str) -> bool:
    """True for what may name a tenant or an adapter."""
    return re.fullmatch(NAME_PATTERN, name) is not None
