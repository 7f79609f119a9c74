"""Intake: from a manifest in the drops bucket to a checked run that waits for a GPU.

Every step can be taken again: `advance` looks at the state that is stored and goes on from there, so a second
delivery of an event, a late data file and the reconciler all do the same thing.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from adaptml import lifecycle, tracing
from adaptml.leftovers import resumable_until
from adaptml.objects import ObjectGone
from adaptml.protocol import Change, cancel, rejected, to_error
from adaptml.report import manifest_report
from adaptml.runs.changes import Decide
from adaptml.services import Services
from schemas import layout
from schemas.errors import Problem, Refused, problem
from schemas.layout import DropPath
from schemas.manifest import Manifest, is_drop_name
from schemas.manifest_reading import parse_inline, parse_manifest
from schemas.run import DataFile, DatasetSummary, Pins, Run, Source
from schemas.run_states import RunState
from schemas.yaml_strict import MAX_BYTES

RESUMABLE = frozenset({RunState.CANCELLED, RunState.FAILED})
_STEPS_AT_MOST = 10
COPIED_BYTES_PER_S = 5_000_000
"""A slow upload."""


@tracing.step("take in drop")
def take_manifest(services: Services, dropped: DropPath, generation: int, written_at: datetime) -> None:
    """A manifest landed in the drops bucket."""
    advance(services, begin(services, run_of_drop(dropped, generation, written_at, services.now())))


def take_data(services: Services, dropped: DropPath) -> None:
    """Some other file landed beside a drop."""
    for run in services.runs.queries.awaiting_data(dropped.tenant, dropped.folder):
        with tracing.of_run(run, "take in data"):
            advance(services, run)


def run_of_drop(dropped: DropPath, generation: int, written_at: datetime, now: datetime) -> Run:
    """The run that one generation of a manifest asks for; always the same for the same generation."""
    name = f"{dropped.prefix}{dropped.file}"
    return Run(
        run_id=layout.run_id(dropped.tenant, dropped.folder, dropped.bucket, name, str(generation)),
        state=RunState.RECEIVED,
        state_reason="manifest arrived",
        tenant=dropped.tenant,
        name=dropped.folder,
        folder=dropped.folder,
        source=Source(bucket=dropped.bucket, manifest_object=name, manifest_generation=generation, asked_at=written_at),
        created_at=now,
        updated_at=now,
        state_since=now,
    )


def begin(services: Services, run: Run) -> Run:
    """Creates the run, or finds the one that the same cause created before and finishes what it left unannounced."""
    run = tracing.begun(run)
    if lifecycle.create(services, run):
        return run
    present = services.runs.get(run.run_id)
    tracing.link(present)
    if present.outbox_pending:
        lifecycle.announce(services, present)
    return present


def advance(services: Services, run: Run) -> None:
    """Takes the run as far as it can go without a GPU."""
    for _ in range(_STEPS_AT_MOST):
        change: Change | None
        match run.state:
            case RunState.RECEIVED:
                change = _take_up(services, run) if run.source.publisher == "resume" else _read_manifest(services, run)
            case RunState.AWAITING_DATA:
                change = _look_for_data(services, run)
            case RunState.VALIDATING:
                from functions.validation import validate  # numpy and the rest take half a second: who checks pays

                change = validate(services, run)
            case _:
                return
        if change is None:
            return
        after = lifecycle.change(services, run.run_id, _unless_moved(run.state, change))
        # Data that landed between the look and the note that we wait for it has had its event already: look again.
        run = after or services.runs.get(run.run_id)


def _unless_moved(seen: RunState, change: Change) -> Decide:
    def decide(run: Run) -> Change | None:
        if run.state is not seen:
            return None
        return cancel(run) if run.cancel_requested else change

    return decide


def reject(services: Services, run: Run, problems: list[Problem]) -> None:
    """Ends a run that has only just been received."""
    refused = rejected(problems)
    lifecycle.change(services, run.run_id, lambda r: refused if r.state is RunState.RECEIVED else None)


@tracing.on_run("take up")
def _take_up(services: Services, run: Run) -> Change:
    """The manifest, the pinned data and the last checkpoint of the run that this one resumes."""
    last = services.runs.find(run.source.resumes) if run.source.resumes else None
    if last is None or last.manifest is None or not_resumable(last):
        return rejected([problem("nothing_to_resume", why=not_resumable(last))])
    until = resumable_until(last, services.settings)
    if until is not None and until <= services.now():
        return rejected([problem("checkpoint_gone", run_id=last.run_id)])
    files = DatasetSummary(files=last.dataset.files, format=last.dataset.format)
    fields = {"manifest": last.manifest, "dataset": files, "checkpoint": last.checkpoint}
    return Change(RunState.VALIDATING, f"goes on where {last.run_id} ended", fields)


def not_resumable(last: Run | None) -> str:
    """Why a run cannot be taken up again; empty when it can."""
    if last is None:
        return "the folder has had no run"
    if last.state not in RESUMABLE:
        return f"run {last.run_id} is {last.state}"
    if last.manifest is None or not last.dataset.files:
        return f"run {last.run_id} ended before its data was there"
    return ""


def _is_called_off(services: Services, run: Run) -> bool:
    """True where a file CANCEL was written after the manifest, whichever event came first."""
    called_off = services.objects.pin(run.source.bucket, _beside(run, layout.CANCEL))
    asked_at = run.source.asked_at
    return called_off is not None and asked_at is not None and called_off.created_at > asked_at


def _beside(run: Run, file: str) -> str:
    return layout.drop_prefix(run.tenant, run.folder or run.name) + file


@tracing.on_run("read manifest")
def _read_manifest(services: Services, run: Run) -> Change | None:
    if _is_called_off(services, run):
        return cancel(run)
    if not is_drop_name(run.tenant):
        return rejected([problem("bad_drop_name", what="the tenant", name=run.tenant)])
    try:
        manifest, generation = manifest_of(services, run)
    except Refused as refused:
        lifecycle.write_report(services, run, manifest_report(refused.problems))
        lifecycle.put_beside_drop(services, run, layout.PREVIEW, "", "application/jsonl")  # of data not looked at
        return rejected(refused.problems)
    change = _with_data(services, run.model_copy(update={"manifest": manifest}), manifest)
    source = run.source.model_copy(update={"defaults_generation": generation})
    return change and replace(change, fields=change.fields | {"name": manifest.name, "source": source})


def manifest_of(services: Services, run: Run) -> tuple[Manifest, int | None]:
    """What the run's cause says, completed from the tenant's defaults, and their generation. Raises Refused."""
    defaults, generation = _read_defaults(services, run)
    return _parse(services, run, defaults), generation


def _read_defaults(services: Services, run: Run) -> tuple[bytes | None, int | None]:
    """The tenant's `_defaults.yaml` as it is now, and its generation; (None, None) where there is none."""
    bucket, name = run.source.bucket, layout.defaults_object(run.tenant)
    while (pinned := services.objects.pin(bucket, name)) is not None:
        try:
            return services.objects.read(bucket, name, pinned.generation, limit=MAX_BYTES + 1), pinned.generation
        except ObjectGone:
            continue  # replaced between the look and the reading
    return None, None


def _parse(services: Services, run: Run, defaults: bytes | None) -> Manifest:
    source, folder = run.source, run.folder or run.name
    if source.manifest_object is None:
        train = [layout.parse_uri(uri)[1].removeprefix(source.data_prefix(run.tenant)) for uri in source.dataset_uris]
        text = source.inline_manifest or ""
        return parse_inline(text, file="request", folder=folder, train=train, defaults=defaults)
    file = source.manifest_object.rsplit("/", 1)[-1]
    try:
        data = services.objects.read(
            source.bucket, source.manifest_object, source.manifest_generation, limit=MAX_BYTES + 1
        )
    except ObjectGone as gone:
        raise Refused([problem("manifest_gone", file=file)]) from gone
    return parse_manifest(data, file=file, folder=folder, defaults=defaults)


def _look_for_data(services: Services, run: Run) -> Change | None:
    if run.manifest is None:
        raise ValueError(f"{run.run_id} waits for data without a manifest")
    return _with_data(services, run, run.manifest)


@tracing.on_run("pin data")
def _with_data(services: Services, run: Run, manifest: Manifest) -> Change | None:
    """Pins what is there. A file once pinned stays pinned, whatever is uploaded over it. None: still waiting."""
    now = services.now()
    known = {(file.role, file.name): file for file in run.dataset.files}
    present, missing = _look(services, run, manifest)
    stale = _unchanged(services, run, present)
    if now >= _settled_at(services, run, stale):
        stale = []
    known |= {(file.role, file.name): file for file in present if file not in stale}
    summary = DatasetSummary(files=list(known.values()), missing=missing, format=manifest.dataset.format)
    fields = {"manifest": manifest, "dataset": summary}
    if not missing and not stale:
        generations = {file.name: file.generation for file in known.values()}
        services.runs.pins.note(run.tenant, run.folder or run.name, Pins(run_id=run.run_id, generations=generations))
        return Change(RunState.VALIDATING, f"all {len(known)} data files are there", fields)
    if run.state is RunState.RECEIVED:
        wait = timedelta(seconds=services.settings.data_deadline_s)
        reason = f"waiting for {len(missing)} of {len(missing) + len(stale) + len(known)} data files"
        if not missing:
            until = _settled_at(services, run, stale)
            reason = f"the last drop had the same data; waiting for a newer copy until {until:%H:%M:%S} UTC"
        return Change(RunState.AWAITING_DATA, reason, fields | {"data_deadline": run.created_at + wait})
    if missing and run.data_deadline is not None and now >= run.data_deadline:
        waited = f"{services.settings.data_deadline_s} s"
        late = problem("data_missing", waited=waited, files=", ".join(missing[:10]))
        return Change(RunState.EXPIRED, late.message, fields | {"error": to_error([late])})
    return Change(fields=fields) if len(known) > len(run.dataset.files) else None


def _look(services: Services, run: Run, manifest: Manifest) -> tuple[list[DataFile], list[str]]:
    """(the files that are there and not pinned yet, the names of those that are not there)."""
    known = {(file.role, file.name) for file in run.dataset.files}
    prefix = run.source.data_prefix(run.tenant)
    present, missing = [], []
    for role, names in (("train", manifest.dataset.train), ("validation", manifest.dataset.validation)):
        for name in names:
            if (role, name) in known:
                continue
            pinned = services.objects.pin(run.source.bucket, prefix + name)
            if pinned is None:
                missing.append(name)
                continue
            file = DataFile(
                name=name,
                object=pinned.name,
                generation=pinned.generation,
                size=pinned.size,
                crc32c=pinned.crc32c,
                role=role,
            )
            present.append(file)
    return present, missing


def _unchanged(services: Services, run: Run, present: list[DataFile]) -> list[DataFile]:
    """Files as the folder's last drop had them. Whoever copies a folder again copies the manifest first, by its name:
    what is there then may be what is about to be replaced."""
    last = services.runs.pins.last(run.tenant, run.folder or run.name) if run.source.publisher == "drop" else None
    if last is None or last.run_id == run.run_id:
        return []
    return [file for file in present if last.generations.get(file.name) == file.generation]


def _settled_at(services: Services, run: Run, stale: list[DataFile]) -> datetime:
    """When newer copies of files would be there."""
    copying_s = sum(file.size for file in stale) / COPIED_BYTES_PER_S
    return run.created_at + timedelta(seconds=services.settings.settle_s + copying_s)
