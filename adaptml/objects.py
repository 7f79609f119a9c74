"""Objects in Cloud Storage: pinned by generation when read, guarded by preconditions when written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Literal, cast
from urllib.parse import quote

from google.api_core.exceptions import NotFound, PreconditionFailed, RequestRangeNotSatisfiable
from google.cloud import storage

from adaptml.signing import signing_with

ORDER = "adaptml-order"


@dataclass(frozen=True)
class PinnedObject:
    """One generation of one object."""

    bucket: str
    name: str
    generation: int
    size: int
    """Bytes."""
    crc32c: str
    created_at: datetime
    """When this generation was written, by the service's clock."""


class ObjectGone(Exception):  # noqa: N818 - says what is the matter
    """Raised where a pinned generation was deleted."""


class ObjectStore:
    """Reads and writes objects of any bucket that the service account may touch."""

    def __init__(self, client: storage.Client) -> None:
        self._client = client

    def pin(self, bucket: str, name: str) -> PinnedObject | None:
        """The newest generation at this moment, or None."""
        blob = self._client.bucket(bucket).get_blob(name)
        return _pinned(blob) if blob is not None else None

    def read(self, bucket: str, name: str, generation: int | None = None, limit: int | None = None) -> bytes:
        """The content, or its first `limit` bytes. Raises ObjectGone."""
        blob = self._client.bucket(bucket).blob(name, generation=generation)
        try:
            return cast(bytes, blob.download_as_bytes(end=limit - 1 if limit else None))
        except NotFound as error:
            raise ObjectGone(name) from error
        except RequestRangeNotSatisfiable:
            return b""  # an empty object has no first byte to ask for

    def open(self, bucket: str, name: str, generation: int) -> BinaryIO:
        """A stream over the content; the first read raises google.api_core's NotFound when it is gone."""
        blob = self._client.bucket(bucket).blob(name, generation=generation)
        return cast(BinaryIO, blob.open("rb", chunk_size=8 * 1024 * 1024))

    def list(self, bucket: str, prefix: str = "", since: str | None = None) -> Iterator[PinnedObject]:
        """Newest generations below a prefix by name, from the name `since` on."""
        options = {"start_offset": since} if since else {}
        for blob in self._client.list_blobs(bucket, prefix=prefix, **options):
            yield _pinned(blob)

    def generations(self, bucket: str, glob: str) -> Iterator[PinnedObject]:
        """All generations of objects whose names match, as far as the bucket keeps them, oldest first for each name.

        A service that knows no globs returns more; the caller looks at names anyway.
        """
        for blob in self._client.list_blobs(bucket, match_glob=glob, versions=True):
            yield _pinned(blob)

    def upload_new(self, bucket: str, name: str, path: Path) -> None:
        """Uploads a file to a name that must not exist. An object that is there already stays as it is."""
        blob = self._client.bucket(bucket).blob(name)
        try:
            blob.upload_from_filename(str(path), if_generation_match=0, checksum="crc32c")
        except PreconditionFailed:
            return

    def replace(self, bucket: str, name: str, path: Path) -> None:
        """Uploads a file, whatever the name holds; the service checks the content by its crc32c."""
        self._client.bucket(bucket).blob(name).upload_from_filename(str(path), checksum="crc32c")

    def upload(self, bucket: str, name: str, stream: BinaryIO) -> int:
        """Uploads what is left of a stream, whatever the name holds, and returns the generation that it got.

        The service checks the content by its crc32c.
        """
        blob = self._client.bucket(bucket).blob(name)
        blob.upload_from_file(stream, checksum="crc32c")
        return int(blob.generation)

    def download(self, pinned: PinnedObject, path: Path) -> None:
        """Writes the content to a file, checked by its crc32c. Raises ObjectGone, and google-resumable-media's
        DataCorruption."""
        blob = self._client.bucket(pinned.bucket).blob(pinned.name, generation=pinned.generation)
        try:
            blob.download_to_filename(str(path), checksum="crc32c")
        except NotFound as error:
            raise ObjectGone(pinned.name) from error

    def signed_url(
        self,
        bucket: str,
        name: str,
        expires_in: timedelta,
        *,
        method: Literal["GET", "PUT"] = "GET",
        generation: int | None = None,
        file_name: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """A URL by which whoever has it may read or write this one object for a while (V4).

        `headers` are what the request then has to send, e.g. x-goog-if-generation-match; `file_name` is what a browser
        saves it as. Raises google.auth's TransportError where IAM does not sign.
        """
        blob = self._client.bucket(bucket).blob(name, generation=generation)
        saved_as = f"attachment; filename*=UTF-8''{quote(file_name)}" if file_name else None
        url = blob.generate_signed_url(
            version="v4",
            expiration=expires_in,
            method=method,
            generation=generation,
            response_disposition=saved_as,
            headers=dict(headers or {}),
            **signing_with(self._client._credentials),
        )
        return cast(str, url)

    def copy_new(self, bucket: str, source: str, target: str) -> None:
        """Copies within the bucket, on the server's side, to a name that must not exist."""
        blobs = self._client.bucket(bucket)
        if blobs.get_blob(target) is not None:
            return
        token = None
        try:
            while True:
                token, _, _ = blobs.blob(target).rewrite(blobs.blob(source), token=token, if_generation_match=0)
                if token is None:
                    return
        except PreconditionFailed:
            return
        except NotFound as error:
            if blobs.get_blob(target) is None:  # else somebody else has copied it meanwhile, and emptied the source
                raise ObjectGone(source) from error

    def put_new(self, bucket: str, name: str, body: bytes, content_type: str = "application/json") -> bool:
        """Writes to a name that must not exist. False, and nothing is written, when there is an object already."""
        blob = self._client.bucket(bucket).blob(name)
        try:
            blob.upload_from_string(body, content_type=content_type, if_generation_match=0)
        except PreconditionFailed:
            return False
        return True

    def put_newer(self, bucket: str, name: str, body: str, content_type: str, order: str) -> int | None:
        """Writes unless what is there has a higher `order`, so that late writers do not undo newer news.

        `order` is compared as text. Returns the generation, also of what the same `order` wrote before; else None.
        """
        blob = self._client.bucket(bucket).blob(name)
        for _ in range(5):
            present = self._client.bucket(bucket).get_blob(name)
            written = (present.metadata or {}).get(ORDER, "") if present is not None else ""
            if present is not None and written >= order:
                return int(present.generation) if written == order else None
            blob.metadata = {ORDER: order}
            try:
                blob.upload_from_string(
                    body, content_type=content_type, if_generation_match=present.generation if present else 0
                )
            except PreconditionFailed:
                continue
            return int(blob.generation)
        return None

    def delete_older(self, bucket: str, name: str, order: str) -> None:
        """Deletes what `put_newer` wrote, unless it has a higher `order`; fine when there is nothing."""
        for _ in range(5):
            present = self._client.bucket(bucket).get_blob(name)
            if present is None or (present.metadata or {}).get(ORDER, "") > order:
                return
            try:
                self._client.bucket(bucket).blob(name).delete(if_generation_match=present.generation)
            except PreconditionFailed:
                continue
            except NotFound:
                pass
            return

    def delete(self, bucket: str, name: str) -> None:
        """Deletes the newest generation; fine when there is none."""
        try:
            self._client.bucket(bucket).blob(name).delete()
        except NotFound:
            return


def _pinned(blob: storage.Blob) -> PinnedObject:
    return PinnedObject(
        blob.bucket.name, blob.name, int(blob.generation), int(blob.size), blob.crc32c or "", blob.time_created
    )
