"""Intake: from a manifest in the drops bucket to a checked run that waits for a GPU.

Every step can be taken again: `advance` looks at the state that is stored and goes on from there, so a second
delivery of an event, a late data file and the reconciler all do the same thing.
"""

from __future__ import annotations

from datetime import timedelta

from google.api_core.exceptions import NotFound

from adaptml import lifecycle
from adaptml.dataset.check import Report, check_file, finish
from adaptml.objects import ObjectGone
from adaptml.planning.estimate import estimate, objections
from adaptml.protocol import Change, cancel, to_error
from adaptml.runs import Decide, utc_now
from adaptml.services import Services
from schemas import layout
from schemas.errors import Problem, Refused, Severity, problem
from schemas.layout import DropPath, ObjectRole
from schemas.manifest import Manifest, is_drop_name, parse_inline, parse_manifest
from schemas.run import DataFile, DatasetSummary, Run, Source
from schemas.run_states import RunState
from schemas.yaml_strict import MAX_BYTES

_STEPS_AT_MOST = 10


def take_in(services: Services, dropped: DropPath, generation: int) -> None:
    """An object landed in the drops bucket."""
    match dropped.role:
        case ObjectRole.MANIFEST:
            advance(services, begin(services, run_of_drop(dropped, generation)))
        case ObjectRole.DATA:
            for run in services.runs.awaiting_data(dropped.tenant, dropped.folder):
                advance(services, run)
        case ObjectRole.IGNORED:
            return


def run_of_drop(dropped: DropPath, generation: int) -> Run:
    """The run that one generation of a manifest asks for; always the same for the same generation."""
    name = f"{dropped.prefix}{dropped.file}"
    now = utc_now()
    return Run(
        run_id=layout.run_id(dropped.tenant, dropped.folder, dropped.bucket, name, str(generation)),
        state=RunState.RECEIVED,
        state_reason="manifest arrived",
        tenant=dropped.tenant,
        name=dropped.folder,
        source=Source(bucket=dropped.bucket, manifest_object=name, manifest_generation=generation),
        created_at=now,
        updated_at=now,
        state_since=now,
    )


def begin(services: Services, run: Run) -> Run:
    """Creates the run, or finds the one that the same cause created before and finishes what it left unannounced."""
    if lifecycle.create(services, run):
        return run
    present = services.runs.get(run.run_id)
    if present.outbox_pending:
        lifecycle.announce(services, present)
    return present


def advance(services: Services, run: Run) -> None:
    """Takes the run as far as it can go without a GPU."""
    for _ in range(_STEPS_AT_MOST):
        change: Change | None
        match run.state:
            case RunState.RECEIVED:
                change = _read_manifest(services, run)
            case RunState.AWAITING_DATA:
                change = _look_for_data(services, run)
            case RunState.VALIDATING:
                change = _validate(services, run)
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


def _read_manifest(services: Services, run: Run) -> Change | None:
    try:
        manifest = _parse(services, run)
    except Refused as refused:
        return _rejected(refused.problems)
    return _with_data(services, run.model_copy(update={"manifest": manifest}), manifest)


def _parse(services: Services, run: Run) -> Manifest:
    if not is_drop_name(run.tenant):
        raise Refused([problem("bad_drop_name", what="the tenant", name=run.tenant)])
    source = run.source
    if source.manifest_object is None:
        train = [layout.parse_uri(uri)[1].removeprefix(source.data_prefix(run.tenant)) for uri in source.dataset_uris]
        return parse_inline(source.inline_manifest or "", file="request", folder=run.name, train=train)
    file = source.manifest_object.rsplit("/", 1)[-1]
    try:
        data = services.objects.read(
            source.bucket, source.manifest_object, source.manifest_generation, limit=MAX_BYTES + 1
        )
    except ObjectGone as gone:
        raise Refused([problem("manifest_gone", file=file)]) from gone
    return parse_manifest(data, file=file, folder=run.name)


def _look_for_data(services: Services, run: Run) -> Change | None:
    if run.manifest is None:
        raise ValueError(f"{run.run_id} waits for data without a manifest")
    return _with_data(services, run, run.manifest)


def _with_data(services: Services, run: Run, manifest: Manifest) -> Change | None:
    """Pins what is there. A file once pinned stays pinned, whatever is uploaded over it. None: still waiting."""
    now = utc_now()
    known = {(file.role, file.name): file for file in run.dataset.files}
    prefix = run.source.data_prefix(run.tenant)
    missing = []
    for role, names in (("train", manifest.dataset.train), ("validation", manifest.dataset.validation)):
        for name in names:
            if (role, name) in known:
                continue
            pinned = services.objects.pin(run.source.bucket, prefix + name)
            if pinned is None:
                missing.append(name)
                continue
            known[role, name] = DataFile(
                name=name,
                object=pinned.name,
                generation=pinned.generation,
                size=pinned.size,
                crc32c=pinned.crc32c,
                role=role,
            )
    summary = DatasetSummary(files=list(known.values()), missing=missing, format=manifest.dataset.format)
    fields = {"manifest": manifest, "dataset": summary}
    if not missing:
        return Change(RunState.VALIDATING, f"all {len(known)} data files are there", fields)
    if run.state is RunState.RECEIVED:
        wait = timedelta(seconds=services.settings.data_deadline_s)
        reason = f"waiting for {len(missing)} of {len(missing) + len(known)} data files"
        return Change(RunState.AWAITING_DATA, reason, fields | {"data_deadline": run.created_at + wait})
    if run.data_deadline is not None and now >= run.data_deadline:
        waited = f"{services.settings.data_deadline_s} s"
        late = problem("data_missing", waited=waited, files=", ".join(missing[:10]))
        return Change(RunState.EXPIRED, late.message, fields | {"error": to_error([late])})
    return Change(fields=fields) if len(known) > len(run.dataset.files) else None


def _validate(services: Services, run: Run) -> Change:
    manifest = run.manifest
    if manifest is None:
        raise ValueError(f"{run.run_id} is to be validated without a manifest")
    report = Report()
    for file in run.dataset.files:
        try:
            with services.objects.open(run.source.bucket, file.object, file.generation) as stream:
                check_file(report, stream, name=file.name, role=file.role, dataset=manifest.dataset)
        except NotFound:
            report.add(problem("data_gone", file=file.name, generation=file.generation))
    finish(report, manifest.dataset)
    summary = run.dataset.model_copy(
        update={
            "train_examples": report.examples["train"],
            "validation_examples": report.examples["validation"],
            "tokens": report.tokens,
            "format": report.shape or manifest.dataset.format,
            "warnings": report.of(Severity.WARNING),
        }
    )
    if report.errors:
        return _rejected(report.of(Severity.ERROR), dict(report.counts), dataset=summary)
    planned = estimate(manifest, report.tokens, report.examples["train"])
    if refusals := objections(manifest, planned):
        return _rejected(refusals, dataset=summary, estimate=planned)
    reason = f"{report.examples['train']} examples accepted"
    return Change(RunState.QUEUED, reason, {"dataset": summary, "estimate": planned})


def _rejected(problems: list[Problem], counts: dict[str, int] | None = None, **fields: object) -> Change:
    error = to_error(problems)
    if counts:
        error = error.model_copy(update={"counts": counts})
    return Change(RunState.REJECTED, error.message, fields | {"error": error})
