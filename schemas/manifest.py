"""The manifest: what to train, on what, how. The only place where a setting is described.

Names are those that users of PEFT, TRL, Axolotl and hosted fine-tuning services already know.
"""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from schemas import yaml_strict
from schemas.catalogue import CATALOGUE
from schemas.errors import Problem, Refused, printable, problem
from schemas.yaml_strict import Lines

NAME_PATTERN = r"[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?"
"""Tenants and drops: safe in a Firestore id, an object name, a label and a URL."""

FileName = Annotated[str, Field(min_length=1, max_length=500)]


class Settings(BaseModel):
    """A part of the manifest. Unknown fields are refused; what was read cannot be changed."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True, use_attribute_docstrings=True
    )


class Dataset(Settings):
    """Which files hold the examples."""

    train: Annotated[list[FileName], Field(min_length=1, max_length=100)]
    """Training files, relative to the manifest."""
    validation: list[FileName] = []
    """Held-out files; their loss is measured before and after."""
    validation_split: Annotated[float, Field(gt=0, le=0.5)] | None = None
    """Or: the share of the training examples to hold out. Without either, 5 % (at least one example) is held out."""
    format: Literal["auto", "messages", "prompt_completion", "alpaca", "sharegpt", "text"] = "auto"
    """The shape of a row; `auto` recognises it from the first row."""
    sha256: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]] = {}
    """Optional pins: file name → SHA-256 in hex."""

    @model_validator(mode="after")
    def _one_way_to_hold_out(self) -> Dataset:
        if self.validation and self.validation_split is not None:
            raise ValueError("conflict: dataset.validation and dataset.validation_split exclude each other")
        return self


class Lora(Settings):
    """The adapter's shape (PEFT's LoraConfig)."""

    r: Annotated[int, Field(ge=1, le=256)] = 16
    """Rank."""
    alpha: Annotated[int, Field(ge=1, le=1024)] = 32
    """Scaling: the adapter's output is multiplied by alpha / r."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Dropout on the adapter's input."""
    target_modules: Literal["attention", "all-linear"] | Annotated[list[str], Field(min_length=1, max_length=16)] = (
        "attention"
    )
    """Layers to adapt: `attention` (q, k, v, o), `all-linear`, or a list of names."""


class EarlyStopping(Settings):
    """Stop when the held-out loss no longer falls."""

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
    """Tokens an example may have."""
    overlong: Literal["reject", "truncate", "drop"] = "reject"
    """What to do with an example of more tokens."""
    packing: bool = True
    """Put several examples in one row without letting them see each other."""
    train_on: Literal["completions", "all"] = "completions"
    """Which tokens the loss counts: the assistant's, or all."""
    early_stopping: EarlyStopping | None = None
    """Measure the held-out loss after each epoch and stop when it no longer falls."""
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
            raise ValueError("conflict: training.epochs and training.max_steps exclude each other")
        return self


_DURATION = re.compile(r"(\d+)\s*(s|m|h)?")


class Compute(Settings):
    """What the run may use."""

    accelerator: Literal["nvidia-l4"] = "nvidia-l4"
    """The GPU of the Cloud Run Job."""
    timeout_s: Annotated[int, Field(alias="timeout", ge=60, le=86_400)] = 3600
    """Time for one attempt, e.g. `3600s` or `1h`."""
    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """How often training may begin before the run is FAILED."""
    max_cost_usd: Annotated[float, Field(gt=0, le=10_000)] = 2.00
    """The run is refused when its estimate is higher."""

    model_config = ConfigDict(populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _read_duration(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(text := data.get("timeout"), str):
            if not (match := _DURATION.fullmatch(text.strip())):
                raise ValueError("timeout is not a duration such as 3600s, 60m or 1h")
            return data | {"timeout": int(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2] or "s"]}
        return data


class Manifest(Settings):
    """One training: base model, data, method and limits."""

    schema_version: Literal[1] = 1
    """Of this format."""
    name: Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")]
    """Default: the folder's name."""
    base_model: str
    """An id of the catalogue."""
    dataset: Dataset
    method: Literal["qlora", "lora"] = "qlora"
    """`qlora` holds the base model in NF4, `lora` in bf16."""
    lora: Lora = Lora()
    training: Training = Training(epochs=3.0)
    compute: Compute = Compute()
    export: Annotated[list[Literal["adapter"]], Field(min_length=1)] = ["adapter"]
    """What to deliver. More forms than PEFT's adapter are refused until they are built (docs/decisions.md)."""
    labels: Annotated[
        dict[Annotated[str, Field(max_length=63)], Annotated[str, Field(max_length=63)]], Field(max_length=32)
    ] = {}
    """For your own bookkeeping; kept on the run."""


def parse_manifest(data: bytes, *, file: str, folder: str) -> Manifest:
    """The manifest with all defaults filled in. Raises Refused with every problem found."""
    value, lines = yaml_strict.load(data, file=file)
    if not isinstance(value, dict):
        found = "empty" if value is None else f"a {type(value).__name__}"
        raise Refused([problem("manifest_not_a_mapping", file=file, line=1, found=found)])
    return resolve(value, lines, file=file, folder=folder)


def parse_inline(text: str, *, file: str, folder: str, train: list[str]) -> Manifest:
    """The manifest of a request that carries it as text, its training files apart. Raises Refused."""
    value, lines = yaml_strict.load(text.encode(), file=file)
    if not isinstance(value, dict):
        raise Refused([problem("manifest_not_a_mapping", file=file, line=1, found=f"a {type(value).__name__}")])
    dataset = value.get("dataset") or {}
    if train and isinstance(dataset, dict):
        if "train" in dataset:
            detail = "dataset.train and dataset_uris exclude each other"
            raise Refused([problem("conflicting_fields", file=file, field="/dataset/train", detail=detail)])
        value["dataset"] = dataset | {"train": train}
    return resolve(value, lines, file=file, folder=folder)


def resolve(value: dict[str, Any], lines: Lines, *, file: str, folder: str) -> Manifest:
    """The manifest that `value` describes, for a drop in `folder`. Raises Refused with every problem found."""
    manifest: Manifest | None = None
    problems: list[Problem] = []
    try:
        default = {"name": folder} if re.fullmatch(NAME_PATTERN, folder) else {"name": "unnamed"}
        manifest = Manifest.model_validate(default | value)
    except ValidationError as error:
        problems = [_problem_of(item, lines, file) for item in error.errors(include_url=False)]
    problems += _meaning(value, lines, file=file, folder=folder)
    if problems or manifest is None:
        raise Refused(problems)
    return manifest


def _meaning(value: dict[str, Any], lines: Lines, *, file: str, folder: str) -> list[Problem]:
    """What types cannot say: the catalogue, names of files, the name of the folder."""
    problems = []
    model = value.get("base_model")
    if isinstance(model, str) and model not in CATALOGUE:
        problems.append(
            problem(
                "unknown_base_model",
                file=file,
                line=lines.get("/base_model"),
                field="/base_model",
                model=printable(model),
                suggestion=_nearest(model, CATALOGUE, f"Known models: {', '.join(sorted(CATALOGUE))}."),
            )
        )
    if not re.fullmatch(NAME_PATTERN, folder):
        problems.append(problem("bad_drop_name", file=file, what="the folder", name=printable(folder)))
    if isinstance(name := value.get("name"), str) and name != folder:
        problems.append(
            problem("name_mismatch", file=file, line=lines.get("/name"), field="/name", name=name, folder=folder)
        )
    dataset = value.get("dataset")
    for part in ("train", "validation"):
        names = dataset.get(part) if isinstance(dataset, dict) else None
        for i, file_name in enumerate(names if isinstance(names, list) else []):
            pointer = f"/dataset/{part}/{i}"
            if isinstance(file_name, str) and not is_safe_file_name(file_name):
                problems.append(
                    problem("unsafe_path", file=file, line=lines.get(pointer), field=pointer, name=printable(file_name))
                )
    return problems


def is_safe_file_name(name: str) -> bool:
    """True for a name that stays in the drop's folder and reads the same everywhere."""
    parts = name.split("/")
    return (
        all(part not in {"", ".", ".."} for part in parts)
        and "\\" not in name
        and "://" not in name
        and name == printable(name, 500)
    )


def _problem_of(item: Any, lines: Lines, file: str) -> Problem:
    """pydantic's finding in our words."""
    parts = [str(part) for part in item["loc"] if not _is_union_branch(part)]
    pointer = "".join("/" + yaml_strict.escape(part) for part in parts)
    field = pointer.lstrip("/").replace("/", ".")
    line = _nearest_line(pointer, lines)
    kind, message = item["type"], item["msg"]
    if kind == "missing":
        return problem("missing_field", file=file, line=line, field=pointer, name=field)
    if kind == "extra_forbidden":
        known = _field_names(parts[:-1])
        suggestion = _nearest(parts[-1], known, f"Known fields here: {', '.join(sorted(known))}.")
        return problem("unknown_field", file=file, line=line, field=pointer, name=field, suggestion=suggestion)
    if kind == "value_error" and "conflict: " in message:
        return problem("conflicting_fields", file=file, line=line, field=pointer, detail=message.split("conflict: ")[1])
    detail = message.removeprefix("Value error, ")
    return problem("invalid_value", file=file, line=line, field=pointer, detail=f"{field}: {detail}")


def _is_union_branch(part: object) -> bool:
    """pydantic names the branch of a union in a location: literal['auto'], constrained-int, list[str], …"""
    return isinstance(part, str) and bool(
        re.match(r"(literal|constrained-|list|int|float|dict|function-)\b|.*\[", part)
    )


def _nearest_line(pointer: str, lines: Lines) -> int | None:
    while pointer and pointer not in lines:
        pointer = pointer.rpartition("/")[0]
    return lines.get(pointer)


def _field_names(parents: list[str]) -> list[str]:
    known: dict[str, type[Settings]] = {
        "dataset": Dataset,
        "lora": Lora,
        "training": Training,
        "compute": Compute,
        "early_stopping": EarlyStopping,
    }
    model = known.get(parents[-1]) if parents else Manifest
    if model is None:
        return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _nearest(word: str, known: Any, otherwise: str) -> str:
    spelled = {str(name).lower(): str(name) for name in known}
    close = difflib.get_close_matches(word.lower(), spelled, n=1, cutoff=0.6)
    return f"Did you mean {spelled[close[0]]}?" if close else otherwise


def is_drop_name(name: str) -> bool:
    """True for what may name a tenant or a drop."""
    return re.fullmatch(NAME_PATTERN, name) is not None
