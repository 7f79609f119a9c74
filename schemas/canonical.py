"""From the keys of a file to settings at their canonical paths: whatever tool's names it is written in."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from schemas.aliases import ACCUMULATION, FAMILY, KINDS, MICRO, SECTIONS, UNSET, WRAPPERS, Alias, join, names_in
from schemas.errors import Problem
from schemas.manifest_problems import at, unknown_field
from schemas.text import escape, printable
from schemas.written import Path, Place, Setting, Written, dotted, leaves
from schemas.yaml_strict import Lines


def canonical(value: Mapping[str, Any], lines: Lines, *, file: str) -> Written:
    """What a file says, every setting at its canonical path. Pure."""
    settings: dict[Path, Setting] = {}
    problems: list[Problem] = []
    for key in _keys(value, lines, file):
        if key.kinds is not None:
            problems += _objection(key, key.kinds)
        elif (alias := names_in(key.section).get(key.name)) is None:
            problems.append(unknown_field(key.section, key.name, key.place))
        else:
            for setting in _read(key, alias, lines, problems):
                _add(settings, setting, problems)
    _make_batch_size(settings, problems)
    _make_method(settings)
    return Written(file, {file: lines}, settings, tuple(problems))


@dataclass(frozen=True)
class _Key:
    """One key of the file."""

    section: str
    """Whose names it may have."""
    name: str
    value: Any
    place: Place
    is_hosted: bool
    """It stands in a mapping of a hosted service, where `auto` means: not set."""
    kinds: frozenset[str] | None
    """Set for a key that says how to learn: its values that say what AdaptML does anyway."""


def _keys(
    value: Mapping[str, Any], lines: Lines, file: str, *, around: str = "", section: str = "", pointer: str = ""
) -> Iterator[_Key]:
    """All keys of a file, those inside sections and wrappers with the section they belong to."""
    for name, item in value.items():
        path, inner = join(around, name), f"{pointer}/{escape(name)}"
        if isinstance(item, dict) and (path in WRAPPERS or (path in SECTIONS and item)):
            yield from _keys(item, lines, file, around=path, section=WRAPPERS.get(path, path), pointer=inner)
        else:
            place = Place(file, inner, lines.get(inner))
            yield _Key(section, name, item, place, around in WRAPPERS, KINDS.get(path))


def _objection(key: _Key, kinds: frozenset[str]) -> Iterator[Problem]:
    if key.value is not None and str(key.value).lower() not in kinds:
        found = "a mapping" if isinstance(key.value, dict) else key.value
        yield at(key.place, "unsupported_method", name=key.place.name, found=found)


def _read(key: _Key, alias: Alias, lines: Lines, problems: list[Problem]) -> Iterator[Setting]:
    value, place = key.value, key.place
    if key.is_hosted and value == "auto":
        return
    try:
        value = value if value is None else alias.read(value)
    except ValueError as error:
        detail = f"{place.name}: {error}, found {printable(value)}"
        problems.append(at(place, "invalid_value", detail=detail))
        return
    if value is not UNSET:
        yield from leaves(value, alias.path, place, lines)


def _add(settings: dict[Path, Setting], new: Setting, problems: list[Problem]) -> None:
    old = settings.get(new.path)
    if old is None or old.value is None:
        settings[new.path] = new
    elif new.value is not None and not _same(old.value, new.value):
        detail = f"{old.place.name} and {new.place.name} both set {_setting(new.path)}, to different values"
        problems.append(at(new.place, "conflicting_fields", detail=detail))


def _setting(path: Path) -> str:
    return dotted(path).removesuffix("/micro").removesuffix("/accumulation").removesuffix("/family")


def _same(one: Any, other: Any) -> bool:
    """True for values that mean the same: 2e-4 and "0.0002", one name and a list of it."""
    if isinstance(one, list) or isinstance(other, list):
        return (one if isinstance(one, list) else [one]) == (other if isinstance(other, list) else [other])
    try:
        return isinstance(one, bool) == isinstance(other, bool) and float(one) == float(other)
    except (TypeError, ValueError, OverflowError):
        return type(one) is type(other) and bool(one == other)


def _make_batch_size(settings: dict[Path, Setting], problems: list[Problem]) -> None:
    """Examples an optimizer step = micro-batch × accumulation, as transformers and Axolotl count them."""
    given = (settings.pop(path, None) for path in (_path(MICRO), _path(ACCUMULATION)))
    parts = [part for part in given if part is not None and part.value is not None]
    counts = [count for part in parts if (count := _count(part, problems)) is not None]
    if not parts or len(counts) < len(parts):
        return
    if parts[0].path == _path(MICRO):
        _add(settings, Setting(("training", "batch_size"), math.prod(counts), parts[0].place), problems)
    elif counts != [1]:
        detail = f"{parts[0].place.name} multiplies a micro-batch, whose size is not given"
        hint = "Set training.batch_size alone: all examples of an optimizer step."
        problems.append(at(parts[0].place, "invalid_value", hint, detail=detail))


def _count(part: Setting, problems: list[Problem]) -> int | None:
    text = str(part.value)
    digits = text.lstrip("0")
    if text.isascii() and text.isdigit() and 1 <= len(digits) <= 4 and int(digits) <= 1024:
        return int(digits)
    detail = f"{part.place.name}: expected a whole number from 1 to 1024, found {printable(text)}"
    problems.append(at(part.place, "invalid_value", detail=detail))
    return None


def _make_method(settings: dict[Path, Setting]) -> None:
    """`finetuning_type: lora` is said of QLoRA too; what says 4 bits, or not, is more exact."""
    family, exact = settings.pop(_path(FAMILY), None), settings.get(("method",))
    # A tuple, and no set: what users write may be a list, which no set can be asked for.
    if family is not None and (exact is None or exact.value is None or family.value not in ("lora", "qlora")):
        settings["method",] = Setting(("method",), family.value, family.place)


def _path(target: str) -> Path:
    return tuple(target.split("."))
