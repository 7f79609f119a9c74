"""Runs, events and versions as the API shows them. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from adaptml.aliases import Numbered
from adaptml.comparison import lineage
from schemas import layout
from schemas.adapter import Adapter
from schemas.api import (
    STATUS,
    AdapterDocument,
    BaseModelDocument,
    CheckpointMetrics,
    Hyperparameters,
    Job,
    JobCheckpoint,
    JobError,
    JobEvent,
    Method,
    RunDocument,
    Supervised,
    VersionDocument,
)
from schemas.catalogue import BaseModelRow
from schemas.manifest import Manifest, Training
from schemas.run import Event, Run
from schemas.run_states import RunState

_BAD = {RunState.FAILED, RunState.REJECTED, RunState.EXPIRED}


def run(of: Run) -> RunDocument:
    """The run without its internals."""
    return RunDocument.model_validate(of.model_dump(by_alias=True) | {"id": of.run_id})


def job(of: Run) -> Job:
    """The run as OpenAI shows a job."""
    settings = _hyperparameters(of.manifest)
    train, validation = _files(of, "train"), _files(of, "validation")
    detail = of.error.details[0] if of.error and of.error.details else None
    ended_badly = of.error is not None and of.state in _BAD
    return Job(
        id=of.run_id,
        created_at=_unix(of.created_at),
        finished_at=_unix(of.finished_at) if of.finished_at else None,
        estimated_finish=_estimated_finish(of),
        error=JobError(code=of.error.code, message=of.error.message, param=detail.field if detail else None)
        if of.error is not None and ended_badly
        else None,
        fine_tuned_model=_version_id(of.name, of.artifacts.version) if of.artifacts and of.artifacts.uri else None,
        hyperparameters=settings,
        method=Method(supervised=Supervised(hyperparameters=settings)),
        model=of.manifest.base_model if of.manifest else "",
        organization_id=of.tenant,
        result_files=[],
        status=STATUS[of.state],
        trained_tokens=of.estimate.tokens if of.estimate and of.state is RunState.SUCCEEDED else None,
        training_file=train[0] if train else "",
        validation_file=validation[0] if validation else None,
        seed=of.manifest.training.seed if of.manifest else Training().seed,
        integrations=[],
        metadata=dict(of.manifest.labels) if of.manifest else {},
        state=of.state,
        state_reason=of.state_reason,
        name=of.name,
        progress=of.progress,
        estimate=of.estimate,
        cost_usd=of.cost_usd,
    )


def _hyperparameters(manifest: Manifest | None) -> Hyperparameters:
    training = manifest.training if manifest else Training()
    usual: float = Training.model_fields["learning_rate"].default
    return Hyperparameters(
        n_epochs=training.epochs if training.epochs is not None else "auto",
        batch_size=training.batch_size,
        learning_rate_multiplier=round(training.learning_rate / usual, 9),
    )


def _files(of: Run, role: str) -> list[str]:
    """As a client may name them: by id where they came by the API, else by URI."""
    names = getattr(of.manifest.dataset, role) if of.manifest else []
    return [_file(of, of.source.data_prefix(of.tenant) + name) for name in names]


def _file(of: Run, name: str) -> str:
    parsed = layout.parse_file(name)
    return parsed[1] if parsed is not None else layout.uri(of.source.bucket, name)


def _estimated_finish(of: Run) -> int | None:
    if of.state is not RunState.TRAINING or of.progress.eta_s is None:
        return None
    return _unix((of.heartbeat_at or of.updated_at) + timedelta(seconds=of.progress.eta_s))


def event(of: Event) -> JobEvent:
    """A change of state as OpenAI shows an event."""
    return JobEvent(
        id=of.event_id,
        created_at=_unix(of.at),
        level="error" if of.to_state in _BAD else "info",
        message=f"{of.to_state}: {of.reason}",
        data={"from": of.from_state, "to": of.to_state, "attempt": of.attempt},
    )


def checkpoints(of: Run) -> list[JobCheckpoint]:
    """The last one, if there is one."""
    saved = of.checkpoint
    if saved is None:
        return []
    seen = of.progress if of.progress.step == saved.step else None
    return [
        JobCheckpoint(
            id=f"{of.run_id}-s{saved.step}",
            created_at=_unix(saved.saved_at),
            fine_tuned_model_checkpoint=saved.object,
            fine_tuning_job_id=of.run_id,
            metrics=CheckpointMetrics(
                step=saved.step,
                train_loss=seen.loss if seen else None,
                valid_loss=None,
            ),
            step_number=saved.step,
        )
    ]


def adapter(of: Adapter) -> AdapterDocument:
    """In a list of adapters."""
    return AdapterDocument(id=of.name, name=of.name, last_version=of.last_version, aliases=of.aliases)


def version(name: str, one: Numbered) -> VersionDocument:
    """A version with what it was made of."""
    artifacts = one.run.artifacts if one.run is not None else None
    return VersionDocument.model_validate(
        lineage(one).model_dump()
        | {
            "id": _version_id(name, one.version.version),
            "is_readable": one.is_readable,
            "uri": artifacts.uri if artifacts else None,
            "size_bytes": artifacts.size_bytes if artifacts else None,
            "sha256": artifacts.sha256 if artifacts else {},
        }
    )


def base_model(of: BaseModelRow) -> BaseModelDocument:
    """A row of the catalogue."""
    return BaseModelDocument(
        id=of.id,
        owned_by=of.id.partition("/")[0],
        licence=of.licence,
        gated=of.gated,
        context=of.context,
        parameters=of.architecture.parameters(),
        chat=of.chat,
    )


def _version_id(name: str, number: int) -> str:
    return f"{name}:v{number}"


def _unix(at: datetime) -> int:
    return int(at.timestamp())
