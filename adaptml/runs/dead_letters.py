"""Where messages that no function took are noted: on the run that they name, or in `dead_letters/` beside the runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from google.api_core.exceptions import AlreadyExists, NotFound
from google.cloud import firestore
from google.cloud.firestore_v1.base_query import FieldFilter
from pydantic import ValidationError

from adaptml.protocol import Change
from adaptml.runs.changes import Changes
from adaptml.runs.documents import Documents, UnknownRun
from schemas.run import DeadLetter, Run, to_document

log = logging.getLogger(__name__)

DEAD_LETTERS_KEPT = 20
"""On a run, the newest; the messages themselves stay in the bucket."""


class DeadLetterStore:
    """The notes; the messages are in the artifacts bucket (`adaptml/dead_letters.py`)."""

    def __init__(self, documents: Documents, changes: Changes) -> None:
        self._documents = documents
        self._changes = changes
        self._beside = documents.client.collection("dead_letters")

    def note(self, run_id: str | None, letter: DeadLetter) -> None:
        """Notes a message that no function took on the run that it names; beside the runs where there is none, or where
        its document cannot be read. Noted twice, it stands there once."""
        try:
            if run_id is None:
                raise UnknownRun
            self._changes.apply(run_id, lambda run: with_dead_letter(run, letter))
        except (UnknownRun, ValidationError):
            document = to_document(letter.model_copy(update={"run_id": run_id}).model_dump())
            with suppress(AlreadyExists):
                self._reference(letter).create(document)

    def all(self) -> Iterator[DeadLetter]:
        """All that is noted, each with its run's id. What somebody edited so that it cannot be read is logged."""
        for snapshot in self._documents.runs.where(filter=FieldFilter("dead_letters", ">", [])).stream():
            for letter in snapshot.to_dict()["dead_letters"]:
                yield from _readable(letter, f"runs/{snapshot.id}", run_id=snapshot.id)
        for snapshot in self._beside.stream():
            yield from _readable(snapshot.to_dict(), f"dead_letters/{snapshot.id}")

    def mark_replayed(self, letter: DeadLetter) -> None:
        """Notes that a message was published again."""
        noted = {"replayed_at": self._documents.now()}
        try:
            self._reference(letter).update(noted)
        except NotFound:
            if letter.run_id is None:
                return

            def decide(run: Run) -> Change:
                letters = [one.model_copy(update=noted) if one.is_same(letter) else one for one in run.dead_letters]
                return Change(fields={"dead_letters": letters})

            self._changes.apply(letter.run_id, decide)

    def _reference(self, letter: DeadLetter) -> firestore.DocumentReference:
        return self._beside.document(f"{letter.topic}~{letter.message_id}")


def _readable(document: Any, where: str, **fields: str) -> Iterator[DeadLetter]:
    try:
        yield DeadLetter.model_validate(document).model_copy(update=fields)
    except ValidationError:
        log.error("a dead letter in %s cannot be read", where)


def with_dead_letter(run: Run, letter: DeadLetter) -> Change | None:
    """The run with the note, which it has once; of many it keeps the newest. Pure."""
    if any(noted.is_same(letter) for noted in run.dead_letters):
        return None
    return Change(fields={"dead_letters": [*run.dead_letters, letter][-DEAD_LETTERS_KEPT:]})
