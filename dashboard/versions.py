"""A version's files, to be taken home."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from adaptml.services import Services
from schemas import layout
from schemas.run import Artifacts, Run

SMALL_BYTES = 30_000_000
"""Cloud Run gives answers of 32 MiB; what is larger is fetched from the bucket itself."""
LINKS_FOR = timedelta(minutes=15)


def is_small(artifacts: Artifacts) -> bool:
    """Whether the version can be had as one file through this page."""
    return artifacts.size_bytes <= SMALL_BYTES


@dataclass(frozen=True)
class Bundle:
    """A version as a zip, packed once somebody asks for it."""

    services: Services
    run: Run

    def packed(self) -> bytes:
        """Weights do not get smaller by compression, so nothing is compressed."""
        stream = io.BytesIO()
        bucket = self.services.settings.artifacts_bucket
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
            for file, name in _files(self.run):
                archive.writestr(file, self.services.objects.read(bucket, name))
        return stream.getvalue()


def links(services: Services, run: Run) -> Iterator[tuple[str, str]]:
    """(file, URL) of each of a version's files; whoever has the URL may read it for a while."""
    for file, name in _files(run):
        saved_as = file.rpartition("/")[2]
        yield file, services.objects.signed_url(services.settings.artifacts_bucket, name, LINKS_FOR, file_name=saved_as)


def _files(run: Run) -> Iterator[tuple[str, str]]:
    """(file, its object) of a version."""
    if run.artifacts is None:
        return
    prefix = layout.version_prefix(run.tenant, run.name, run.artifacts.version)
    for file in sorted(run.artifacts.sha256):
        yield file, f"{prefix}{file}"
