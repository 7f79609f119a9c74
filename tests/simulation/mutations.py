"""The product without one of its guards: each must be found (`python -m tests.simulation --mutations`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from unittest import mock

from adaptml import leftovers, lifecycle, protocol, publishing, quota
from adaptml.jobs import Execution
from adaptml.objects import ObjectStore
from adaptml.protocol import Change
from adaptml.quota import Ledger
from adaptml.runs.documents import Documents
from adaptml.runs.queries import RunQueries
from adaptml.settings import Settings
from functions import commands, dispatcher, intake, reconciler, run_requests
from schemas import layout
from schemas.run import Run
from tests.simulation import cloud_run, storage

Patch = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Mutation:
    """A guard that is taken away."""

    what: str
    patch: Patch


def _without(where: Any, name: str, instead: Any) -> Patch:
    return lambda: mock.patch.object(where, name, instead)


def _all(*patches: Patch) -> Patch:
    @contextmanager
    def applied() -> Iterator[None]:
        with ExitStack() as stack:
            for patch in patches:
                stack.enter_context(patch())
            yield

    return applied


_real_own, _real_claim, _real_give_back, _real_retry = (
    protocol.own,
    protocol.claim,
    quota.give_back,
    protocol.retry_or_fail,
)
_real_staging_prefix, _real_run_id, _real_of_owned = layout.staging_prefix, layout.run_id, reconciler._of_owned
_real_start, _real_put = dispatcher.start, storage.Storage.put


def _own_whatever_the_epoch(run: Run, epoch: int, owner: Any, now: datetime) -> Change:
    return _real_own(run, run.epoch, owner, now)


def _claim_under_the_same_epoch(run: Run) -> Change | None:
    change = _real_claim(run)
    if change is None or "epoch" not in change.fields:
        return change
    return replace(change, fields=change.fields | {"epoch": max(1, run.epoch)})


def _claim_though_cancelled(run: Run) -> Change | None:
    return _real_claim(run.model_copy(update={"cancel_requested": False}))


def _keep_slot(ledger: Ledger, _run_id: str, _used_usd: float) -> Ledger:
    return ledger


def _keep_reserved(ledger: Ledger, run_id: str, used_usd: float) -> Ledger:
    return Ledger(_real_give_back(ledger, run_id, used_usd).pool, ledger.account)


def _spend_nothing(ledger: Ledger, run_id: str, _used_usd: float) -> Ledger:
    return _real_give_back(ledger, run_id, 0.0)


def _run_id_without_generation(tenant: str, label: str, *identity: str) -> str:
    return _real_run_id(tenant, label, *(identity[:-1] if len(identity) == 3 else identity))


def _one_staging_folder(tenant: str, name: str, run: str, _epoch: int, _task_attempt: int) -> str:
    return _real_staging_prefix(tenant, name, run, 1, 0)


def _dead_when_silent(run: Run, execution: Execution | None, now: datetime, settings: Settings) -> Any:
    silent = now - (run.heartbeat_at or run.state_since)
    if silent > timedelta(seconds=settings.hung_after_s) and not protocol.is_committed(run):
        return reconciler.Apply(protocol.retry_or_fail(run, "no heartbeat"))
    return _real_of_owned(run, execution, now, settings)


def _uncounted_deaths(run: Run, cause: str, died_at: datetime | None = None) -> Change:
    return _real_retry(run.model_copy(update={"deaths": -1}), cause, died_at)


def _start_twice(services: Any, run: Run) -> None:
    services.jobs.start(run.run_id, run.epoch, 3600)
    _real_start(services, run)


def _put_whatever_is_there(self: Any, bucket: str, name: str, body: bytes, metadata: Any, _if: int | None) -> Any:
    return _real_put(self, bucket, name, body, metadata, None)


def _needed_by_those_that_ended(holders: Sequence[Run], _asked_for: Any, now: datetime, settings: Settings) -> datetime:
    return _real_needed_until([run for run in holders if run.finished_at is not None], (), now, settings)


def _nothing(*_: object, **__: object) -> None:
    return None


_real_needed_until = leftovers._needed_until
_NO_OUTBOX_AT_TICKS = _without(RunQueries, "with_pending_outbox", lambda _: iter(()))
_NO_OUTBOX_AT_DUPLICATES = [
    _without(module, "begin", lambda services, run: (lifecycle.create(services, run), services.runs.get(run.run_id))[1])
    for module in (intake, commands, run_requests)
]

MUTATIONS: dict[str, Mutation] = {
    "no fence": Mutation("a trainer writes without asking whether it still owns the run", _without(
        protocol, "check_owner", _nothing)),
    "no epoch": Mutation("an execution takes the run whatever dispatch it comes from", _without(
        protocol, "own", _own_whatever_the_epoch)),
    "no outbox": Mutation("what was not announced is not made up for", _all(
        _NO_OUTBOX_AT_TICKS, *_NO_OUTBOX_AT_DUPLICATES)),
    "no precondition": Mutation("documents are written whoever wrote them meanwhile", _without(
        Documents, "unwritten_since", lambda *_: None)),
    "slot kept": Mutation("a GPU is not given back", _without(quota, "give_back", _keep_slot)),
    "money kept": Mutation("what was reserved is not settled", _without(quota, "give_back", _keep_reserved)),
    "money lost": Mutation("what was used is not booked", _without(quota, "give_back", _spend_nothing)),
    "no generation": Mutation("a run's id does not follow from the manifest's generation", _without(
        layout, "run_id", _run_id_without_generation)),
    "epoch kept": Mutation("a claim does not raise the epoch", _without(
        protocol, "claim", _claim_under_the_same_epoch)),
    "cancel unseen": Mutation("a cancelled run is started", _without(protocol, "claim", _claim_though_cancelled)),
    "checksums first": Mutation("SHA256SUMS is copied before what it names", _without(publishing, "CHECKSUMS", "")),
    "lease alone": Mutation("an attempt without a heartbeat is taken for dead", _without(
        reconciler, "_of_owned", _dead_when_silent)),
    "no sweep": Mutation("nobody looks for lost events", _without(reconciler, "sweep_drops", _nothing)),
    "no sweep of leftovers": Mutation("what dead attempts left stays for ever", _without(
        reconciler, "sweep_leftovers", _nothing)),
    "swept at once": Mutation("checkpoints go though their run may be resumed", _without(
        leftovers, "_needed_until", lambda _holders, _asked_for, now, _settings: now)),
    "swept while in use": Mutation("checkpoints go though an open run goes on from them", _without(
        leftovers, "_needed_until", _needed_by_those_that_ended)),
    "resumed too late": Mutation("a RESUME is promised a checkpoint that may be gone", _without(
        intake, "resumable_until", _nothing)),
    "commit again": Mutation("a run that has its version gets another", _without(
        protocol, "is_committed", lambda _: False)),
    "one staging folder": Mutation("all executions of a run upload to one place", _without(
        layout, "staging_prefix", _one_staging_folder)),
    "no quota": Mutation("there is always a free GPU", _without(quota, "free_slots", lambda *_: 1)),
    "no budget": Mutation("money is not looked at", _without(quota, "_of_budget", _nothing)),
    "deaths uncounted": Mutation("attempts that died do not count", _without(
        protocol, "retry_or_fail", _uncounted_deaths)),
    "never stopped": Mutation("an execution that hangs is left alone", _without(
        cloud_run.CloudRun, "cancel", _nothing)),
    "older news": Mutation("what is written beside a drop is written over by older news", _without(
        lifecycle, "_order", lambda _: "1")),
    "started twice": Mutation("the job is started twice for one claim", _without(dispatcher, "start", _start_twice)),
    "objects overwritten": Mutation("objects are written over", _without(
        storage.Storage, "put", _put_whatever_is_there)),
    "copied anew": Mutation("a version's objects are copied although they are there", _all(
        _without(storage.Storage, "put", _put_whatever_is_there), _without(
            ObjectStore, "copy_new", lambda self, bucket, source, target: self._client.bucket(bucket).blob(
                target).rewrite(self._client.bucket(bucket).blob(source))))),
}  # fmt: skip
