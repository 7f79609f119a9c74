"""A drop that is put together on the page: checked as intake checks it, then copied as any client copies it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import cast

from adaptml.dataset.check import DataSource
from adaptml.dataset.source import Readable
from adaptml.objects import ObjectStore, PinnedObject
from adaptml.services import Services
from adaptml.tokens.store import Find
from adaptml.verdict import Verdict, check_drop
from schemas import layout
from schemas.catalogue import CATALOGUE
from schemas.errors import Refused, problem
from schemas.layout import DropPath, ObjectRole
from schemas.manifest import Manifest, is_drop_name
from schemas.manifest_reading import parse_manifest
from schemas.yaml_strict import MAX_BYTES

LARGEST_UPLOAD_MB = 30
"""Cloud Run takes requests of 32 MiB. More comes into the bucket by gsutil, and is picked here."""
FILES_AT_MOST = 200
"""Of a folder, to pick from."""

MANIFEST = layout.MANIFEST_NAMES[0]


@dataclass(frozen=True)
class Data:
    """One data file, uploaded or in the bucket already."""

    name: str
    size: int
    identity: str
    """Changes with the content."""
    open: Callable[[], AbstractContextManager[Readable]]
    upload: bytes | None = None
    """What is to be copied; None where it lies in the folder already."""


@dataclass(frozen=True)
class Draft:
    """A drop that is not copied yet."""

    tenant: str
    folder: str
    manifest: str
    files: Mapping[str, Data]

    @property
    def identity(self) -> str:
        """Of all that would be copied: two drafts with the same are the same drop."""
        parts = [self.tenant, self.folder, self.manifest, *(f"{d.name}\0{d.identity}" for d in self.files.values())]
        return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def uploaded(name: str, content: bytes) -> Data:
    """A file that somebody chose on their machine."""
    return Data(name, len(content), hashlib.sha256(content).hexdigest(), partial(io.BytesIO, content), content)


def lying(objects: ObjectStore, bucket: str, tenant: str, folder: str) -> dict[str, Data]:
    """The data files that lie in a folder of the drops bucket."""
    prefix = layout.drop_prefix(tenant, folder)
    found = {}
    for item in islice(objects.list(bucket, prefix), FILES_AT_MOST):
        path = DropPath.parse(bucket, item.name)
        if path is not None and path.role is ObjectRole.DATA:
            found[path.file] = Data(path.file, item.size, str(item.generation), partial(_opened, objects, item))
    return found


def _opened(objects: ObjectStore, item: PinnedObject) -> AbstractContextManager[Readable]:
    stream = objects.open(item.bucket, item.name, item.generation)
    return cast(AbstractContextManager[Readable], closing(stream))


def check(draft: Draft, defaults: bytes | None, find_tokenizer: Find) -> Verdict:
    """What intake would say of the draft. Raises Refused where it would not look at the data."""
    manifest = parse_manifest(
        draft.manifest.encode("utf-8", "surrogatepass"), file=MANIFEST, folder=draft.folder, defaults=defaults
    )
    missing = [problem("file_not_found", file=name) for name, _ in _named(manifest) if name not in draft.files]
    if missing:
        raise Refused(missing)
    sources = [
        DataSource(name, role, draft.files[name].size, draft.files[name].open) for name, role in _named(manifest)
    ]
    return check_drop(manifest, sources, find_tokenizer(CATALOGUE[manifest.base_model]))


def _named(manifest: Manifest) -> list[tuple[str, str]]:
    """(name, role) of the data files that the manifest asks for."""
    by_role = (("train", manifest.dataset.train), ("validation", manifest.dataset.validation))
    return [(name, role) for role, names in by_role for name in names]


def tenant_defaults(services: Services, tenant: str) -> bytes | None:
    """The tenant's `_defaults.yaml`, as much of it as says that it is too large."""
    bucket = services.settings.drops_bucket
    pinned = services.objects.pin(bucket, layout.defaults_object(tenant))
    if pinned is None:
        return None
    return services.objects.read(bucket, pinned.name, pinned.generation, limit=MAX_BYTES + 1)


def submit(services: Services, draft: Draft, manifest: Manifest) -> str:
    """Copies the drop, its data first and the manifest last, whose arrival commits it. Returns the id of its run."""
    if not is_drop_name(draft.tenant) or not is_drop_name(draft.folder):
        raise ValueError("the folder's name is none")
    bucket, prefix = services.settings.drops_bucket, layout.drop_prefix(draft.tenant, draft.folder)
    for name, _ in _named(manifest):
        if (content := draft.files[name].upload) is not None:
            services.objects.upload(bucket, f"{prefix}{name}", io.BytesIO(content))
    object_name = f"{prefix}{MANIFEST}"
    generation = services.objects.upload(bucket, object_name, io.BytesIO(draft.manifest.encode()))
    return layout.run_id(draft.tenant, draft.folder, bucket, object_name, str(generation))
