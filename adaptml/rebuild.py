"""Firestore's documents anew, from the audit trail and the versions in the artifacts bucket.

What is only in Firestore is lost: loss curves, progress since the last change of state, limits of tenants, quota of
pools, records of dead letters. Nothing that is stored is overwritten.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby
from typing import Any

from pydantic import ValidationError

from adaptml.gate import judged
from adaptml.objects import ObjectGone, ObjectStore, PinnedObject
from adaptml.protocol import Change, is_committed, succeed
from adaptml.publishing import CHECKSUMS
from adaptml.quota import month_of
from adaptml.runs.outbox import audit_event
from adaptml.runs.versions import VersionClaim
from adaptml.services import Services
from schemas import layout
from schemas.adapter import AdapterState
from schemas.run import Artifacts, AuditEntry, Event, Metrics, Pins, Run
from schemas.run_states import RunState

READERS = 8
_WAY = (RunState.QUEUED, RunState.STARTING, RunState.TRAINING, RunState.EVALUATING)

Adapter = tuple[str, str]
"""(tenant, name)"""


@dataclass(frozen=True)
class History:
    """What the audit trail says of one run."""

    run: Run
    events: tuple[Event, ...]
    spent_usd: Mapping[str, float] = field(default_factory=dict)
    """Month → what attempts that began in it cost."""


@dataclass(frozen=True)
class Plan:
    """What there is to write."""

    runs: list[History]
    versions: dict[Adapter, dict[int, VersionClaim | None]]
    pins: dict[tuple[str, str], Pins]
    """(tenant, folder) → what its last drop pinned."""
    existing: set[str]
    """Ids of runs that are stored; nothing of them is written."""
    unreadable: list[str]
    aliases: list[AdapterState] = field(default_factory=list)
    """Objects of the audit trail that say nothing."""

    @property
    def spent_usd(self) -> dict[str, dict[str, float]]:
        """Tenant → month → what all its runs cost, stored or not."""
        spent: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for one in self.runs:
            for month, amount in one.spent_usd.items():
                spent[one.run.tenant][month] += amount
        return spent

    @property
    def missing(self) -> list[History]:
        """Runs that are not stored."""
        return [history for history in self.runs if history.run.run_id not in self.existing]


def history(entries: Sequence[AuditEntry]) -> History | None:
    """A run as it was at its last change of state; None where no entry has it. Pure."""
    ordered = sorted(entries, key=lambda entry: entry.event.revision)
    known = [entry.run for entry in ordered if entry.run is not None]
    if not known:
        return None
    run = known[-1]
    events = tuple(entry.event for entry in ordered if entry.event.revision <= run.revision)
    announced = run.model_copy(update={"outbox_pending": False, "announced_revision": run.revision})
    return History(announced, events, _spent(ordered))


def _spent(entries: Sequence[AuditEntry]) -> dict[str, float]:
    """An attempt is paid for in the month in which it took its GPU."""
    months: dict[str, float] = defaultdict(float)
    month, booked = None, 0.0
    for entry in entries:
        if entry.run is not None and entry.run.cost_usd > booked:
            months[month or month_of(entry.event.at)] += entry.run.cost_usd - booked
            booked = entry.run.cost_usd
        if entry.event.to_state is RunState.STARTING and entry.event.from_state is RunState.QUEUED:
            month = month_of(entry.event.at)
    return {name: round(spent, 6) for name, spent in months.items()}


def with_version(found: History, artifacts: Artifacts, metrics: Metrics, published_at: datetime | None) -> History:
    """The run once it has the version that the bucket has of it: at its place, or to be put there by whoever finishes.

    Pure. The changes that the audit trail has no objects of are added to it, and announced after the run is stored.
    """
    run, events = found.run, [*found.events]

    def apply(change: Change | None) -> None:
        nonlocal run
        if change is None:
            return
        after = change.applied_to(run, published_at or run.updated_at)
        if change.to is not None:
            events.append(audit_event(run, after))
        run = after

    for state in _WAY[_WAY.index(run.state) + 1 :]:
        apply(Change(state, "found by its version"))
    version = judged(artifacts, run.manifest, metrics)
    apply(Change(fields={"artifacts": version, "metrics": metrics}))
    if published_at is not None and artifacts.uri is not None:
        apply(succeed(run, artifacts.uri))
    spent = dict(found.spent_usd)
    if run.cost_usd > found.run.cost_usd:
        began = next((e.at for e in reversed(events) if e.from_state is RunState.QUEUED), run.updated_at)
        month = month_of(began)
        spent[month] = round(spent.get(month, 0.0) + run.cost_usd - found.run.cost_usd, 6)
    return History(run, tuple(events), spent)


def pins_of(runs: Sequence[Run]) -> dict[tuple[str, str], Pins]:
    """Which data the last drop of each folder had. Pure."""
    pins: dict[tuple[str, str], Pins] = {}
    for run in sorted(runs, key=lambda run: run.created_at):
        if run.manifest is None or run.source.publisher == "resume":
            continue
        asked = {*run.manifest.dataset.train, *run.manifest.dataset.validation}
        generations = {file.name: file.generation for file in run.dataset.files}
        if asked <= generations.keys() and run.state is not RunState.AWAITING_DATA:
            pins[run.tenant, run.folder or run.name] = Pins(run_id=run.run_id, generations=generations)
    return pins


def plan(services: Services) -> Plan:
    """Reads the bucket and says what there is to write; writes nothing."""
    found, unreadable = _read_audit(services)
    dispatched: dict[str, int] = defaultdict(int)
    for execution in services.jobs.listed():
        dispatched[execution.run_id] = max(dispatched[execution.run_id], execution.epoch)
    histories = [_with_epoch(one, dispatched[one.run.run_id]) for one in found]
    folders = _Folders.scan(services.objects, services.settings.artifacts_bucket)
    versions = _claims(folders, histories)
    aliases = [state for name in folders.aliases if (state := _aliases(folders, name)) is not None]
    unreadable += [name for name in folders.aliases if name not in {_file_of(state) for state in aliases}]
    completed = [_completed(folders, versions, one) for one in histories]
    return Plan(
        runs=completed,
        versions={adapter: numbered for adapter, numbered in versions.items() if numbered},
        pins=pins_of([one.run for one in completed]),
        existing=services.runs.existing([one.run.run_id for one in completed]),
        unreadable=unreadable,
        aliases=aliases,
    )


def write(services: Services, found: Plan) -> Iterator[tuple[Run, bool]]:
    """Writes what is missing, and yields each run with whether it was. Cut off, it can be called again.

    Versions come first: a run that is new meanwhile must not number one that there is. Money comes before the runs
    that go on to spend more. Of runs the newest come first: what an old one left in the bucket is swept as soon as no
    run that is stored goes on from it, and a run that does is always younger.
    """
    for (tenant, name), versions in found.versions.items():
        services.runs.versions.restore(tenant, name, versions)
    for state in found.aliases:
        services.runs.adapters.restore(state)
    for (tenant, folder), pins in found.pins.items():
        services.runs.pins.restore(tenant, folder, pins)
    for tenant, spent in found.spent_usd.items():
        services.runs.ledger.restore_spent(tenant, spent)
    for one in sorted(found.missing, key=lambda one: one.run.created_at, reverse=True):
        yield one.run, services.runs.restore(one.run, list(one.events))


def _with_epoch(found: History, dispatched: int) -> History:
    """Cloud Run may know of a dispatch that the audit trail does not: its number must not be given again."""
    if found.run.state.is_final or dispatched <= found.run.epoch:
        return found
    return replace(found, run=found.run.model_copy(update={"epoch": dispatched}))


def _read_audit(services: Services) -> tuple[list[History], list[str]]:
    objects, bucket = services.objects, services.settings.artifacts_bucket
    found: list[History] = []
    unreadable: list[str] = []

    def read(item: PinnedObject) -> AuditEntry | str:
        try:
            return AuditEntry.model_validate_json(objects.read(bucket, item.name))
        except (ValidationError, ObjectGone):
            return item.name

    with ThreadPoolExecutor(READERS) as readers:
        for _, items in groupby(objects.list(bucket, layout.AUDIT), key=lambda item: item.name.rpartition("/")[0]):
            entries = list(readers.map(read, items))
            unreadable += [entry for entry in entries if isinstance(entry, str)]
            one = history([entry for entry in entries if isinstance(entry, AuditEntry)])
            if one is not None:
                found.append(one)
    return found, unreadable


Files = dict[str, PinnedObject]


@dataclass(frozen=True)
class _Folders:
    """What lies in the artifacts bucket."""

    objects: ObjectStore
    bucket: str
    versions: dict[Adapter, dict[int, Files]]
    staged: dict[tuple[str, int, int], Files]
    """(run id, epoch, task attempt) → what one execution uploaded."""
    aliases: list[str]
    """Names of the files that say what an adapter's aliases point at."""

    @classmethod
    def scan(cls, objects: ObjectStore, bucket: str) -> _Folders:
        """Looks at the whole bucket."""
        versions: dict[Adapter, dict[int, Files]] = defaultdict(lambda: defaultdict(dict))
        staged: dict[tuple[str, int, int], Files] = defaultdict(dict)
        aliases: list[str] = []
        for item in objects.list(bucket):
            if (version := layout.parse_version(item.name)) is not None:
                tenant, name, number, file = version
                versions[tenant, name][number][file] = item
            elif (upload := layout.parse_staged(item.name)) is not None:
                run_id, epoch, task_attempt, file = upload
                staged[run_id, epoch, task_attempt][file] = item
            elif layout.parse_aliases(item.name) is not None:
                aliases.append(item.name)
        return cls(objects, bucket, versions, staged, aliases)

    def checksums(self, files: Files) -> dict[str, str] | None:
        """Name → SHA-256 of all files, where the folder is whole."""
        if CHECKSUMS not in files:
            return None
        text = self.objects.read(self.bucket, files[CHECKSUMS].name)
        lines = [line.split("  ", 1) for line in text.decode("utf-8", "replace").splitlines()]
        sums = {line[1]: line[0] for line in lines if len(line) == 2}
        whole = bool(sums) and sums.keys() <= files.keys()
        return sums | {CHECKSUMS: hashlib.sha256(text).hexdigest()} if whole else None

    def provenance(self, files: Files) -> dict[str, Any]:
        """What `run.json` says; nothing where there is none."""
        if "run.json" not in files:
            return {}
        try:
            document = json.loads(self.objects.read(self.bucket, files["run.json"].name))
        except (ObjectGone, ValueError):
            return {}
        return document if isinstance(document, dict) else {}


def _aliases(folders: _Folders, name: str) -> AdapterState | None:
    """What the file says, if it is of the adapter in whose folder it lies."""
    try:
        state = AdapterState.model_validate_json(folders.objects.read(folders.bucket, name))
    except (ObjectGone, ValidationError):
        return None
    return state if _file_of(state) == name else None


def _file_of(state: AdapterState) -> str:
    return layout.aliases_object(state.adapter.tenant, state.adapter.name)


def _claims(folders: _Folders, histories: Sequence[History]) -> dict[Adapter, dict[int, VersionClaim | None]]:
    """Every version that was ever numbered, as far as a run or a folder knows of it."""
    claims: dict[Adapter, dict[int, VersionClaim | None]] = defaultdict(dict)
    for one in histories:
        run = one.run
        if run.artifacts is not None:
            claims[run.tenant, run.name][run.artifacts.version] = _claim_of(run, run.finished_at or run.updated_at)
    for adapter, versions in folders.versions.items():
        for number, files in versions.items():
            if number not in claims[adapter]:
                at = min(item.created_at for item in files.values())
                claims[adapter][number] = _claim(folders.provenance(files), at)
    return claims


def _claim(provenance: Mapping[str, Any], at: datetime) -> VersionClaim | None:
    run_id, reason = provenance.get("run_id"), str(provenance.get("promotable_reason", ""))
    return VersionClaim(run_id, at, not reason, reason) if isinstance(run_id, str) else None


def _completed(folders: _Folders, claims: dict[Adapter, dict[int, VersionClaim | None]], found: History) -> History:
    """A run that has its version in the bucket, whole or uploaded whole, goes on from there: naming a version is no
    change of state, so the audit trail may not know of it."""
    run, adapter = found.run, (found.run.tenant, found.run.name)
    if run.state not in _WAY or is_committed(run):
        return found
    for number, claim in claims[adapter].items():
        files = folders.versions[adapter].get(number, {})
        if claim is not None and claim.run_id == run.run_id and (sums := folders.checksums(files)) is not None:
            target = layout.version_prefix(run.tenant, run.name, number)
            artifacts = _artifacts(folders, files, sums, number, run, layout.uri(folders.bucket, target))
            completed = with_version(found, artifacts, _metrics(folders, files), files[CHECKSUMS].created_at)
            claims[adapter][number] = _claim_of(completed.run, claim.claimed_at)
            return completed
    files = folders.staged.get((run.run_id, run.epoch, _task_attempt(run)), {})
    if (sums := folders.checksums(files)) is None:
        return found
    number = (
        _begun(run.run_id, folders.versions[adapter], claims[adapter], files) or max(claims[adapter], default=0) + 1
    )
    artifacts = _artifacts(folders, files, sums, number, run, None)
    completed = with_version(found, artifacts, _metrics(folders, files), None)
    claims[adapter][number] = _claim_of(completed.run, files[CHECKSUMS].created_at)
    return completed


def _claim_of(run: Run, at: datetime) -> VersionClaim | None:
    return VersionClaim.of(run.run_id, at, run.artifacts) if run.artifacts is not None else None


def _begun(
    run_id: str, versions: dict[int, Files], claims: Mapping[int, VersionClaim | None], staged: Files
) -> int | None:
    """The version to which somebody had begun to copy what is staged."""
    content = {file: item.crc32c for file, item in staged.items()}
    for number, files in versions.items():
        claim = claims.get(number)
        is_copy = all(content.get(file) == item.crc32c for file, item in files.items())
        if CHECKSUMS not in files and is_copy and (claim is None or claim.run_id == run_id):
            return number
    return None


def _artifacts(
    folders: _Folders, files: Files, sums: dict[str, str], number: int, run: Run, uri: str | None
) -> Artifacts:
    size = sum(files[name].size for name in sums)
    staged = layout.staging_prefix(run.tenant, run.name, run.run_id, run.epoch, _task_attempt(run))
    return Artifacts(version=number, staged=staged, uri=uri, size_bytes=size, sha256=sums)


def _task_attempt(run: Run) -> int:
    return run.owner.task_attempt if run.owner is not None else 0


def _metrics(folders: _Folders, files: Files) -> Metrics:
    try:
        return Metrics.model_validate(folders.provenance(files).get("metrics") or {})
    except ValidationError:
        return Metrics()
