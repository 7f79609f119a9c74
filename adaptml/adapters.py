"""Adapters, as every face shows them and moves their aliases: function, API, page and command alike."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from adaptml import aliases, comparison
from adaptml.aliases import Asked, Numbered
from adaptml.comparison import Comparison, Sample
from adaptml.objects import ObjectGone
from adaptml.publishing import SAMPLES
from adaptml.services import Services
from schemas import layout
from schemas.adapter import LATEST, Adapter, AdapterState, Move
from schemas.errors import Refused, problem

MOVES_KEPT = 100
"""In the file that lies in the bucket."""


@dataclass(frozen=True)
class Shown:
    """One adapter with all that is known of it."""

    adapter: Adapter
    versions: list[Numbered]
    """Oldest first."""
    moves: list[Move]
    """Oldest first."""

    @property
    def aliases(self) -> dict[str, int]:
        """`latest` among them."""
        newest = aliases.latest(self.versions)
        return self.adapter.aliases | ({LATEST: newest} if newest is not None else {})

    def version(self, reference: str) -> Numbered:
        """What `v7`, `7`, `latest` or an alias names. Raises Refused."""
        number = aliases.resolved(self.adapter, self.versions, reference)
        return next(one for one in self.versions if one.version.version == number)


def move_id(*identity: str) -> str:
    """Names what asked for a move: the same cause always gets the same."""
    return hashlib.sha256("\0".join(identity).encode()).hexdigest()[:20]


def show(services: Services, tenant: str, name: str) -> Shown:
    """Raises Refused where the tenant has no such adapter."""
    adapter = services.runs.adapters.find(tenant, name)
    if adapter is None:
        raise _unknown(tenant, name)
    return Shown(adapter, _numbered(services, tenant, name), services.runs.adapters.moves(tenant, name))


def of_tenant(services: Services, tenant: str) -> list[Adapter]:
    """All adapters that the tenant has a version of, by name."""
    return list(services.runs.adapters.of_tenant(tenant))


def move(services: Services, tenant: str, name: str, asked: Asked) -> AdapterState:
    """Moves an alias, and tells whoever reads the bucket. Once, however often it is asked for under one `move_id`.

    What was asked for before the alias was last moved does nothing. Raises Refused where it may not be.
    """

    def decide(adapter: Adapter, moves: Sequence[Move]) -> Move | None:
        return aliases.moved(adapter, _numbered(services, tenant, name), moves, asked, services.now())

    state, _ = services.runs.adapters.move(tenant, name, asked.move_id, decide)
    if state is None:
        raise _unknown(tenant, name)
    _tell(services, state)
    return state


def compare(services: Services, tenant: str, name: str, before: str, after: str) -> Comparison:
    """What changed between two versions that are named as `Shown.version` takes them. Raises Refused."""
    found = show(services, tenant, name)
    one, other = found.version(before), found.version(after)
    return comparison.compare(one, other, (samples(services, one), samples(services, other)))


def samples(services: Services, one: Numbered) -> list[Sample]:
    """What the version's model answered to held-out conversations; nothing where that cannot be read."""
    if one.run is None or not one.is_readable:
        return []
    prefix = layout.version_prefix(one.run.tenant, one.run.name, one.version.version)
    try:
        text = services.objects.read(services.settings.artifacts_bucket, f"{prefix}{SAMPLES}")
    except ObjectGone:
        return []
    return [msgspec.json.decode(line) for line in text.splitlines() if line.strip()]


def _numbered(services: Services, tenant: str, name: str) -> list[Numbered]:
    versions = services.runs.adapters.versions(tenant, name)
    return [Numbered(version, services.runs.find(version.run_id)) for version in versions]


def _tell(services: Services, state: AdapterState) -> None:
    """Renews ALIASES.json; a later move's stays."""
    adapter = state.adapter
    body = state.model_copy(update={"moves": state.moves[-MOVES_KEPT:]}).model_dump_json(indent=2) + "\n"
    services.objects.put_newer(
        services.settings.artifacts_bucket,
        layout.aliases_object(adapter.tenant, adapter.name),
        body,
        "application/json",
        f"{adapter.alias_revision:09d}",
    )


def _unknown(tenant: str, name: str) -> Refused:
    return Refused([problem("unknown_adapter", adapter=f"{tenant}/{name}")])
