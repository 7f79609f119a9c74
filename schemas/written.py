"""Settings as somebody wrote them: what each says, under which name, and where it stands.

Between the text of a manifest and the Manifest lies a flat list of settings, each at its canonical path. Names that
other tools use, and a tenant's defaults, are resolved in this form, so that every problem can be told in the words
and at the line of whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from schemas.errors import Problem
from schemas.text import escape
from schemas.yaml_strict import Lines

Path = tuple[str, ...]
"""A setting's place in the manifest: ("training", "learning_rate")."""


@dataclass(frozen=True)
class Place:
    """Where something was written."""

    file: str
    pointer: str
    """JSON pointer, in the words of whoever wrote it."""
    line: int | None

    @property
    def name(self) -> str:
        """As a person writes it: training.learning_rate."""
        return dotted(part.replace("~1", "/").replace("~0", "~") for part in self.pointer.split("/")[1:])


@dataclass(frozen=True)
class Setting:
    """One value at its canonical path. None takes back what a tenant's defaults say there."""

    path: Path
    value: Any
    place: Place


@dataclass(frozen=True)
class Written:
    """What one file says, or several laid over each other. `problems` were found while it was read."""

    file: str
    lines: Mapping[str, Lines] = field(default_factory=dict)
    """By file: the line of each JSON pointer."""
    settings: Mapping[Path, Setting] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    is_readable: bool = True

    def get(self, path: Path) -> Any:
        """The value written there, or None."""
        setting = self.settings.get(path)
        return setting.value if setting else None

    def tree(self) -> dict[str, Any]:
        """The settings as nested mappings, those that take something back left out."""
        root: dict[str, Any] = {}
        for path in sorted(self.settings, key=len):
            value = self.settings[path].value
            part: Any = root
            for name in path[:-1]:
                part = part.setdefault(name, {}) if isinstance(part, dict) else None
            if isinstance(part, dict) and value is not None:
                part[path[-1]] = dict(value) if isinstance(value, dict) else value
        return root

    def place(self, path: Path) -> Place:
        """Where the value at a canonical path was written, or the nearest place around it."""
        for end in range(len(path), 0, -1):
            if setting := self.settings.get(path[:end]):
                return _within(setting.place, path[end:], self.lines.get(setting.place.file, {}))
        lines, around = self.lines.get(self.file, {}), pointer(path)
        while around and around not in lines:
            around = around.rpartition("/")[0]
        return Place(self.file, pointer(path), lines.get(around))

    def over(self, defaults: Written, exclusive: Iterable[tuple[Path, Path]]) -> Written:
        """These settings laid over defaults: mappings are merged, everything else is replaced.

        Of an exclusive pair, what is given here drops its partner there.
        """
        replaced = {path for path, setting in self.settings.items() if setting.value != {}}
        for one, other in exclusive:
            replaced |= {other} if self.get(one) else set()
            replaced |= {one} if self.get(other) else set()
        kept = {
            path: setting
            for path, setting in defaults.settings.items()
            if replaced.isdisjoint(path[:end] for end in range(1, len(path) + 1))
        }
        return replace(
            self,
            lines={**defaults.lines, **self.lines},
            settings=kept | dict(self.settings),
            problems=self.problems + defaults.problems,
            is_readable=self.is_readable and defaults.is_readable,
        )


def leaves(value: Any, path: Path, place: Place, lines: Lines) -> Iterator[Setting]:
    """The settings that a value holds: one, or one for each entry of a mapping."""
    if not isinstance(value, dict) or not value:
        yield Setting(path, value, place)
        return
    for name, item in value.items():
        inner = f"{place.pointer}/{escape(name)}"
        yield from leaves(item, (*path, name), Place(place.file, inner, lines.get(inner)), lines)


def dotted(path: Iterable[str]) -> str:
    """training.learning_rate"""
    return ".".join(path)


def pointer(path: Path) -> str:
    """/training/learning_rate"""
    return "".join("/" + escape(part) for part in path)


def _within(place: Place, rest: Path, lines: Lines) -> Place:
    """An entry of the value at `place`, if it was written as one: a list of one may have been written without."""
    inner = place.pointer + pointer(rest)
    return Place(place.file, inner, lines[inner]) if rest and inner in lines else place
