"""The run document: what a person reads in the Firestore console, and what every part works from."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas import layout
from schemas.errors import Problem
from schemas.manifest import Manifest
from schemas.run_states import RunState

_Count = Annotated[int, Field(ge=0, le=1_000_000)]
_Segment = Annotated[str, Field(min_length=1, pattern="^[^/]*$")]
"""Of an object's name."""


class Part(BaseModel):
    """A part of the run document. Unknown fields are kept out, values are checked when read back."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


class Source(Part):
    """What asked for the run."""

    bucket: str
    manifest_object: str | None = None
    manifest_generation: int | None = None
    defaults_generation: int | None = None
    """Of the tenant's `_defaults.yaml` that the manifest was completed from; None when there was none."""
    request_id: str | None = None
    inline_manifest: str | None = None
    dataset_uris: list[str] = []
    publisher: str = "drop"
    asked_at: datetime | None = None
    """When the manifest was written, or the request or command arrived."""
    resumes: str | None = None
    """The run that this one takes up again: it has that run's manifest, data and last checkpoint."""

    def data_prefix(self, tenant: str) -> str:
        """The folder that names of data files are relative to: the manifest's, or the tenant's."""
        if self.manifest_object is None:
            return f"{tenant}/"
        return self.manifest_object.rpartition("/")[0] + "/"


class DataFile(Part):
    """One data file, pinned: this generation is what is checked and trained on, whatever is uploaded later."""

    name: str
    """As the manifest names it."""
    object: str
    generation: int
    size: int
    """Bytes."""
    crc32c: str
    """Base64 of the big-endian checksum, as Cloud Storage gives it."""
    role: str
    """train or validation."""


class Pins(Part):
    """`drops/{tenant}~{folder}`: which data the last drop of a folder had."""

    run_id: str
    generations: dict[str, int]
    """Name of the file in the manifest → generation."""


class LongRow(Part):
    """A row and its length."""

    file: str
    line: int
    tokens: int


class TokenFigures(Part):
    """Lengths of the training examples in the base model's own tokens, before `overlong` is applied."""

    examples: int
    """How many were counted."""
    of: int
    """How many there are; where it is more, the figures are of a sample."""
    mean: float
    percentiles: dict[str, int]
    """"p50", "p90", "p95", "p99", "max" → tokens."""
    histogram: dict[str, int]
    """Upper bound of a length, as text → examples up to it and above the last bound."""
    longest: list[LongRow]
    overlong: int
    """Of those counted, examples with more tokens than training.max_seq_length."""


class DatasetSummary(Part):
    """What validation found out about the data."""

    files: list[DataFile] = []
    missing: list[str] = []
    train_examples: int = 0
    validation_examples: int = 0
    invalid_rows: int = 0
    """Rows that were set aside, as `on_invalid_row: quarantine` asks."""
    tokens: int = 0
    """Tokens of one epoch; an estimate until the trainer has counted them."""
    lengths: TokenFigures | None = None
    """None where the base model's tokenizer was not at hand."""
    format: str = "auto"
    warnings: list[Problem] = []
    report_generation: int | None = None
    """Of the validation-report.json beside the drop that belongs to this run."""


class Estimate(Part):
    """What the run will need, said before it is asked for: expected values, and (low, high) around each.

    Only the first three have been there from the start; a document without the others is read, too.
    """

    gpu_memory_gb: float
    """Peak, in GB of 10⁹ bytes."""
    duration_s: float
    """Of all executions, on the accelerator."""
    cost_usd: float
    """Of all executions, at list price."""
    gpu_memory_gb_range: tuple[float, float] | None = None
    duration_s_range: tuple[float, float] | None = None
    cost_usd_range: tuple[float, float] | None = None
    accelerator: str = ""
    steps: int = 0
    """Optimizer steps."""
    executions: int = 1
    """How many it takes, each within the timeout; 0 where none has time for a step."""
    tokens: int = 0
    """Of all epochs."""
    tokens_per_epoch: int = 0
    examples: int = 0
    """Training examples, those that will be held out included."""
    fits: bool = True
    """True when the expected memory is not more than the accelerator has."""
    basis: str = ""
    """How the tokens are known: counted, sampled, or estimated from characters."""
    export_s: dict[str, float] = {}
    """Form that is delivered besides the adapter → seconds for it, expected; they are in `duration_s`."""
    scratch_gb: float = 0.0
    """Of the instance's memory, for the exports' files and the process, in GB of 10⁹ bytes; 0 without exports."""


class Progress(Part):
    """How far training is."""

    step: int = 0
    total_steps: int = 0
    epoch: float = 0.0
    loss: float | None = None
    learning_rate: float | None = None
    tokens_per_s: float | None = None
    gpu_memory_gb: float | None = None
    micro_batch_tokens: int | None = None
    """Of a packed row, at most: what goes through the model at once. Halved where memory does not suffice."""
    gradient_checkpointing: bool | None = None
    """Whether blocks are computed twice for want of memory."""
    eta_s: float | None = None


class Metrics(Part):
    """What training reached. Before: the base model; after: with just the adapter that is saved, both on all of the
    held-out data. None where nothing was held out."""

    train_loss: float | None = None
    """Of the last step."""
    eval_loss_before: float | None = None
    eval_loss_after: float | None = None
    """Mean over the trained tokens, in nats."""
    eval_perplexity_before: float | None = None
    eval_perplexity_after: float | None = None
    """e to the loss: among how many words, all equally likely, the model would be as unsure."""
    eval_token_accuracy_before: float | None = None
    eval_token_accuracy_after: float | None = None
    """Share of the trained tokens than which the model holds no other for more likely, given all before them."""
    eval_exact_match_before: float | None = None
    eval_exact_match_after: float | None = None
    """Share of the short last answers that the model, asked, gives token for token. None where no answer is short."""
    eval_examples: int = 0
    """That were held out."""
    eval_tokens: int = 0
    """Of them, those that the loss counts."""
    eval_exact_match_examples: int = 0
    """Whose last answer is short."""
    saved_step: int | None = None
    """Whose adapter was saved: the last, or with early stopping the best."""


class Checkpoint(Part):
    """Where training can be taken up again."""

    step: int
    """Optimizer steps that are in it."""
    object: str
    """In the artifacts bucket."""
    saved_at: datetime


class Artifacts(Part):
    """Where the adapter is. `staged` is set by the commit; `uri` once the version can be read whole."""

    version: int
    staged: str
    uri: str | None = None
    size_bytes: int
    sha256: dict[str, str]
    promotable: bool = True
    """False for a version that did not pass the manifest's gate: no alias may point at it."""
    promotable_reason: str = ""
    """Why not."""


class Version(Part):
    """`adapters/{tenant}~{name}/versions/v{version}`: whose the number is. Whether the version can be read, its run
    says."""

    version: int
    run_id: str
    claimed_at: datetime
    promotable: bool = True
    promotable_reason: str = ""


class RunError(Part):
    """Why the run ended as it did."""

    code: str
    message: str
    hint: str
    details: list[Problem] = []
    counts: dict[str, int] = {}


class Owner(Part):
    """The one execution that may write to the run."""

    execution: str
    task_attempt: int = 0


class DeadLetter(Part):
    """A message that no function took: on the run that it names, or in `dead_letters/{topic}~{message_id}`."""

    topic: str
    """What it was published to."""
    message_id: str
    """Of the dead letter; Pub/Sub gave the message another one when it was published first."""
    payload_uri: str
    """Where the message lies, whole, in the artifacts bucket."""
    reason: str
    count: int
    """How often it was delivered."""
    at: datetime
    """When it was noted."""
    replayed_at: datetime | None = None
    """When it was published again."""
    run_id: str | None = None
    """The run that it names; stored where that run's document does not hold it."""

    def is_same(self, other: DeadLetter) -> bool:
        """True when both are the one message: its id is unique within a topic."""
        return (self.topic, self.message_id) == (other.topic, other.message_id)


class Run(Part):
    """`runs/{run_id}`. What no part of AdaptML writes is refused when it is read: somebody edited the document."""

    run_id: str
    state: RunState
    state_reason: str
    tenant: _Segment
    name: _Segment
    """The manifest's name, once it was read; until then the folder's. Adapters of one tenant/name are numbered."""
    folder: Annotated[str, Field(pattern="^[^/]*$")] = ""
    """The drop's folder: what is written beside the drop goes there."""
    source: Source
    manifest: Manifest | None = None
    dataset: DatasetSummary = DatasetSummary()
    estimate: Estimate | None = None

    attempt: _Count = 1
    """Training attempt, from 1. Raised when an attempt that had begun ended without a result."""
    deaths: _Count = 0
    """Attempts that died, or got nowhere: what `max_attempts` bounds. An attempt that saved a checkpoint and left,
    because its time was up or its machine was taken away, is none."""
    epoch: _Count = 0
    """Dispatch number: raised by every claim. An execution started under an older number leaves."""
    execution: str | None = None
    owner: Owner | None = None
    cancel_requested: bool = False

    progress: Progress = Progress()
    checkpoint: Checkpoint | None = None
    """The last one. It stays when the run is cancelled or fails, so that it can be resumed."""
    resumed_step: int | None = None
    """Steps that the present attempt found done when it was claimed."""
    metrics: Metrics = Metrics()
    artifacts: Artifacts | None = None
    cost_usd: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Of all attempts that ended, at list price."""
    error: RunError | None = None

    revision: _Count = 0
    """Number of changes of state so far; the id of the last audit event."""
    announced_revision: _Count = 0
    outbox_pending: bool = False
    """True until what the last change announces (topics, files beside the drop) was announced."""

    created_at: datetime
    updated_at: datetime
    state_since: datetime
    started_at: datetime | None = None
    """When the present attempt took ownership."""
    heartbeat_at: datetime | None = None
    finished_at: datetime | None = None
    sweep_at: datetime | None = None
    """When the reconciler looks next at what attempts left in the artifacts bucket (adaptml/leftovers.py). None where
    nothing can be left."""
    data_deadline: datetime | None = None

    traceparent: str = ""
    """The span that took the run in, as W3C writes it: all that is done for the run is in its trace. "" where nothing
    was traced."""

    dead_letters: list[DeadLetter] = []
    """The last messages about the run that no function took."""

    @model_validator(mode="after")
    def _can_be(self) -> Run:
        if (why := impossible(self)) is not None:
            raise ValueError(why)
        return self

    def to_document(self) -> dict[str, Any]:
        """As Firestore stores it: enums as text, datetimes as timestamps."""
        document: dict[str, Any] = to_document(self.model_dump())
        return document


def impossible(run: Run) -> str | None:
    """Why no part of AdaptML can have written this. A run that has its version is not trained again, and its version
    is made of what it staged itself."""
    if any(isinstance(value, datetime) and value.tzinfo is None for value in vars(run).values()):
        return "a time without a time zone"
    if run.artifacts is not None and not run.state.is_final:
        if run.state is not RunState.EVALUATING:
            return "a version before it was trained"
        if not run.artifacts.staged.startswith(layout.staged_by(run.tenant, run.name, run.run_id)):
            return "a version of what another run staged"
    return None


class Event(Part):
    """`runs/{run_id}/events/{revision}`: one change of state, for the audit and for `run-events`."""

    event_id: str
    """Deterministic ({run_id}-{revision}): a consumer drops what it has seen."""
    run_id: str
    tenant: str
    from_state: RunState | None = Field(default=None)
    to_state: RunState
    at: datetime
    attempt: int
    reason: str
    revision: int

    @property
    def frees_gpu(self) -> bool:
        """True where the change ended an attempt."""
        return self.from_state is not None and self.from_state.is_attempt and not self.to_state.is_attempt


class AuditEntry(Part):
    """`gs://ARTIFACTS/_audit/{tenant}/{run_id}/{revision}.json`."""

    event: Event
    run: Run | None
    """As it was then; None where the change was announced only after the next one."""


def to_document(value: Any) -> Any:
    """A dumped model as plain values that Firestore takes."""
    match value:
        case RunState():
            return value.value
        case dict():
            return {key: to_document(item) for key, item in value.items()}
        case list() | tuple():
            return [to_document(item) for item in value]
        case str():
            return str(value)
        case _:
            return value
