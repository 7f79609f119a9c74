"""Moving an alias by a file beside the drop: PROMOTE and ROLLBACK."""

from __future__ import annotations

import json
from datetime import datetime

from adaptml import adapters
from adaptml.aliases import Asked
from adaptml.objects import ObjectGone
from adaptml.services import Services
from schemas import layout
from schemas.adapter import LATEST, PROD, Action, version_number
from schemas.errors import Problem, Refused, problem
from schemas.layout import DropPath

LIMIT = 200
"""Bytes that are looked at: two words need fewer."""


def take(services: Services, path: DropPath, generation: int, written_at: datetime) -> None:
    """A file PROMOTE or ROLLBACK was written: moves the alias, and says beside the drop what became of it.

    A generation that was overwritten asks for nothing any more. What was asked for earlier and comes later does
    nothing.
    """
    present = services.objects.pin(path.bucket, f"{path.prefix}{path.file}")
    if present is None or present.generation != generation:
        return
    last = services.runs.queries.last_of_folder(path.tenant, path.folder, before=written_at)
    name = last.name if last is not None else path.folder
    try:
        text = services.objects.read(path.bucket, f"{path.prefix}{path.file}", generation, limit=LIMIT + 1)
        alias, version = words(path.file, text)
        action: Action = "promote" if path.file == layout.PROMOTE else "roll_back"
        asked_id = adapters.move_id(path.bucket, f"{path.prefix}{path.file}", str(generation))
        by = f"{path.file} of {layout.uri(path.bucket, path.prefix)}"
        adapters.move(services, path.tenant, name, Asked(asked_id, alias, action, version, written_at, by))
    except ObjectGone:
        return
    except Refused as refused:
        _tell(services, path, name, generation, written_at, refused.problems[0])
    else:
        _tell(services, path, name, generation, written_at, None)


def words(file: str, text: bytes) -> tuple[str, int | None]:
    """(alias, version) that the file names. Raises Refused. Pure."""
    said = text.decode("utf-8", "replace").split()
    versions = [word for word in said if version_number(word) is not None]
    names = [word for word in said if version_number(word) is None]
    if len(text) > LIMIT or len(names) > 1 or len(versions) > (file == layout.PROMOTE):
        raise Refused([problem("bad_alias_command", file=file)])
    return (names or [PROD])[0], version_number(versions[0]) if versions else None


def _tell(
    services: Services, path: DropPath, name: str, generation: int, written_at: datetime, why: Problem | None
) -> None:
    """The answer to the file, for whoever only has gsutil; that to a later file stays."""
    try:
        pointing = adapters.show(services, path.tenant, name).aliases
    except Refused:
        pointing = {}
    said = {
        "adapter": f"{path.tenant}/{name}",
        "aliases": {alias: f"v{version}" for alias, version in sorted(pointing.items()) if alias != LATEST},
        LATEST: f"v{pointing[LATEST]}" if LATEST in pointing else None,
        "answers": {
            "file": path.file,
            "generation": generation,
            "refused": why and {"code": why.code, "message": why.message, "hint": why.hint},
        },
    }
    order = f"{written_at.timestamp():017.6f}/{generation:020d}"
    body = json.dumps(said, indent=2) + "\n"
    services.objects.put_newer(path.bucket, f"{path.prefix}{layout.ALIASES}", body, "application/json", order)
