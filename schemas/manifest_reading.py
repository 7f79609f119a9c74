"""From the text of a manifest to the Manifest: other tools' names, the tenant's defaults, and what types cannot say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from pydantic import ValidationError

from schemas import layout, yaml_strict
from schemas.canonical import canonical
from schemas.catalogue import CATALOGUE, BaseModelRow
from schemas.errors import Problem, Refused, problem
from schemas.exports import GGUF_ARCHITECTURES
from schemas.manifest import EXCLUSIVE, GROUPS, NAME_PATTERN, Manifest, is_drop_name, is_safe_file_name
from schemas.manifest_problems import at, problems_of, suggestion
from schemas.text import printable
from schemas.written import Path, Place, Setting, Written, dotted

_NAME, _TRAIN = ("name",), ("dataset", "train")
_NAMED = 100
"""Files and pins among which the nearest name is looked for: each with each takes its time."""


def parse_manifest(data: bytes, *, file: str, folder: str, defaults: bytes | None = None) -> Manifest:
    """The manifest of a drop in `folder`, completed from the tenant's defaults and ours.

    Raises Refused with every problem found.
    """
    return _resolve(_written(data, file).over(_defaults(defaults), EXCLUSIVE), folder)


def parse_inline(text: str, *, file: str, folder: str, train: list[str], defaults: bytes | None = None) -> Manifest:
    """The manifest of a request that carries it as text, its training files apart. Raises Refused."""
    written = _written(_encoded(text), file)
    if train and (given := written.settings.get(_TRAIN)) is not None:
        detail = f"{given.place.name} and dataset_uris exclude each other"
        written = replace(written, problems=(*written.problems, at(given.place, "conflicting_fields", detail=detail)))
    elif train:
        named = Setting(_TRAIN, train, Place(file, "/dataset_uris", None))
        written = replace(written, settings={**written.settings, _TRAIN: named})
    return _resolve(written.over(_defaults(defaults), EXCLUSIVE), folder)


def declared_name(text: str) -> str | None:
    """The name that the text of a manifest gives itself, if it can be read and is one."""
    name = _written(_encoded(text), "request").get(_NAME)
    return name if isinstance(name, str) and is_drop_name(name) else None


def _encoded(text: str) -> bytes:
    """Half of a character, which JSON can escape, becomes bytes that are no UTF-8 and are refused as such."""
    return text.encode("utf-8", "surrogatepass")


def _written(data: bytes, file: str, *, may_be_empty: bool = False) -> Written:
    try:
        value, lines = yaml_strict.load(data, file=file)
    except Refused as refused:
        return Written(file, problems=tuple(refused.problems), is_readable=False)
    if value is None and may_be_empty:
        value = {}
    if not isinstance(value, dict):
        found = "empty" if value is None else f"a {type(value).__name__}"
        refusal = problem("manifest_not_a_mapping", file=file, line=1, found=found)
        return Written(file, problems=(refusal,), is_readable=False)
    return canonical(value, lines, file=file)


def _defaults(data: bytes | None) -> Written:
    """A tenant's defaults: a part of a manifest. One name for all drops would number them as one adapter."""
    if data is None:
        return Written(layout.DEFAULTS)
    written = _written(data, layout.DEFAULTS, may_be_empty=True)
    name = written.settings.get(_NAME)
    if name is None:
        return written
    refusal = at(name.place, "invalid_value", detail=f"{name.place.name}: a tenant's defaults cannot name an adapter")
    others = {path: setting for path, setting in written.settings.items() if path != _NAME}
    return replace(written, settings=others, problems=(*written.problems, refusal))


def _resolve(written: Written, folder: str) -> Manifest:
    if not written.is_readable:
        raise Refused(list(written.problems))
    problems = list(written.problems)
    written = _one_of_each_pair(written, problems)
    tree = written.tree()
    problems += _meaning(tree, written, folder)
    manifest: Manifest | None = None
    try:
        manifest = Manifest.model_validate({"name": folder if is_drop_name(folder) else "unnamed"} | tree)
    except ValidationError as error:
        problems += problems_of(error, written, tree)
    if problems or manifest is None:
        raise Refused(sorted(problems, key=lambda found: (found.file == layout.DEFAULTS, found.line or 0)))
    return manifest


def _one_of_each_pair(written: Written, problems: list[Problem]) -> Written:
    """Without the second of two settings that exclude each other: told here, whatever else is wrong around them."""
    settings = dict(written.settings)
    for one, other in EXCLUSIVE:
        if written.get(one) and written.get(other):
            first, second = settings[one].place, settings.pop(other).place
            detail = f"{first.name} and {second.name} exclude each other"
            problems.append(at(second, "conflicting_fields", detail=detail))
    return replace(written, settings=settings)


def _meaning(tree: dict[str, Any], written: Written, folder: str) -> Iterator[Problem]:
    """What types cannot say. The tree's values are not checked yet."""
    if "name" not in tree and not re.fullmatch(NAME_PATTERN, folder):
        what = "without a `name` in the manifest, the folder"
        yield problem("bad_drop_name", file=written.file, what=what, name=printable(folder))
    model = tree.get("base_model")
    row = CATALOGUE.get(model) if isinstance(model, str) else None
    if row is not None:
        yield from _of_model(row, tree, written)
    elif isinstance(model, str):
        hint = suggestion(model, CATALOGUE, "models")
        yield at(written.place(("base_model",)), "unknown_base_model", model=printable(model), suggestion=hint)
    yield from _of_files(tree, written)


def _of_model(row: BaseModelRow, tree: dict[str, Any], written: Written) -> Iterator[Problem]:
    layers = row.architecture.linear_shapes()
    asked = _inside(tree, ("lora", "target_modules"))
    names = asked.split(",") if isinstance(asked, str) else asked if isinstance(asked, list) else []
    for i, name in enumerate(names):
        if not isinstance(name, str) or name.strip() in layers or (len(names) == 1 and name.strip() in GROUPS):
            continue
        place = written.place(("lora", "target_modules", str(i)))
        hint = suggestion(name, {*layers, *GROUPS} if len(names) == 1 else layers, "names")
        yield at(place, "unknown_target_module", name=printable(name), model=row.id, suggestion=hint)
    length = _inside(tree, ("training", "max_seq_length"))
    if _is_more(length, row.context):
        place = written.place(("training", "max_seq_length"))
        yield at(place, "context_exceeded", name=place.name, value=printable(length), model=row.id, context=row.context)
    yield from _of_exports(row, tree, written)


def _of_exports(row: BaseModelRow, tree: dict[str, Any], written: Written) -> Iterator[Problem]:
    asked = tree.get("export")
    kind = row.architecture.model_type
    if "gguf" in (asked if isinstance(asked, list) else [asked]) and kind not in GGUF_ARCHITECTURES:
        why = f"nothing here could check a file of the architecture {kind}"
        place = written.place(("export",))
        yield at(place, "export_not_supported", name=place.name, model=row.id, form="gguf", why=why)


def _is_more(value: Any, limit: int) -> bool:
    try:
        return float(str(value)) > limit
    except ValueError:
        return False


def _of_files(tree: dict[str, Any], written: Written) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for path, name in _files(tree):
        place = written.place(path)
        if not is_safe_file_name(name):
            yield at(place, "unsafe_path", name=printable(name))
        elif name in layout.RESERVED:
            yield at(place, "reserved_file_name", name=printable(name))
        elif name in seen:
            yield at(place, "duplicate_file", name=printable(name), first=seen[name], second=dotted(path[:2]))
        seen.setdefault(name, dotted(path[:2]))
    pins = _inside(tree, ("dataset", "sha256"))
    strange = (name for name in (pins if isinstance(pins, dict) else ()) if name not in seen)
    files = [printable(name) for name in islice(seen, _NAMED)]
    for name in islice(strange, _NAMED):
        place = written.place(("dataset", "sha256", name))
        detail = f"dataset.sha256 pins {printable(name)}, which is no file of train or validation"
        yield at(place, "invalid_value", suggestion(name, files, "files"), detail=detail)


def _files(tree: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """(path, name) of every data file."""
    for part in ("train", "validation"):
        names = _inside(tree, ("dataset", part))
        listed: Iterable[Any] = names if isinstance(names, list) else [names]
        for i, name in enumerate(listed):
            if isinstance(name, str):
                yield ("dataset", part, str(i)), name


def _inside(tree: Any, path: Path) -> Any:
    for name in path:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree
