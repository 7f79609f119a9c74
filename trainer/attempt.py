"""The trainer's side of the protocol: owning the run, telling how far it is, committing, ending."""

from __future__ import annotations

import functools
import logging
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from google.api_core.exceptions import GoogleAPICallError, RetryError

from adaptml import lifecycle, protocol, tracing
from adaptml.jobs import RUN_EPOCH, RUN_ID
from adaptml.objects import ObjectGone
from adaptml.planning.attempts import leave_before_s
from adaptml.protocol import Change, Fenced
from adaptml.publishing import publish_version
from adaptml.runs.changes import Decide
from adaptml.runs.curve import Points
from adaptml.services import Services
from schemas import layout
from schemas.errors import Problem, Refused
from schemas.manifest import Manifest
from schemas.run import Artifacts, Checkpoint, Metrics, Owner, Progress, Run
from schemas.run_states import RunState
from trainer.meanwhile import meanwhile

log = logging.getLogger(__name__)

REPORT_EVERY_S, REPORT_AT_LEAST_EVERY_S = 2.0, 60.0
"""Between two progress writes. It grows with the run (`REPORTS`), so that what a run writes stays bounded."""
REPORTS = 200
_POINTS_AT_ONCE = 1000
"""A document of the curve holds 1 MiB."""
GRACE_S = 10.0
"""Between SIGTERM and SIGKILL, in Cloud Run."""


def _nothing() -> None:
    """What is done before an attempt leaves that has nothing to save."""


class Stopped(Exception):  # noqa: N818 - says what happened
    """Raised once the run was cancelled or handed over: this execution has nothing more to do."""


class Attempt:
    """One execution's hold on a run. Every write checks that the hold is still there, or raises Fenced."""

    def __init__(self, services: Services, run: Run, owner: Owner, began: float | None = None) -> None:
        self.services = services
        self.run = run
        self.owner = owner
        self._points: Points = []
        self._last_report = 0.0
        self._checkpoint: Checkpoint | None = None
        self._stopping: str | None = None
        timeout_s = self.manifest.compute.timeout_s
        self._began = time.monotonic() if began is None else began
        self._killed_at = self._began + timeout_s
        self._leave_at = self._killed_at - leave_before_s(timeout_s)

    @classmethod
    def begin(cls, services: Services, env: Mapping[str, str], began: float | None = None) -> Attempt | None:
        """Takes the run. None when it is not, or no longer, ours to train: the process then leaves with exit 0.

        `began` is when the process did, by the monotonic clock: its timeout counts from there.
        """
        run_id, epoch = env[RUN_ID], int(env[RUN_EPOCH])
        owner = Owner(execution=env["CLOUD_RUN_EXECUTION"], task_attempt=int(env.get("CLOUD_RUN_TASK_ATTEMPT", "0")))
        try:
            run = lifecycle.change(services, run_id, lambda r: protocol.own(r, epoch, owner, services.now()))
        except Fenced as fenced:
            log.info("leaving %s: %s", run_id, fenced)
            return None
        if run is None or run.state.is_final:
            return None
        log.info("owning %s, epoch %d, attempt %d", run_id, epoch, run.attempt)
        return cls(services, run, owner, began)

    @property
    def manifest(self) -> Manifest:
        """The resolved manifest."""
        if self.run.manifest is None:
            raise ValueError(f"{self.run.run_id} reached the trainer without a manifest")
        return self.run.manifest

    @property
    def staging(self) -> str:
        """The prefix that only this task of this execution uploads to."""
        run = self.run
        return layout.staging_prefix(run.tenant, run.name, run.run_id, run.epoch, self.owner.task_attempt)

    def carry_out(self, train: Callable[[Attempt], None]) -> int:
        """Runs the training and ends the run as it must; returns the exit status."""
        with tracing.of_run(self.run, "attempt"):
            return self._carry_out(train)

    def _carry_out(self, train: Callable[[Attempt], None]) -> int:
        signal.signal(signal.SIGTERM, self._on_sigterm)
        unwatch = self.services.runs.watch(self.run.run_id, self._see)
        try:
            if protocol.is_committed(self.run):
                publish_version(self.services, self.run)
            else:
                train(self)
        except (Fenced, Stopped) as ended:
            log.info("leaving %s: %s", self.run.run_id, ended)
            return 0
        except Refused as refused:
            tracing.failed(refused)
            for found in refused.problems[:10]:
                log.error("%s [%s]", found.message, found.code)
            problems = refused.problems
            self._end(lambda r: _failed(r, self.owner, problems))
            return 0
        except Exception as error:
            tracing.failed(error)
            cause = describe(error)
            log.error("attempt %d of %s ended: %s", self.run.attempt, self.run.run_id, cause)
            self._end(lambda r: _crashed(r, self.owner, cause))
            return 1
        finally:
            unwatch()
        return 0

    @property
    def must_stop(self) -> bool:
        """True once the run was cancelled, the machine is to be taken away, or the time is nearly up."""
        if self._stopping is None and time.monotonic() > self._leave_at:
            self._stopping = "its time was up"
        return self._stopping is not None

    @property
    def seconds_left(self) -> float:
        """Until the process is killed."""
        return self._killed_at - time.monotonic()

    def saved(self, checkpoint: Checkpoint) -> None:
        """A checkpoint is in the bucket; the next report notes it on the run."""
        self._checkpoint = checkpoint

    def leave(self, save: Callable[[], None] = _nothing) -> NoReturn:
        """Ends the attempt as `must_stop` wants it, after a last `save`: cancelled, or handed over to one that goes on
        from the last checkpoint. Raises Stopped, or Fenced."""
        cause = self._stopping or "it was told to"
        save()

        def decide(run: Run) -> Change:
            if run.cancel_requested:
                return protocol.stop(run, self.owner, self._checkpoint)
            return protocol.hand_over(run, self.owner, cause, self._checkpoint)

        points, self._points = self._points, []
        self._change(decide, points)
        raise Stopped(cause)

    def _on_sigterm(self, *_: object) -> None:
        self._stopping = self._stopping or "its machine was taken away"
        self._killed_at = min(self._killed_at, time.monotonic() + GRACE_S)

    def _see(self, run: Run) -> None:
        if run.cancel_requested:
            self._stopping = self._stopping or "the run was cancelled"
        elif run.owner != self.owner or not run.state.is_attempt:
            self._stopping = self._stopping or "the run is no longer its own"

    def enter(self, state: RunState, reason: str, **fields: Any) -> None:
        """Moves the run on. Raises Fenced."""
        self._flush_points(fields.get("progress", self.run.progress))
        self._change(lambda r: protocol.advance(r, self.owner, state, reason, self.services.now(), **fields))

    def report(self, progress: Progress, point: dict[str, Any] | None = None) -> None:
        """Notes progress and a point of the loss curve; written every few seconds. Raises Fenced."""
        if point is not None:
            self._points.append(point)
        now = time.monotonic()
        left_s = self.manifest.compute.timeout_s if progress.eta_s is None else progress.eta_s
        if now - self._last_report >= pause_between_reports(now - self._began + left_s):
            self._flush_points(progress)

    def catch_up(self, points: Points) -> None:
        """Puts the points of what is gone on from into the loss curve that are not there: an attempt that was killed
        had not told them yet, and a run that takes up another one has none. Raises Fenced."""
        known = {point["step"] for point in self.services.runs.curve(self.run.run_id)}
        missing = [point for point in points if "loss" in point and point["step"] not in known]
        for start in range(0, len(missing), _POINTS_AT_ONCE):
            self._points = missing[start : start + _POINTS_AT_ONCE]
            self._flush_points(self.run.progress)

    def alive(self, save: Callable[[], None] = _nothing) -> None:
        """Says that the attempt goes on, where there is no step to finish first. Raises Fenced and Stopped."""
        self.report(self.run.progress)
        if self.must_stop:
            self.leave(save)

    def fetch_report(self, folder: Path) -> None:
        """Lays what validation found out about the data, as it was then, into the folder."""
        source, generation = self.run.source, self.run.dataset.report_generation
        if generation is None:
            return
        name = layout.drop_prefix(self.run.tenant, self.run.folder or self.run.name) + layout.REPORT
        try:
            (folder / layout.REPORT).write_bytes(self.services.objects.read(source.bucket, name, generation))
        except ObjectGone:
            log.warning("the validation report of %s was deleted", self.run.run_id)

    def commit(self, folder: Path, sha256: dict[str, str], metrics: Metrics) -> None:
        """Uploads the folder, names the version in one transaction, and puts it in its place.

        A file of many GB takes longer than an attempt may be silent. An upload that goes on after the attempt was told
        to stop writes below a prefix that nobody else writes to or reads. Raises Fenced and Stopped.
        """
        with tracing.span("upload"):
            self._upload(folder, sha256)
        size = sum((folder / name).stat().st_size for name in sha256)
        staged = Artifacts(version=0, staged=self.staging, size_bytes=size, sha256=sha256)
        with tracing.span("commit"):
            self.run = self.services.runs.versions.commit(self.run.run_id, self.owner, staged, metrics)
        publish_version(self.services, self.run)

    def _upload(self, folder: Path, names: Iterable[str]) -> None:
        objects, bucket = self.services.objects, self.services.settings.artifacts_bucket
        for name in names:
            upload = functools.partial(objects.upload_new, bucket, self.staging + name, folder / name)
            meanwhile(upload, self.alive)
            self.alive()

    def _flush_points(self, progress: Progress) -> None:
        points, self._points = self._points, []
        self._last_report = time.monotonic()
        self._change(
            lambda r: protocol.heartbeat(r, self.owner, progress, self._checkpoint, self.services.now()), points
        )
        try:
            lifecycle.write_beside_drop(self.services, self.run)
        except (GoogleAPICallError, RetryError) as error:
            log.warning("STATUS.json was not renewed: %s", type(error).__name__)

    def _change(self, decide: Decide, points: Points | None = None) -> None:
        changed = lifecycle.change(self.services, self.run.run_id, decide, points=points)
        self.run = changed or self.run
        self._see(self.run)

    def _end(self, decide: Decide) -> None:
        try:
            lifecycle.change(self.services, self.run.run_id, decide)
        except Fenced as fenced:
            log.info("leaving %s: %s", self.run.run_id, fenced)


def pause_between_reports(expected_s: float) -> float:
    """Seconds between two progress writes of an attempt that takes this long in all: `REPORTS` of them, unless that
    were more than one every 2 s or fewer than one a minute."""
    return max(REPORT_EVERY_S, min(expected_s / REPORTS, REPORT_AT_LEAST_EVERY_S))


def describe(error: BaseException) -> str:
    """An exception's kind and place. Not its text, which may hold what was in the data."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "lib/python" not in frame.filename] or list(frames)
    place = f" at {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
    return f"{type(error).__name__}{place}"


def _failed(run: Run, owner: Owner, problems: list[Problem]) -> Change:
    protocol.check_owner(run, owner)
    error = protocol.to_error(problems)
    return Change(RunState.FAILED, error.message, {"error": error})


def _crashed(run: Run, owner: Owner, cause: str) -> Change | None:
    protocol.check_owner(run, owner)
    return None if protocol.is_committed(run) else protocol.retry_or_fail(run, cause)
