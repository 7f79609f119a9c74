"""What the REST API answers: OpenAI's objects where OpenAI has such a thing, with what AdaptML knows besides as further
fields, and its own documents where it has not. `schemas/openapi.json` is made from these models."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import ConfigDict, Field

from schemas.adapter import Move
from schemas.errors import Problem
from schemas.manifest import Manifest
from schemas.run import Artifacts, Checkpoint, DatasetSummary, Estimate, Metrics, Part, Progress, RunError
from schemas.run_states import RunState

T = TypeVar("T")


class Said(Part):
    """Something in an answer."""

    model_config = ConfigDict(use_attribute_docstrings=True, populate_by_name=True, from_attributes=True)


class Error(Said):
    """What went wrong, as OpenAI says it, with what to do about it."""

    message: str
    type: str
    """invalid_request_error, authentication_error, permission_error, not_found_error, conflict_error or api_error."""
    param: str | None
    """What of the request it is about."""
    code: str
    """Stable: docs/errors.md."""
    hint: str
    """What to do."""
    details: list[Problem]
    """Everything that was found, this one among it."""


class Failure(Said):
    """The body of every answer that is no success."""

    error: Error


class Listed(Said, Generic[T]):
    """One page, newest first. The next one: the same request with `after` = `last_id`."""

    object: Literal["list"] = "list"
    data: list[T]
    has_more: bool = False
    first_id: str | None = None
    last_id: str | None = None


class File(Said):
    """An uploaded file. A manifest, or a job's `training_file`, names it by its id."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: Literal["fine-tune"] = "fine-tune"
    status: Literal["uploaded"] = "uploaded"
    uri: str
    """Where it lies."""


class Deleted(Said):
    """A file is gone. Runs that have pinned it still read it."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class UploadAsked(Said):
    """A file too large to be sent to the API."""

    filename: str = Field(min_length=1, max_length=200)
    purpose: Literal["fine-tune"] = "fine-tune"


class Upload(Said):
    """How to send it to Cloud Storage. The file has its id already; it is there once the upload has ended."""

    id: str
    object: Literal["file.upload"] = "file.upload"
    filename: str
    method: Literal["PUT"] = "PUT"
    url: str
    headers: dict[str, str]
    """To be sent with it."""
    expires_at: int


Status = Literal["validating_files", "queued", "running", "succeeded", "failed", "cancelled"]

STATUS: dict[RunState, Status] = {
    RunState.RECEIVED: "validating_files",
    RunState.AWAITING_DATA: "validating_files",
    RunState.VALIDATING: "validating_files",
    RunState.VALIDATED: "succeeded",
    RunState.QUEUED: "queued",
    RunState.STARTING: "queued",
    RunState.TRAINING: "running",
    RunState.EVALUATING: "running",
    RunState.SUCCEEDED: "succeeded",
    RunState.FAILED: "failed",
    RunState.REJECTED: "failed",
    RunState.EXPIRED: "failed",
    RunState.CANCELLED: "cancelled",
}
"""A run's state in OpenAI's words."""


class JobAsked(Said):
    """What OpenAI's clients send. Any other setting of a manifest may stand beside these; what they may be is said in
    docs/manifest.md, and what is wrong with them by the manifest's reader."""

    model_config = ConfigDict(extra="allow")

    model: str
    """A base model of the catalogue."""
    training_file: str
    """Id of a file, gs:// URI in the tenant's folder, or name below it."""
    validation_file: str | None = None
    suffix: str | None = None
    """The adapter's name; its versions are numbered."""
    seed: int | None = None
    method: dict[str, Any] | None = None
    """`{"type": "supervised", "supervised": {"hyperparameters": {…}}}`"""
    hyperparameters: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None


class JobError(Said):
    """Why a job failed."""

    code: str
    message: str
    param: str | None


class Hyperparameters(Said):
    """As OpenAI names them. All of what holds is in the run's manifest."""

    n_epochs: float | Literal["auto"]
    batch_size: int | Literal["auto"]
    learning_rate_multiplier: float | Literal["auto"]


class Supervised(Said):
    """Of the one method there is."""

    hyperparameters: Hyperparameters


class Method(Said):
    """How it learns."""

    type: Literal["supervised"] = "supervised"
    supervised: Supervised


class Job(Said):
    """A run, as OpenAI shows a fine-tuning job."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None
    estimated_finish: int | None
    error: JobError | None
    fine_tuned_model: str | None
    """`{adapter}:v{version}`"""
    hyperparameters: Hyperparameters
    method: Method
    model: str
    organization_id: str
    """The tenant."""
    result_files: list[str]
    status: Status
    trained_tokens: int | None
    training_file: str
    validation_file: str | None
    seed: int
    integrations: list[str]
    metadata: dict[str, str]
    state: RunState
    state_reason: str
    name: str
    """Of the adapter."""
    progress: Progress
    estimate: Estimate | None
    cost_usd: float


class JobEvent(Said):
    """A change of a run's state."""

    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message"] = "message"
    data: dict[str, Any]
    """`from`, `to` and `attempt`."""


class CheckpointMetrics(Said):
    """What is known of a step."""

    step: int
    train_loss: float | None
    valid_loss: float | None


class JobCheckpoint(Said):
    """Where a training can be taken up again: the last one is kept, until the run has its version."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    metrics: CheckpointMetrics
    step_number: int


class RunDocument(Said):
    """A run: what a person reads in the Firestore console, without the internals."""

    id: str
    object: Literal["run"] = "run"
    state: RunState
    state_reason: str
    tenant: str
    name: str
    folder: str
    manifest: Manifest | None
    dataset: DatasetSummary
    estimate: Estimate | None
    attempt: int
    cancel_requested: bool
    progress: Progress
    checkpoint: Checkpoint | None
    metrics: Metrics
    artifacts: Artifacts | None
    cost_usd: float
    error: RunError | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None


class Point(Said):
    """A step of the loss curve, with what was measured at it besides."""

    model_config = ConfigDict(extra="allow")

    step: int
    loss: float | None = None
    learning_rate: float | None = None


class AdapterDocument(Said):
    """An adapter of the tenant."""

    id: str
    object: Literal["adapter"] = "adapter"
    name: str
    last_version: int
    aliases: dict[str, int]
    """`latest` is among them where one adapter is asked for."""


class VersionDocument(Said):
    """A version: what it was made of, what it reached, and whether it can be read and promoted."""

    id: str
    """`{adapter}:v{version}`"""
    object: Literal["adapter.version"] = "adapter.version"
    version: int
    run_id: str
    base_model: str | None
    is_readable: bool
    promotable: bool
    promotable_reason: str
    uri: str | None
    size_bytes: int | None
    sha256: dict[str, str]
    train_examples: int
    validation_examples: int
    tokens: int
    metrics: Metrics
    cost_usd: float


class AdapterHistory(AdapterDocument):
    """The same with all its versions, oldest first, and every move of an alias."""

    versions: list[VersionDocument]
    moves: list[Move]


class SignedFile(Said):
    """A file of a version, to be read by whoever has the URL, until it expires."""

    name: str
    sha256: str
    url: str


class SignedFiles(Said):
    """All files of a version."""

    object: Literal["list"] = "list"
    data: list[SignedFile]
    expires_at: int


class Promotion(Said):
    """Which version an alias is to point at."""

    version: int | None = Field(default=None, ge=1, le=999_999_999)
    """None: the newest that may be promoted."""


class BaseModelDocument(Said):
    """A base model of the catalogue."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str
    licence: str
    gated: bool
    context: int
    parameters: int
    chat: str | None
    """The family of its chat template; null: plain texts only."""
