"""What is wrong with a manifest's names and values, in the words of whoever wrote it, and what was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import groupby
from typing import Any

from pydantic import ValidationError

from schemas.aliases import DECIDED, SECTIONS, fields_of, names_in
from schemas.errors import Problem, problem
from schemas.manifest import NAME_PATTERN, SHA256_PATTERN
from schemas.text import printable
from schemas.written import Path, Place, Written, dotted, pointer

_PATTERNS = {
    f"^{NAME_PATTERN}$": "1 to 48 lower-case letters, digits and `-`, a letter or digit first and last",
    SHA256_PATTERN: "64 lower-case hexadecimal digits",
}
_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
    "too_short": "{min_length} or more entries",
    "too_long": "{max_length} entries at most",
    "string_too_short": "{min_length} or more characters",
    "string_too_long": "{max_length} characters at most",
}


def at(place: Place, code: str, hint: str | None = None, **values: Any) -> Problem:
    """The problem `code` where something was written; `hint` when there is something better to say."""
    found = problem(code, file=place.file, line=place.line, field=place.pointer, **values)
    return found.model_copy(update={"hint": hint}) if hint else found


def unknown_field(section: str, name: str, place: Place) -> Problem:
    """A key that no setting has."""
    meant = _decided(name) or _elsewhere(name) or _near(section, name)
    return at(place, "unknown_field", name=place.name, suggestion=meant)


def problems_of(error: ValidationError, written: Written, tree: Mapping[str, Any]) -> list[Problem]:
    """pydantic's findings, one for each value: it reports every branch of a union by itself."""
    found = [(_path(item, tree), item) for item in error.errors(include_url=False)]
    # The branch of a union that looked deeper into the value is the one that was meant.
    around = {path[:end] for path, _ in found for end in range(len(path))}
    deepest = [(path, item) for path, item in found if path not in around]
    by_path = groupby(sorted(deepest, key=lambda entry: entry[0]), key=lambda entry: entry[0])
    return [_problem(path, [item for _, item in items], written) for path, items in by_path]


def suggestion(word: Any, known: Iterable[str], what: str) -> str:
    """What to write instead: the nearest, or all of them."""
    known = sorted(known)
    close = nearest(word, known) if isinstance(word, str) else None
    return f"Did you mean {close}?" if close else f"Known {what}: {', '.join(known)}."


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The known word that was probably meant: the one that goes on from it, or is spelled most like it."""
    spelled = {name.lower(): name for name in known}
    longer = [name for low, name in spelled.items() if len(word) > 3 and low.startswith(word.lower())]
    if len(longer) == 1:
        return longer[0]
    close = difflib.get_close_matches(word.lower()[:100], spelled, n=1, cutoff=cutoff)
    if close:
        return spelled[close[0]]
    inside = [name for low, name in spelled.items() if len(word) > 1 and word.lower() in low]
    return inside[0] if len(inside) == 1 else None


def _decided(name: str) -> str | None:
    for what, names in DECIDED.items():
        for known in names.split():
            if name == known or (known.endswith("*") and name.startswith(known[:-1])):
                return f"AdaptML decides this itself ({what}): remove {printable(name)}."
    return None


@cache
def _everywhere() -> Mapping[str, str]:
    """Every name of any section → the setting that it means."""
    return {name: alias.setting for section in reversed(list(SECTIONS)) for name, alias in names_in(section).items()}


def _elsewhere(name: str) -> str | None:
    if (setting := _everywhere().get(name)) is not None:
        return f"Did you mean {setting}?"
    section, _, last = name.rpartition(".")
    if section in SECTIONS and last in names_in(section):
        return f"Write it as `{section}: {{{last}: …}}`."
    return None


def _near(section: str, name: str) -> str:
    here = names_in(section)
    if close := nearest(name, here):
        setting = here[close].setting
        return f"Did you mean {close}?" if setting.endswith(close) else f"Did you mean {close} ({setting})?"
    if close := nearest(name, _everywhere(), cutoff=0.75):
        return f"Did you mean {_everywhere()[close]}?"
    return f"Known fields here: {', '.join(sorted(fields_of(section)))}."


def _path(item: Any, tree: Any) -> Path:
    """Where the value is. pydantic's location also names branches of unions; what the value does not hold is none."""
    path: list[str] = []
    for part in item["loc"]:
        is_entry = isinstance(tree, list) and isinstance(part, int) and part < len(tree)
        if is_entry or (isinstance(tree, dict) and part in tree):
            tree = tree[part]
        elif not (item["type"] == "missing" and part == item["loc"][-1]):
            continue
        path.append(str(part))
    return tuple(path)


def _problem(path: Path, items: list[Any], written: Written) -> Problem:
    place = written.place(path)
    if items[0]["type"] == "missing":
        return problem("missing_field", file=place.file, line=place.line, field=pointer(path), name=dotted(path))
    expected = " or ".join(dict.fromkeys(filter(None, map(_expectation, items))))
    value = items[0]["input"]
    is_key = "[key]" in items[0]["loc"]
    shown = "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else printable(value)
    found = f"expected {expected}, found {shown}" if expected else f"{items[0]['msg']}".removeprefix("Value error, ")
    detail = f"{place.name}: {'the key is not known; ' if is_key else ''}{found}"
    known = [word for item in items if item["type"] == "literal_error" for word in _words(item)]
    close = nearest(value, known) if isinstance(value, str) else None
    return at(place, "invalid_value", f"Did you mean {close}?" if close else None, detail=detail)


def _expectation(item: Any) -> str | None:
    if item["type"] == "literal_error":
        return ", ".join(_words(item))
    if item["type"] == "string_pattern_mismatch":
        return _PATTERNS.get(item["ctx"]["pattern"], f"text like {item['ctx']['pattern']}")
    form = _EXPECTED.get(item["type"])
    return form.format_map(item.get("ctx", {})) if form else None


def _words(item: Any) -> list[str]:
    """The values that a Literal admits."""
    text = str(item["ctx"]["expected"])
    return re.findall(r"'([^']*)'", text) or [text]
