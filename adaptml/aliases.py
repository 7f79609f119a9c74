"""What an alias may come to point at. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from adaptml import gate
from schemas.adapter import LATEST, Action, Adapter, Move, is_alias, version_number
from schemas.errors import Refused, problem
from schemas.run import Run, Version
from schemas.text import printable


class Numbered(NamedTuple):
    """A version with its run; None where the run's document is gone."""

    version: Version
    run: Run | None

    @property
    def is_readable(self) -> bool:
        """True once all its files are at their place."""
        return self.run is not None and self.run.artifacts is not None and self.run.artifacts.uri is not None


class Asked(NamedTuple):
    """A wish to move an alias."""

    move_id: str
    alias: str
    action: Action
    version: int | None
    """None when rolling back, and to promote the newest version that may be."""
    at: datetime
    by: str


def latest(versions: Iterable[Numbered]) -> int | None:
    """What `latest` points at."""
    return gate.newest(one.version for one in versions if one.is_readable)


def resolved(adapter: Adapter, versions: Sequence[Numbered], reference: str) -> int:
    """The number of the version that `v7`, `7`, `latest` or an alias names. Raises Refused."""
    number = version_number(reference)
    if number is None and reference == LATEST:
        number = latest(versions)
    elif number is None:
        number = adapter.aliases.get(reference)
    if number is None or _numbered(versions, number) is None:
        raise _unknown(adapter, versions, reference)
    return number


def moved(
    adapter: Adapter, versions: Sequence[Numbered], moves: Sequence[Move], asked: Asked, now: datetime
) -> Move | None:
    """The move that is asked for; None where the alias points there already, or was moved by what was asked for later.

    Raises Refused where it may not be.
    """
    if not is_alias(asked.alias):
        raise Refused([problem("bad_alias", alias=asked.alias)])
    present = adapter.aliases.get(asked.alias)
    if any(move.alias == asked.alias and move.asked_at > asked.at for move in moves):
        return None
    if asked.action == "promote":
        target = _promotable(adapter, versions, asked.version)
    else:
        target = _before(adapter, versions, moves, asked.alias)
    if target == present:
        return None
    return Move(
        move_id=asked.move_id,
        revision=adapter.alias_revision + 1,
        alias=asked.alias,
        action=asked.action,
        to_version=target,
        from_version=present,
        asked_at=asked.at,
        moved_at=now,
        asked_by=printable(asked.by, 200),
    )


def _promotable(adapter: Adapter, versions: Sequence[Numbered], wanted: int | None) -> int:
    """The version, if the gate lets it pass and its files are there."""
    number = wanted if wanted is not None else latest(versions)
    if number is None:
        why = "no version of it can be read and has passed its gate"
        raise Refused([problem("not_promotable", version="it", adapter=_name(adapter), why=why)])
    found = _readable(adapter, versions, number)
    if not found.version.promotable:
        why = found.version.promotable_reason
        raise Refused([problem("not_promotable", version=f"v{number}", adapter=_name(adapter), why=why)])
    return number


def _before(adapter: Adapter, versions: Sequence[Numbered], moves: Sequence[Move], alias: str) -> int:
    """What the alias pointed at before it was promoted to where it is."""
    way = been(moves, alias)
    if len(way) < 2:
        where = f"it has pointed at v{way[0]} alone" if way else "it points at nothing"
        raise Refused([problem("nothing_to_roll_back", alias=alias, adapter=_name(adapter), where=where)])
    _readable(adapter, versions, way[-2])
    return way[-2]


def been(moves: Iterable[Move], alias: str) -> list[int]:
    """Where the alias was promoted to, the last place last, without what was rolled back: rolling back twice goes two
    steps back."""
    way: list[int] = []
    for move in sorted(moves, key=lambda move: move.revision):
        if move.alias == alias and move.action == "promote":
            way.append(move.to_version)
        elif move.alias == alias and way:
            way.pop()
    return way


def _readable(adapter: Adapter, versions: Sequence[Numbered], number: int) -> Numbered:
    found = _numbered(versions, number)
    if found is None:
        raise _unknown(adapter, versions, f"v{number}")
    if not found.is_readable:
        raise Refused([problem("version_not_ready", version=f"v{number}", adapter=_name(adapter))])
    return found


def _numbered(versions: Iterable[Numbered], number: int) -> Numbered | None:
    return next((one for one in versions if one.version.version == number), None)


def _unknown(adapter: Adapter, versions: Sequence[Numbered], named: str) -> Refused:
    known = [*(f"v{one.version.version}" for one in versions[-10:]), *sorted(adapter.aliases)]
    found = ", ".join(known) or "no version"
    return Refused([problem("unknown_version", named=named, adapter=_name(adapter), known=found)])


def _name(adapter: Adapter) -> str:
    return f"{adapter.tenant}/{adapter.name}"
