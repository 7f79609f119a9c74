"""What the folder of a prepared base model holds, and how it is told that it is whole.

    {model}/               bf16 safetensors, configuration, tokenizer, chat template, licence
    {model}/nf4/           the same weights quantised, their configuration, and a stamp of what quantised them
    {model}/PREPARED       what was prepared, from where
    {model}/SHA256SUMS     of all of these; written last, so that a folder without it is not there yet

It lies below the models folder of a machine or in the models bucket, under the same names. Knows nothing of torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from adaptml.publishing import CHECKSUMS
from schemas.catalogue import BaseModelRow

MODELS_DIR = "ADAPTML_MODELS_DIR"
NF4 = "nf4"
STAMP = f"{NF4}/quantised.json"
ORIGIN = "PREPARED"
"""Without an ending: what copies the configuration of a base model leaves it alone."""
FORMAT = 1
"""Of the folder `nf4/`; another number is another way of writing it down."""
QUANTISATION = {"type": "nf4", "double_quantisation": True, "compute": "bfloat16"}
"""The set-up of the QLoRA paper (Dettmers et al. 2023). Embeddings, output layer and norms stay in bf16."""

Variant = Literal["bf16", "nf4"]
_WEIGHTS = re.compile(r"[^/]+\.safetensors(\.index\.json)?")


def models_dir() -> Path:
    """Where prepared weights lie: baked into the image, a mounted bucket, or a local folder."""
    return Path(os.environ.get(MODELS_DIR, "/models"))


class Origin(BaseModel):
    """What a folder was prepared from."""

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    model: str
    revision: str | None
    source: str
    """`hub`, or the package that carries the weights."""


class Stamp(BaseModel):
    """What quantised the weights in `nf4/`."""

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    quantisation: dict[str, Any] = QUANTISATION
    bitsandbytes: str
    torch: str
    transformers: str
    device: str
    """Kernels of a GPU may round a single value otherwise than the CPU's."""


@dataclass(frozen=True)
class Weights:
    """Which weights of a folder are read."""

    folder: Path
    are_quantised: bool
    why_not: str | None = None
    """Where NF4 was wanted and is not there: the reason."""


def unreadable(stamp: str | None, bitsandbytes: str | None = None) -> str | None:
    """Why NF4 weights with this stamp are not to be read, or None. Pure, but for the installed version as default.

    A minor version of bitsandbytes may change how it stores or rounds; then quantising anew is the safe way.
    """
    if stamp is None:
        return "they were not prepared"
    try:
        found = Stamp.model_validate_json(stamp)
    except ValidationError:
        return "their stamp cannot be read"
    installed = bitsandbytes or metadata.version("bitsandbytes")
    if found.format != FORMAT:
        return f"they are of format {found.format}, not {FORMAT}"
    if found.quantisation != QUANTISATION:
        return "they were quantised in another way"
    if found.bitsandbytes.split(".")[:2] != installed.split(".")[:2]:
        return f"they were quantised by bitsandbytes {found.bitsandbytes}, and {installed} is installed"
    return None


def needed(names: Iterable[str], *variants: Variant) -> list[str]:
    """The files of a folder that these variants need: what lies beside the weights is needed by each."""

    def is_needed(name: str) -> bool:
        if name.startswith(f"{NF4}/"):
            return "nf4" in variants
        return "bf16" in variants or _WEIGHTS.fullmatch(name) is None

    return sorted(name for name in names if is_needed(name))


def parse(checksums: str) -> dict[str, str]:
    """Name → SHA-256, as `sha256sum` writes them. Raises ValueError."""
    found = {}
    for line in checksums.splitlines():
        match = re.fullmatch(r"([0-9a-f]{64})  ([\w.-]+(?:/[\w.-]+)?)", line)
        if match is None or ".." in match[2].split("/"):
            raise ValueError(f"{CHECKSUMS} is damaged")
        found[match[2]] = match[1]
    return found


def listed(folder: Path) -> dict[str, str] | None:
    """Name → SHA-256 of what the folder says it holds; None where it is not whole."""
    try:
        return parse((folder / CHECKSUMS).read_text("utf-8"))
    except (OSError, ValueError):
        return None


def has(folder: Path, variant: Variant) -> bool:
    """Whether all files that the variant needs are there, in the folder itself. Their content was checked when they
    were written."""
    names = listed(folder)
    if names is None:
        return False
    if not (STAMP in names if variant == "nf4" else any(_WEIGHTS.fullmatch(name) for name in names)):
        return False
    files = needed(names, variant)
    return all(_is_own(folder, name) for name in files) and all(_is_led_to(folder, name, names) for name in files)


def _is_own(folder: Path, name: str) -> bool:
    """Whether it is a file, and no link to one elsewhere: the checksums are of what lies here."""
    path = folder / name
    return path.is_file() and path.resolve().is_relative_to(folder.resolve())


def _is_led_to(folder: Path, name: str, names: Iterable[str]) -> bool:
    """Whether an index of weights names no others than those that the folder has checksums of."""
    if not name.endswith(".safetensors.index.json"):
        return True
    try:
        shards = set(json.loads((folder / name).read_text("utf-8"))["weight_map"].values())
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return False
    beside = name.rpartition("/")[0]
    return shards <= {found.removeprefix(f"{beside}/") if beside else found for found in names}


def choose(folder: Path, *, quantise: bool) -> Weights | None:
    """What to load of a folder, or None where it holds nothing that can be loaded."""
    why_not = None
    if quantise:
        why_not = unreadable(_text(folder / STAMP)) if has(folder, "nf4") else "they are not there"
        if why_not is None:
            return Weights(folder / NF4, are_quantised=True)
    return Weights(folder, are_quantised=False, why_not=why_not) if has(folder, "bf16") else None


def is_prepared(folder: Path, row: BaseModelRow) -> bool:
    """Whether the folder is whole, of the row's revision, and in NF4 that can be read."""
    whole = has(folder, "bf16") and has(folder, "nf4")
    return whole and is_current(_text(folder / ORIGIN), _text(folder / STAMP), row)


def is_current(origin: str | None, stamp: str | None, row: BaseModelRow) -> bool:
    """Whether what was prepared is what would be prepared today."""
    try:
        found = Origin.model_validate_json(origin or "")
    except ValidationError:
        return False
    is_this = (found.format, found.model, found.revision) == (FORMAT, row.id, row.revision)
    return is_this and unreadable(stamp) is None


def seal(folder: Path, origin: Origin) -> None:
    """Says what the folder is, and that it is whole."""
    (folder / ORIGIN).write_text(origin.model_dump_json(indent=2) + "\n", "utf-8")
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    names = [name for name in names if name != CHECKSUMS]
    with ThreadPoolExecutor() as threads:
        sums = list(threads.map(lambda name: sha256(folder / name), names))
    for name in names:
        (folder / name).chmod(0o644)  # safetensors writes for its owner only; the trainer may be somebody else
    text = "".join(f"{digest}  {name}\n" for digest, name in zip(sums, names, strict=True))
    begun = folder / f"{CHECKSUMS}.begun"
    begun.write_text(text, "utf-8")
    begun.rename(folder / CHECKSUMS)


def sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _text(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError):
        return None
