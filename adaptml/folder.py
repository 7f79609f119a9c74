"""A drop as it lies in a folder on a laptop, before it is copied anywhere."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from adaptml.dataset.check import DataSource
from adaptml.dataset.source import Readable
from schemas import layout
from schemas.errors import Problem, Refused, problem
from schemas.manifest import Manifest
from schemas.manifest_reading import parse_manifest
from schemas.yaml_strict import MAX_BYTES


def read_manifest(folder: Path, defaults: Path | None) -> Manifest:
    """The folder's manifest, completed from a tenant's defaults. Raises Refused."""
    present = [folder / name for name in layout.MANIFEST_NAMES if (folder / name).is_file()]
    if not present:
        raise Refused([problem("manifest_not_found", names=", ".join(layout.MANIFEST_NAMES))])
    if len(present) > 1:
        # In the bucket each would start a run of its own; here it has to be said which one is meant.
        raise Refused([problem("several_manifests", names=", ".join(path.name for path in present))])
    (path,) = present
    if leads_out(path, folder):
        raise Refused([problem("link_leads_out", name=path.name)])
    return parse_manifest(
        _head(path), file=path.name, folder=folder.name, defaults=_head(defaults) if defaults is not None else None
    )


def defaults_beside(folder: Path) -> Path | None:
    """`_defaults.yaml` where it lies in the bucket, too: in the folder that holds the drops. Raises Refused."""
    path = folder.parent / layout.DEFAULTS
    if leads_out(path, folder.parent):
        raise Refused([problem("link_leads_out", name=path.name)])
    return path if path.is_file() else None


def sources(folder: Path, manifest: Manifest) -> tuple[list[DataSource], list[Problem]]:
    """(the data files that the manifest names, why some are not there)."""
    found, missing = [], []
    for role, names in (("train", manifest.dataset.train), ("validation", manifest.dataset.validation)):
        for name in names:
            path = folder / name
            if leads_out(path, folder):
                missing.append(problem("link_leads_out", file=name, name=name))
            elif path.is_file():
                found.append(DataSource(name, role, path.stat().st_size, partial(_bytes, path)))
            else:
                missing.append(problem("file_not_found", file=name))
    return found, missing


def leads_out(path: Path, folder: Path) -> bool:
    """True where a link on the way to what lies in the folder shows what does not: a folder may come from anybody."""
    try:
        return not path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # it leads round and round
        return False


def write(path: Path, text: str) -> None:
    """Writes a file of ours into a folder that may be anybody's: a link of its name is replaced, and not followed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        path.unlink()
    path.write_text(text, "utf-8")


def _bytes(path: Path) -> AbstractContextManager[Readable]:
    return path.open("rb")


def _head(path: Path) -> bytes:
    """As much as says that the file is too large."""
    with path.open("rb") as stream:
        return stream.read(MAX_BYTES + 1)
