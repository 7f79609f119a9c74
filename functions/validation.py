"""A drop whose data is all there: checked, and told about beside it.

Apart from intake, since only this needs the libraries that read, tokenise and measure datasets.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

from google.api_core.exceptions import NotFound

from adaptml import lifecycle, tracing
from adaptml.dataset.check import DataSource
from adaptml.dataset.source import Readable
from adaptml.objects import ObjectStore
from adaptml.protocol import Change, rejected
from adaptml.report import validation_report
from adaptml.services import Services
from adaptml.tokens.bucket import in_bucket
from adaptml.tokens.preview import to_lines
from adaptml.tokens.store import Find
from adaptml.verdict import check_drop
from schemas import layout
from schemas.catalogue import CATALOGUE
from schemas.errors import Problem, Refused, Severity, problem
from schemas.run import DataFile, Run
from schemas.run_states import RunState


@tracing.on_run("validate")
def validate(services: Services, run: Run) -> Change:
    """What the pinned data leads to: QUEUED, VALIDATED or REJECTED. Raises Refused where it is gone."""
    manifest = run.manifest
    if manifest is None:
        raise ValueError(f"{run.run_id} is to be validated without a manifest")
    tokenizer = _tokenizers(services.objects, services.settings.models_bucket)(CATALOGUE[manifest.base_model])
    sources = [_source(services, run, file) for file in run.dataset.files]
    verdict = check_drop(manifest, sources, tokenizer, step=tracing.span)
    report = verdict.report
    generation = lifecycle.write_report(services, run, validation_report(verdict))
    lifecycle.put_beside_drop(services, run, layout.PREVIEW, to_lines(verdict.preview), "application/jsonl")
    summary = run.dataset.model_copy(
        update={
            "train_examples": report.examples["train"],
            "validation_examples": report.examples["validation"],
            "invalid_rows": report.invalid_rows,
            "tokens": verdict.plan.tokens_per_epoch if verdict.plan else 0,
            "lengths": verdict.measured.figures if verdict.measured else None,
            "format": report.shape or manifest.dataset.format,
            "warnings": report.of(Severity.WARNING),
            "report_generation": generation,
        }
    )
    if not verdict.is_accepted:
        return rejected(verdict.errors, verdict.error_counts, dataset=summary, estimate=verdict.plan)
    if not manifest.dry_run and (full := _is_queue_full(services, run.tenant)) is not None:
        return rejected([full], dataset=summary, estimate=verdict.plan)
    reason = f"{report.examples['train']} examples accepted"
    if report.invalid_rows:
        reason += f", {report.invalid_rows} rows set aside"
    to = RunState.VALIDATED if manifest.dry_run else RunState.QUEUED
    return Change(to, reason, {"dataset": summary, "estimate": verdict.plan})


def _is_queue_full(services: Services, tenant: str) -> Problem | None:
    """Counted, not locked: runs that are accepted at the same moment may exceed the limit by their number."""
    limit = services.runs.ledger.account(tenant).limits.max_queued
    if limit is None:
        return None
    waiting = services.runs.queries.count_queued(tenant, up_to=limit + 1)
    return problem("queue_full", waiting=waiting, tenant=tenant, limit=limit) if waiting >= limit else None


@functools.cache
def _tokenizers(objects: ObjectStore, bucket: str | None) -> Find:
    return in_bucket(objects, bucket)


def _source(services: Services, run: Run, file: DataFile) -> DataSource:
    @contextmanager
    def opened() -> Iterator[Readable]:
        try:
            with services.objects.open(run.source.bucket, file.object, file.generation) as stream:
                yield stream
        except NotFound as gone:
            raise Refused([problem("data_gone", file=file.name, generation=file.generation)]) from gone

    return DataSource(file.name, file.role, file.size, opened)
