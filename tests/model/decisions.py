"""What each actor asks of the real code: one function for each change of a run's documents."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from adaptml import protocol
from adaptml.jobs import Execution, ExecutionState
from adaptml.protocol import Change, Fenced
from adaptml.runs.store import RunStore
from adaptml.settings import Settings
from functions import dispatcher, intake, reconciler
from functions.reconciler import Apply, FinishCommit, Nothing, Step, StopExecution, TakeFurther
from schemas.errors import problem
from schemas.manifest import Manifest
from schemas.run import Artifacts, Checkpoint, Estimate, Metrics, Owner, Run, Source
from schemas.run_states import IllegalChange, RunState
from tests.model.database import NOW, Documents, Op
from trainer import attempt as trainer
from trainer.attempt import Attempt

TENANT, NAME, ACCELERATOR = "acme", "bot", "nvidia-l4"
FILES = ("adapter_model.safetensors", "SHA256SUMS")
"""Of a version, in the order in which they are uploaded and copied."""
SETTINGS = Settings(project="p", drops_bucket="d", artifacts_bucket="a")
LATE = NOW + timedelta(days=1)
NO_EXECUTION, ALIVE, ENDED, MISSING = range(4)
"""What Cloud Run says of an execution."""


@dataclass(frozen=True)
class Bounds:
    """Of the run, as its manifest and the deployment set them."""

    max_attempts: int
    dispatch_limit: int
    gpu_quota: int


def name_of(run: int) -> str:
    """A run's id."""
    return f"r{run}"


def execution_of(epoch: int, number: int) -> str:
    """Cloud Run's name for the n-th execution that was started for an epoch."""
    return f"x{epoch}.{number}"


class Decisions:
    """Performs calls on a store. Every answer is a short text that the actor goes by."""

    def __init__(self, documents: Documents, bounds: Bounds) -> None:
        self._documents = documents
        self._bounds = bounds
        self._settings = SETTINGS.model_copy(update={"dispatch_limit": bounds.dispatch_limit})
        self._steps: dict[tuple[int, int, str, bool], Step] = {}

    def perform(self, store: RunStore, op: Op) -> str:
        """Does what the call's first word says; the answer is the run's state then, or why there is none."""
        word, run, *arguments = op
        try:
            changed = getattr(self, f"_{word}")(store, name_of(run), *arguments)
        except Fenced:
            return "fenced"
        except IllegalChange as illegal:
            return f"illegal: {illegal}"
        except ValueError as error:
            return f"refused: {error}"
        if isinstance(changed, Run):
            return changed.state.value
        return "none" if changed is None else str(changed)

    # Intake
    def _create(self, store: RunStore, run_id: str) -> str:
        return "created" if store.create(self.new_run(run_id)) else "exists"

    def new_run(self, run_id: str) -> Run:
        """A run of which intake knows all, as it would after reading the manifest."""
        compute = {"max_attempts": self._bounds.max_attempts}
        manifest = {"name": NAME, "base_model": "google/gemma-2b-it", "dataset": {"train": ["a"]}, "compute": compute}
        return Run(
            run_id=run_id, state=RunState.RECEIVED, state_reason="", tenant=TENANT, name=NAME,
            source=Source(bucket="b"), manifest=Manifest.model_validate(manifest),
            created_at=NOW, updated_at=NOW, state_since=NOW,
            estimate=Estimate(gpu_memory_gb=1.0, duration_s=1.0, cost_usd=0.5),
        )  # fmt: skip

    def _advance(self, store: RunStore, run_id: str) -> Any:
        def decide(run: Run) -> Change | None:
            following = {RunState.RECEIVED: RunState.VALIDATING, RunState.VALIDATING: RunState.QUEUED}
            if run.state not in following:
                return None
            return intake._unless_moved(run.state, Change(following[run.state]))(run)

        return store.change(run_id, decide)

    # Dispatcher
    def _claim(self, store: RunStore, run_id: str) -> Any:
        claimed = store.slots.claim(run_id, self._bounds.gpu_quota)
        return claimed if claimed is None or isinstance(claimed, Run) else "wait"

    def _note(self, store: RunStore, run_id: str, epoch: int, number: int) -> Any:
        return store.change(run_id, lambda r: protocol.dispatched(r, epoch, execution_of(epoch, number)))

    def _refuse(self, store: RunStore, run_id: str, epoch: int) -> Any:
        failed = protocol.fail(problem("job_start_refused", cause=""))
        return store.change(run_id, lambda r: failed if dispatcher._is_unstarted(r, epoch) else None)

    # Trainer
    def _own(self, store: RunStore, run_id: str, epoch: int, number: int, task: int) -> Any:
        owner = _owner(epoch, number, task)
        return store.change(run_id, lambda r: protocol.own(r, epoch, owner, NOW))

    def _enter(self, store: RunStore, run_id: str, epoch: int, number: int, task: int, to: str) -> Any:
        owner = _owner(epoch, number, task)
        return store.change(run_id, lambda r: protocol.advance(r, owner, RunState(to), "", NOW))

    def _commit(self, store: RunStore, run_id: str, epoch: int, number: int, task: int) -> Any:
        writer = {file: f"{execution_of(epoch, number)}.{task}" for file in FILES}
        artifacts = Artifacts(version=0, staged=staging_of(run_id, epoch, number, task), size_bytes=1, sha256=writer)
        return store.versions.commit(run_id, _owner(epoch, number, task), artifacts, Metrics())

    def _leave(self, store: RunStore, run_id: str, epoch: int, number: int, task: int, saves: bool, step: int) -> Any:
        saved = Checkpoint(step=step, object="c", saved_at=NOW) if saves else None
        owner = _owner(epoch, number, task)

        def decide(run: Run) -> Change:
            return (
                protocol.stop(run, owner, saved) if run.cancel_requested else protocol.hand_over(run, owner, "", saved)
            )

        return store.change(run_id, decide)

    def _crash(self, store: RunStore, run_id: str, epoch: int, number: int, task: int) -> Any:
        return store.change(run_id, lambda r: trainer._crashed(r, _owner(epoch, number, task), ""))

    def _succeed(self, store: RunStore, run_id: str) -> Any:
        return store.change(run_id, lambda r: protocol.succeed(r, "gs://a/v/"))

    # Reconciler
    def step(self, seen: int, saw: int, execution: str, is_late: bool) -> Step:
        """What is owed to the run that was seen as this document, given what Cloud Run said."""
        key = (seen, saw, execution, is_late)
        if key not in self._steps:
            run, now = self._documents.run(seen), LATE if is_late else NOW
            self._steps[key] = reconciler.next_step(run, _execution(saw, execution), now, self._settings)
        return self._steps[key]

    def _apply(self, store: RunStore, run_id: str, seen: int, saw: int, execution: str, is_late: bool) -> Any:
        step = self.step(seen, saw, execution, is_late)
        assert isinstance(step, Apply)
        return store.change(run_id, reconciler._if_unchanged(self._documents.run(seen), step.change))

    def _free(self, store: RunStore, run_id: str, epoch: int) -> Any:
        store.slots.free(ACCELERATOR, run_id, epoch)

    # Anybody
    def _mark(self, store: RunStore, run_id: str, revision: int) -> Any:
        store.outbox.mark_announced(run_id, revision)

    def _cancel(self, store: RunStore, run_id: str) -> Any:
        return store.change(run_id, protocol.request_cancel)

    def _ask(self, store: RunStore, run_id: str) -> Any:
        """In the console, where nothing is looked at first."""
        return store.change(run_id, lambda r: None if r.state.is_final else Change(fields={"cancel_requested": True}))


def word_of(step: Step) -> str:
    """A step in a word."""
    words = {Nothing: "", TakeFurther: "further", FinishCommit: "finish", StopExecution: "stop", Apply: "apply"}
    return words[type(step)]


def staging_of(run_id: str, epoch: int, number: int, task: int) -> str:
    """The prefix that an execution uploads to."""
    run = SimpleNamespace(tenant=TENANT, name=NAME, run_id=run_id, epoch=epoch)
    prefix = Attempt.staging.fget(SimpleNamespace(run=run, owner=_owner(epoch, number, task)))  # type: ignore[attr-defined]
    return str(prefix)


def _owner(epoch: int, number: int, task: int) -> Owner:
    return Owner(execution=execution_of(epoch, number), task_attempt=task)


def _execution(saw: int, name: str) -> Execution | None:
    states = {ALIVE: ExecutionState.ALIVE, ENDED: ExecutionState.FAILED, MISSING: ExecutionState.MISSING}
    return None if saw == NO_EXECUTION else Execution(name, states[saw])
