"""Which setting, with which value, would make a plan possible.

Nothing is guessed: a value is suggested only after the manifest with it was planned again. What "possible" means is the
caller's condition; it holds for small values of a setting and not for large ones, so the largest is found by bisection.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import TypeVar

from pydantic import ValidationError

from schemas.catalogue import CATALOGUE
from schemas.manifest import Manifest

LARGEST_BATCH = 1024
"""That the manifest allows."""
SEQUENCE_STEP = 64
"""Suggested lengths are multiples of this many tokens; tensor cores like them so."""

_Number = TypeVar("_Number", int, float)

Condition = Callable[[Manifest], bool]
Settings = dict[str, str | float | list[str]]
"""Dotted names of the manifest's fields → values, to be set together."""


def with_settings(manifest: Manifest, settings: Settings) -> Manifest | None:
    """The manifest with other values; None when a field does not allow its value."""
    document = manifest.model_dump(by_alias=True)
    for name, value in settings.items():
        *parts, field = name.split(".")
        part = document
        for key in parts:
            part = part[key]
        part[field] = value
    try:
        return Manifest.model_validate(document)
    except ValidationError:
        return None


def to_fit(manifest: Manifest, fits: Condition) -> str:
    """How the run would fit the accelerator's memory."""
    if ways := _ways_to_fit(manifest, fits):
        return _sentence(ways)
    no_length = f"No training.max_seq_length is short enough for {manifest.base_model} with these settings."
    smaller: list[Settings] = [{"base_model": model} for model in _smaller_models(manifest.base_model)]
    for settings in smaller:
        if _if_it_holds(manifest, settings, fits):
            return f"{no_length} {_sentence([settings])}"
    for settings in smaller:
        other = with_settings(manifest, settings)
        if other is not None and (ways := _ways_to_fit(other, fits)):
            return f"{no_length} {_sentence([settings | ways[-1]])}"  # what leaves most; all would be cut as too long
    return f"{no_length} Nor would a smaller model of the catalogue fit; lower lora.r or adapt fewer layers."


def to_afford(manifest: Manifest, enough_usd: float, affordable: Condition) -> str:
    """How the run would cost no more than is allowed; `enough_usd` is what would have to be."""
    ways = _ways_to_shorten(manifest, affordable) + _if_it_holds(
        manifest, {"compute.max_cost_usd": enough_usd}, affordable
    )
    return _sentence(ways) if ways else _TOO_MUCH


def to_finish_at_once(manifest: Manifest, enough_s: float, at_once: Condition) -> str:
    """How the run would need one execution only; `enough_s` seconds of time are enough for that."""
    ways = _longer_timeout(manifest, enough_s, at_once) + _ways_to_shorten(manifest, at_once)
    nothing = "Nothing has to be done."
    return f"{nothing} For a run in one execution: {_sentence(ways)}" if ways else nothing


def to_take_a_step(manifest: Manifest, enough_s: float, takes_one: Condition) -> str:
    """How an execution would have time for one step at least; `enough_s` seconds of time are enough for that."""
    ways = _longer_timeout(manifest, enough_s, takes_one)
    most = _largest(manifest, "training.batch_size", range(1, LARGEST_BATCH + 1), takes_one)
    ways += [] if most is None else [{"training.batch_size": most}]
    return _sentence(ways) if ways else "No timeout that can be set is enough; train on shorter examples."


def to_export(manifest: Manifest, possible: Condition, enough_s: float | None = None) -> str:
    """How the run would deliver what it can: all in more time, if `enough_s` seconds are enough; the first form that
    can be made, or none but the adapter; all of them of a smaller base model."""
    ways = [] if enough_s is None else _longer_timeout(manifest, enough_s, possible)
    asked = [form for form in manifest.export if form != "adapter"]
    fewer: list[Settings] = [{"export": [form]} for form in (*(asked if len(asked) > 1 else ()), "adapter")]
    smaller: list[Settings] = [{"base_model": model} for model in _smaller_models(manifest.base_model)]
    for settings in (fewer, smaller):
        ways += next(filter(None, (_if_it_holds(manifest, way, possible) for way in settings)), [])
    return _sentence(ways)


def _longer_timeout(manifest: Manifest, enough_s: float, holds: Condition) -> list[Settings]:
    return _if_it_holds(manifest, {"compute.timeout": f"{math.ceil(enough_s / 60)}m"}, holds)


_TOO_MUCH = "No number of epochs and no limit that can be set is enough; train on less data or a smaller base model."


def longest_sequence(manifest: Manifest, fits: Condition) -> int | None:
    """The largest max_seq_length that fits: a multiple of 64 tokens within the model's context. None: not even 64."""
    lengths = range(SEQUENCE_STEP, CATALOGUE[manifest.base_model].context + 1, SEQUENCE_STEP)
    return _largest(manifest, "training.max_seq_length", lengths, fits)


def _ways_to_fit(manifest: Manifest, fits: Condition) -> list[Settings]:
    """A shorter sequence; NF4; or both, where that leaves a longer sequence than the first alone."""
    ways: list[Settings] = []
    longest = longest_sequence(manifest, fits) or 0
    if longest:
        ways.append({"training.max_seq_length": longest})
    quantised: Settings = {"method": "qlora"}
    other = with_settings(manifest, quantised) if manifest.method != "qlora" else None
    if other is None:
        return ways
    if fits(other):
        return [*ways, quantised]
    longer = longest_sequence(other, fits) or 0
    return [*ways, quantised | {"training.max_seq_length": longer}] if longer > longest else ways


def _ways_to_shorten(manifest: Manifest, holds: Condition) -> list[Settings]:
    """Fewer steps, or fewer epochs in tenths: whichever the manifest counts in."""
    training = manifest.training
    values: Sequence[float]
    if training.max_steps is not None:
        name, values = "training.max_steps", range(1, training.max_steps)
    else:
        name, values = "training.epochs", [tenths / 10 for tenths in range(1, math.ceil((training.epochs or 0) * 10))]
    most = _largest(manifest, name, values, holds)
    return [] if most is None else [{name: most}]


def _largest(manifest: Manifest, name: str, values: Sequence[_Number], holds: Condition) -> _Number | None:
    """The last of the ascending values with which the condition holds."""

    def fails(value: _Number) -> bool:
        other = with_settings(manifest, {name: value})
        return other is None or not holds(other)

    number = bisect_left(values, True, key=fails)
    return values[number - 1] if number else None


def _if_it_holds(manifest: Manifest, settings: Settings, holds: Condition) -> list[Settings]:
    other = with_settings(manifest, settings)
    return [settings] if other is not None and holds(other) else []


def _smaller_models(model: str) -> list[str]:
    """Ids of the catalogue's smaller models, the largest of them first; of those that chat, if the model does."""
    size = {row.id: row.architecture.parameters() for row in CATALOGUE.values()}
    chats = CATALOGUE[model].chat is not None
    smaller = (row.id for row in CATALOGUE.values() if size[row.id] < size[model] and (row.chat or not chats))
    return sorted(smaller, key=size.__getitem__, reverse=True)


def _sentence(ways: Sequence[Settings]) -> str:
    """Set `a: 1`, or `b: 2` with `c: 3`."""
    texts = [" with ".join(f"`{name}: {_value(value)}`" for name, value in way.items()) for way in ways]
    return f"Set {', or '.join(texts)}."


def _value(value: str | float | list[str]) -> str:
    if isinstance(value, list):
        return f"[{', '.join(value)}]"
    return value if isinstance(value, str) else f"{value:.10g}"
