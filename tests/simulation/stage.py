"""What the product takes from its surroundings, replaced for the time of a simulation.

Decisions stay as they are. Replaced are the clocks and dice of Google's retries and of the trainer, its signals and
threads, and what only costs time: reading a manifest and checking data whose bytes were seen before, validating a
version of a run that was read before, and the line breaks of JSON for people.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar
from unittest import mock

import msgspec
from google.api_core.retry import retry_base, retry_unary
from pydantic import BaseModel

from adaptml import leftovers, lifecycle, report
from adaptml.dataset.check import DataSource
from adaptml.runs import documents
from adaptml.verdict import Verdict, check_drop
from functions import intake, validation
from schemas.errors import Refused
from schemas.manifest import Manifest
from schemas.manifest_reading import parse_inline, parse_manifest
from schemas.run import DatasetSummary, Estimate, Run, Source
from tests.simulation.firestore import Stored
from tests.simulation.world import World
from trainer import attempt


class Stage:
    """Which world is played, for what cannot be handed one."""

    world: World
    unexpected: Callable[[str, BaseException], None]


class _Time:
    @staticmethod
    def monotonic() -> float:
        return Stage.world.monotonic()

    @staticmethod
    def sleep(seconds: float) -> None:
        Stage.world.sleep(seconds)


class _Random:
    @staticmethod
    def uniform(low: float, high: float) -> float:
        return Stage.world.random.uniform(low, high)


class _Signal:
    SIGTERM = 15

    @staticmethod
    def signal(_number: int, handler: Callable[..., None]) -> None:
        if Stage.world.current is not None:
            Stage.world.current.on_sigterm = handler


class _Listener(logging.Handler):
    """Hears of exceptions that the product catches and logs."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            Stage.unexpected(record.getMessage(), record.exc_info[1])
        if Stage.world.lines is not None:
            who = Stage.world.current.name if Stage.world.current else ""
            Stage.world.note(who, "logs:", record.getMessage())


@contextmanager
def installed() -> Iterator[None]:
    """Replaces them."""
    with contextlib.ExitStack() as stack:
        for module in (retry_base, retry_unary):
            stack.enter_context(mock.patch.object(module, "time", _Time))
        stack.enter_context(mock.patch.object(retry_base, "random", _Random))
        stack.enter_context(mock.patch.object(attempt, "time", _Time))
        stack.enter_context(mock.patch.object(attempt, "signal", _Signal))
        stack.enter_context(mock.patch.object(attempt, "describe", _describe))
        stack.enter_context(mock.patch.object(attempt, "meanwhile", lambda work, _alive: work()))
        stack.enter_context(mock.patch.object(intake, "parse_manifest", _parse_manifest))
        stack.enter_context(mock.patch.object(intake, "parse_inline", _parse_inline))
        stack.enter_context(mock.patch.object(validation, "check_drop", _check_drop))
        stack.enter_context(mock.patch.object(validation, "_tokenizers", _no_tokenizers))
        stack.enter_context(mock.patch.object(documents, "Run", _ReadOnce))
        stack.enter_context(mock.patch.object(leftovers, "CLOCKS_DIFFER", timedelta(seconds=6)))
        for module in (lifecycle, report):
            stack.enter_context(mock.patch.object(module, "json", _Json))
        stack.enter_context(_logs())
        yield


@contextmanager
def _logs() -> Iterator[None]:
    listener = _Listener()
    loggers = [logging.getLogger(name) for name in ("adaptml", "functions", "trainer")]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(listener)
        logger.propagate = False
        logger.setLevel(logging.INFO if Stage.world.lines is not None else logging.ERROR)
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(listener)
            logger.setLevel(level)
            logger.propagate = propagate


_real_describe = attempt.describe


def _describe(error: BaseException) -> str:
    """The trainer tells nobody an error's text; whether it is one of the simulated ones is looked at here."""
    Stage.unexpected("an attempt ended", error)
    return _real_describe(error)


_PARTS: dict[str, type[BaseModel]] = {
    "manifest": Manifest,
    "dataset": DatasetSummary,
    "source": Source,
    "estimate": Estimate,
}
"""Parts of a run that most changes leave alone."""


class _ReadOnce:
    """In the place of `Run` in adaptml/runs/documents.py: what was validated once is not validated again."""

    _parts: ClassVar[dict[int, tuple[Any, BaseModel]]] = {}

    @classmethod
    def model_validate(cls, document: Any) -> Run:
        if not isinstance(document, Stored):
            return Run.model_validate(document)
        if document.parsed is None:
            parts = {name: cls._part(document[name], model) for name, model in _PARTS.items() if document[name]}
            document.parsed = Run.model_validate(document | parts)
        parsed: Run = document.parsed
        return parsed

    @classmethod
    def _part(cls, stored: Any, model: type[BaseModel]) -> BaseModel:
        known = cls._parts.get(id(stored))
        if known is None:
            if len(cls._parts) > 10_000:
                cls._parts.clear()
            known = cls._parts[id(stored)] = (
                stored,
                model.model_validate(stored),
            )  # held, so that its id stays its own
        return known[1]


FOLDER = "simulated-folder"


def _remembered(parse: Callable[..., Manifest]) -> Callable[..., Manifest]:
    """A text means the same in each folder but for the default name."""

    @functools.lru_cache(maxsize=1000)
    def outcome(text: bytes | str, given: tuple[tuple[str, Any], ...]) -> Manifest | Refused:
        try:
            return parse(text, folder=FOLDER, **{name: list(v) if isinstance(v, tuple) else v for name, v in given})
        except Refused as refused:
            return refused

    def remembered(text: bytes | str, *, folder: str, **given: Any) -> Manifest:
        found = outcome(text, tuple((n, tuple(v) if isinstance(v, list) else v) for n, v in sorted(given.items())))
        if isinstance(found, Refused):
            raise Refused(found.problems)
        return found.model_copy(update={"name": folder}) if found.name == FOLDER else found

    return remembered


def _checked(check: Callable[..., Verdict]) -> Callable[..., Verdict]:
    """The same bytes under the same manifest have the same verdict, whatever the adapter is called."""
    known: dict[tuple[Any, ...], Verdict] = {}

    def checked(manifest: Manifest, sources: Sequence[DataSource], tokenizer: Any, **_: Any) -> Verdict:
        bodies = []
        for source in sources:
            with source.open() as stream:
                bodies.append(stream.read())
        key = (manifest.model_dump_json(exclude={"name"}), *(source.role for source in sources), *bodies)
        if key not in known:
            again = [_of_bytes(source, body) for source, body in zip(sources, bodies, strict=True)]
            known[key] = check(manifest, again, tokenizer)
        return replace(known[key], manifest=manifest)

    return checked


def _of_bytes(source: DataSource, body: bytes) -> DataSource:
    return DataSource(source.name, source.role, source.size, lambda: contextlib.nullcontext(io.BytesIO(body)))


_parse_manifest, _parse_inline = _remembered(parse_manifest), _remembered(parse_inline)
_check_drop = _checked(check_drop)


def _no_tokenizers(*_: object) -> Callable[..., None]:
    return lambda _: None


class _Json:
    """Without the line breaks, which take ten times as long."""

    @staticmethod
    def dumps(value: Any, **_: Any) -> str:
        return msgspec.json.encode(value).decode()
