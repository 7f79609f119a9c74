"""The usual form of a dataset's rows: that in which nothing needs to be said of most of them.

Two ways read it: `typed` in Python, `native` compiled. Whatever is of another form is examined one by one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from types import MappingProxyType

from adaptml.dataset import rules
from adaptml.dataset.fingerprints import seed_of
from adaptml.dataset.shapes import ROLES, SHAPES, SHAREGPT_ROLES, Place, rivals
from adaptml.dataset.terms import Terms

UNKNOWN = -1
"""Characters of a row that has to be examined."""
MOST_COLUMNS = 100
"""Each is searched for in every line."""
_UNTYPABLE = re.compile(r'["\\/\x00-\x1f]')


class Kind(IntEnum):
    """What may stand in a column."""

    TURNS = 0
    TEXT = 1
    TEXT_OR_NULL = 2
    ONLY_NULL = 3
    ANYTHING = 4

    @property
    def is_required(self) -> bool:
        """Others may be missing."""
        return self <= Kind.TEXT


class Slot(IntEnum):
    """What a text is in its conversation; PLAIN outside one."""

    UNREAD = 0
    SYSTEM = 1
    QUESTION = 2
    MORE_QUESTION = 3
    ANSWER = 4
    PLAIN = 5


@dataclass(frozen=True, slots=True)
class Column:
    """One of a row's."""

    name: str
    """In the terms of the shape; of a column that is not read, its number."""
    key: str
    """In the file."""
    kind: Kind
    slot: Slot = Slot.UNREAD


@dataclass(frozen=True, slots=True)
class Setup:
    """What rows must be like."""

    shape: str
    seen: tuple[str, ...]
    """The columns of the dataset's first row."""
    terms: Terms


@dataclass(frozen=True, slots=True)
class UsualForm:
    """What a row of the usual form looks like."""

    shape: str
    columns: tuple[Column, ...]
    turn_keys: tuple[str, str]
    """Of the role and the text of a turn, in the file."""
    roles: tuple[str, ...]
    """Names of those whose turns hold nothing but a text."""


@dataclass(frozen=True, slots=True)
class _Way:
    """How a shape says things; the shape's other columns are null then."""

    slots: Mapping[str, Slot]
    """Of its columns that hold texts."""
    turns: str = ""
    """Its column that holds a conversation."""
    turn_keys: tuple[str, str] = ("role", "content")
    roles: tuple[str, ...] = ()


def _speakers(roles: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(name for name, role in roles.items() if role in ("system", "user", "assistant"))


_WAYS: Mapping[str, _Way] = MappingProxyType(
    {
        "messages": _Way({}, "messages", roles=_speakers(ROLES)),
        "sharegpt": _Way({"system": Slot.SYSTEM}, "conversations", ("from", "value"), _speakers(SHAREGPT_ROLES)),
        "prompt_completion": _Way({"system": Slot.SYSTEM, "prompt": Slot.QUESTION, "completion": Slot.ANSWER}),
        "alpaca": _Way(
            {
                "system": Slot.SYSTEM,
                "instruction": Slot.QUESTION,
                "input": Slot.MORE_QUESTION,
                "output": Slot.ANSWER,
            }
        ),
        "text": _Way({"text": Slot.PLAIN}),
    }
)


def is_possible(setup: Setup) -> bool:
    """False for very many columns, where two fields are read from one of them, and for names that cannot be used.

    Those are names that a typed row cannot have, or that JSON writes in several ways without need.
    """
    columns = setup.terms.columns
    names = [columns.get(name, name) for name in SHAPES[setup.shape].columns()]
    turn_keys = [columns.get(key, key) for key in _WAYS[setup.shape].turn_keys]
    is_unique = len(set(names)) == len(names) and len(set(turn_keys)) == len(turn_keys)
    are_few = len(names) + len(setup.seen) <= MOST_COLUMNS
    return is_unique and are_few and not any(map(_UNTYPABLE.search, (*names, *turn_keys, *setup.seen)))


def usual_form(setup: Setup) -> UsualForm:
    """What is usual where the first row was like that. Only where it `is_possible`."""
    way, columns = _WAYS[setup.shape], setup.terms.columns
    role, content = (columns.get(key, key) for key in way.turn_keys)
    return UsualForm(setup.shape, tuple(_columns(setup)), (role, content), way.roles)


def _columns(setup: Setup) -> Iterator[Column]:
    shape, seen, terms = setup.shape, set(setup.seen), setup.terms
    way = _WAYS[shape]
    keys = {name: terms.columns.get(name, name) for name in SHAPES[shape].columns()}
    unused = sorted(seen - set(keys.values()))
    empty = rivals(shape, {*keys.values(), *unused}, terms.columns, terms.asked)
    for name, slot in way.slots.items():
        if name in SHAPES[shape].required:
            yield Column(name, keys[name], Kind.TEXT, slot)
        else:
            yield Column(name, keys[name], Kind.ONLY_NULL if keys[name] in empty else Kind.TEXT_OR_NULL, slot)
    if way.turns:
        yield Column("turns", keys[way.turns], Kind.TURNS)
    for name, key in keys.items():
        if name != way.turns and name not in way.slots and key in seen:
            yield Column(name, key, Kind.ONLY_NULL)
    for number, key in enumerate(unused):
        yield Column(f"unused_{number}", key, Kind.ONLY_NULL if key in empty else Kind.ANYTHING)


@lru_cache(maxsize=10_000)
def seed_of_speakers(names: tuple[str, ...]) -> int | None:
    """What the fingerprint of turns of these roles starts from; None where `rules` has something to say of them."""
    roles = [SHAREGPT_ROLES.get(name) or ROLES[name] for name in names]
    return None if any(rules.order(roles, [_NOWHERE] * len(roles), "")) else seed_of(roles)


_NOWHERE = Place("", "")
