"""Files of a tenant: objects below `_files/` of its folder. The listing of the bucket is the list of them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from pathlib import PurePosixPath
from typing import Annotated, Literal

from fastapi import APIRouter, Form, UploadFile
from fastapi.responses import RedirectResponse

from adaptml.objects import PinnedObject
from adaptml.services import Services
from functions.api.asked import After, Limit, Reader, TheServices, Writer, listed
from schemas import layout
from schemas.api import Deleted, File, Listed, Upload, UploadAsked
from schemas.errors import Refused, problem
from schemas.manifest import is_safe_file_name
from schemas.text import printable

routes = APIRouter(prefix="/v1", tags=["files"])

UPLOAD_BYTES = 30_000_000
"""Cloud Run takes requests of 32 MiB, what is around the file included."""
READABLE_FOR = timedelta(minutes=15)
WRITABLE_FOR = timedelta(hours=6)
LIMIT_BYTES = 100_000_000_000
Purpose = Literal["fine-tune"]


@routes.post("/files", response_model=File)
def upload(
    services: TheServices, caller: Writer, file: UploadFile, purpose: Annotated[Purpose, Form()] = "fine-tune"
) -> File:
    """Keeps a training or validation file, of 30 MB at most."""
    name = _plain(file.filename or "")
    content = file.file.read(UPLOAD_BYTES + 1)
    if len(content) > UPLOAD_BYTES:
        raise Refused([problem("file_too_large", limit=UPLOAD_BYTES)])
    bucket, target = services.settings.drops_bucket, layout.file_object(caller.tenant, _new_id(services), name)
    services.objects.put_new(bucket, target, content, "application/octet-stream")
    pinned = services.objects.pin(bucket, target)
    if pinned is None:
        raise Refused([problem("unavailable", what="the bucket")])
    return _shown(pinned)


@routes.post("/file_uploads", response_model=Upload)
def ask_for_upload(services: TheServices, caller: Writer, asked: UploadAsked) -> Upload:
    """A URL to which a file of any size is sent, by whoever has it, once."""
    file_id, name = _new_id(services), _plain(asked.filename)
    headers = {"x-goog-if-generation-match": "0", "x-goog-content-length-range": f"0,{LIMIT_BYTES}"}
    url = services.objects.signed_url(
        services.settings.drops_bucket,
        layout.file_object(caller.tenant, file_id, name),
        WRITABLE_FOR,
        method="PUT",
        headers=headers,
    )
    expires_at = int((services.now() + WRITABLE_FOR).timestamp())
    return Upload(id=file_id, filename=name, url=url, headers=headers, expires_at=expires_at)


@routes.get("/files", response_model=Listed[File])
def list_files(services: TheServices, caller: Reader, after: After = None, limit: Limit = 20) -> Listed[File]:
    """The tenant's files, newest first."""
    prefix = f"{caller.tenant}/{layout.FILES}/"
    since = None
    if after is not None:
        if not layout.is_file_id(after):
            raise Refused([problem("unknown_file", field="/after", file_id=after)])
        since = layout.file_object(caller.tenant, after).removesuffix("/") + "0"  # the character after the slash
    objects = services.objects.list(services.settings.drops_bucket, prefix, since)
    found = list(islice((one for one in objects if layout.parse_file(one.name)), limit + 1))
    return listed([_shown(one) for one in found[:limit]], lambda file: file.id, has_more=len(found) > limit)


@routes.get("/files/{file_id}", response_model=File)
def retrieve(services: TheServices, caller: Reader, file_id: str) -> File:
    """One file."""
    return _shown(find(services, caller.tenant, file_id))


@routes.get("/files/{file_id}/content", status_code=307, response_class=RedirectResponse)
def content(services: TheServices, caller: Reader, file_id: str) -> RedirectResponse:
    """Leads to a URL by which it can be read for a quarter of an hour."""
    pinned = find(services, caller.tenant, file_id)
    name = pinned.name.rsplit("/", 1)[-1]
    url = services.objects.signed_url(
        pinned.bucket, pinned.name, READABLE_FOR, generation=pinned.generation, file_name=name
    )
    return RedirectResponse(url, 307)


@routes.delete("/files/{file_id}", response_model=Deleted)
def delete(services: TheServices, caller: Writer, file_id: str) -> Deleted:
    """Deletes it. Runs that have pinned it still read it."""
    pinned = find(services, caller.tenant, file_id)
    services.objects.delete(pinned.bucket, pinned.name)
    return Deleted(id=file_id)


def find(services: Services, tenant: str, file_id: str, field: str | None = None) -> PinnedObject:
    """The file's object. Raises Refused where the tenant has none of that id."""
    if layout.is_file_id(file_id):
        for one in _of_id(services, tenant, file_id):
            return one
    raise Refused([problem("unknown_file", field=field, file_id=file_id)])


def _of_id(services: Services, tenant: str, file_id: str) -> Iterator[PinnedObject]:
    found = services.objects.list(services.settings.drops_bucket, layout.file_object(tenant, file_id))
    yield from (one for one in found if layout.parse_file(one.name))


def _new_id(services: Services) -> str:
    return layout.file_id(int(services.now().timestamp() * 1000), secrets.token_hex(6))


def _plain(name: str) -> str:
    """The last part of a name, as some clients send the whole path. Raises Refused."""
    plain = PurePosixPath(name.replace("\\", "/")).name
    if not plain or len(plain) > 200 or not is_safe_file_name(plain) or plain != printable(plain, 200):
        raise Refused([problem("bad_file_name", field="/filename", name=name)])
    return plain


def _shown(pinned: PinnedObject) -> File:
    parsed = layout.parse_file(pinned.name)
    if parsed is None:
        raise ValueError("no file of the API")
    return File(
        id=parsed[1],
        bytes=pinned.size,
        created_at=int(pinned.created_at.timestamp()),
        filename=parsed[2],
        uri=layout.uri(pinned.bucket, pinned.name),
    )
