"""What an object that landed in the drops bucket means."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime

from adaptml.services import Services
from functions import commands, intake, promotions
from schemas.layout import DropPath, ObjectRole

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Landed:
    """One generation of one object of a drop's folder."""

    path: DropPath
    generation: int
    written_at: datetime
    """By the service's clock."""


def take(services: Services, landed: Landed) -> None:
    """Does what the object asks for. Events come late, twice and in any order; none of that makes a difference."""
    path = landed.path
    if path.bucket != services.settings.drops_bucket:
        log.warning("an event of another bucket than the drops bucket was left alone")
        return
    match path.role:
        case ObjectRole.MANIFEST:
            intake.take_manifest(services, path, landed.generation, landed.written_at)
        case ObjectRole.DATA:
            intake.take_data(services, path)
        case ObjectRole.CANCEL:
            commands.cancel_drop(services, path, landed.written_at)
        case ObjectRole.RESUME:
            commands.resume_drop(services, path, landed.generation, landed.written_at)
        case ObjectRole.PROMOTE | ObjectRole.ROLLBACK:
            promotions.take(services, path, landed.generation, landed.written_at)
        case ObjectRole.IGNORED:
            return
