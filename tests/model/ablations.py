"""The guards of the protocol, each taken away to see what it is for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Any
from unittest.mock import patch

from adaptml import protocol
from adaptml.protocol import Change
from schemas import layout
from schemas import run as run_document
from schemas.run import Checkpoint, Owner, Run

_own, _staging_prefix = protocol.own, layout.staging_prefix


def _own_under_any_epoch(run: Run, epoch: int, owner: Owner, now: datetime) -> Change:
    return _own(run.model_copy(update={"epoch": epoch}), epoch, owner, now)


def _own_over_another(run: Run, epoch: int, owner: Owner, now: datetime) -> Change:
    return _own(run.model_copy(update={"owner": None}), epoch, owner, now)


def _own_whatever_runs(run: Run, epoch: int, owner: Owner, now: datetime) -> Change:
    return _own(run.model_copy(update={"owner": None, "epoch": epoch}), epoch, owner, now)


def _owner_not_checked(run: Run, owner: Owner) -> None:
    pass


def _retried_as_an_attempt(run: Run, cause: str, limit: int) -> Change:
    return protocol.retry_or_fail(run, cause)


def _handed_over_as_a_death(run: Run, owner: Owner, cause: str, checkpoint: Checkpoint | None) -> Change:
    protocol.check_owner(run, owner)
    return protocol.retry_or_fail(run, cause)


def _one_folder_for_all_tasks(tenant: str, name: str, run: str, epoch: int, task_attempt: int) -> str:
    return _staging_prefix(tenant, name, run, epoch, 0)


INSTEAD: dict[str, list[tuple[Any, str, Any]]] = {
    "fence": [(protocol, "own", _own_whatever_runs), (protocol, "check_owner", _owner_not_checked)],
    "epoch in own": [(protocol, "own", _own_under_any_epoch)],
    "owner in own": [(protocol, "own", _own_over_another)],
    "check of the owner": [(protocol, "check_owner", _owner_not_checked)],
    "second counter": [(protocol, "redispatch_or_fail", _retried_as_an_attempt)],
    "third counter": [(protocol, "hand_over", _handed_over_as_a_death)],
    "folder of a task": [(layout, "staging_prefix", _one_folder_for_all_tasks)],
}
"""Guards that stand in the product's code, and what stands there without them."""

LEFT_OUT = {
    "reconciler": "nobody ticks",
    "outbox": "the reconciler does not look for what is unannounced",
    "finish": "intake leaves when it finds the run",
    "claim": "the dispatcher starts the job first and notes that afterwards",
    "condition": "a commit takes place whatever was written since the reading",
}
"""Guards that are steps of the model, and what happens there without them."""


@contextmanager
def removed(guards: frozenset[str]) -> Iterator[None]:
    """Takes guards away."""
    unknown = guards - INSTEAD.keys() - LEFT_OUT.keys()
    assert not unknown, f"there is no guard {unknown}"
    with ExitStack() as stack:
        for guard in sorted(guards & INSTEAD.keys()):
            for module, name, instead in INSTEAD[guard]:
                stack.enter_context(patch.object(module, name, instead))
        if guards:  # what they keep from being written is read all the same: else reading would stand in for them
            stack.enter_context(patch.object(run_document, "impossible", lambda _: None))
        yield
