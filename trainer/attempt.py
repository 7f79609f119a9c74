"""The trainer's side of the protocol: owning the run, telling how far it is, committing, ending."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from google.api_core.exceptions import GoogleAPICallError, RetryError

from adaptml import lifecycle, protocol
from adaptml.jobs import RUN_EPOCH, RUN_ID
from adaptml.objects import ObjectGone
from adaptml.protocol import Change, Fenced
from adaptml.publishing import publish_version
from adaptml.runs import Decide, Points, utc_now
from adaptml.services import Services
from schemas import layout
from schemas.errors import Problem, Refused
from schemas.manifest import Manifest
from schemas.run import Artifacts, Metrics, Owner, Progress, Run
from schemas.run_states import RunState

log = logging.getLogger(__name__)

REPORT_EVERY_S = 2.0
"""Least time between two progress writes. It grows with the run (`_REPORTS_AT_MOST`), so that writes stay bounded."""
_REPORTS_AT_MOST = 200


class Stopped(Exception):  # noqa: N818 - says what happened
    """Raised in the training loop when the run was cancelled."""


class Attempt:
    """One execution's hold on a run. Every write checks that the hold is still there, or raises Fenced."""

    def __init__(self, services: Services, run: Run, owner: Owner) -> None:
        self.services = services
        self.run = run
        self.owner = owner
        self._points: Points = []
        self._last_report = 0.0

    @classmethod
    def begin(cls, services: Services, env: Mapping[str, str]) -> Attempt | None:
        """Takes the run. None when it is not, or no longer, ours to train: the process then leaves with exit 0."""
        run_id, epoch = env[RUN_ID], int(env[RUN_EPOCH])
        owner = Owner(execution=env["CLOUD_RUN_EXECUTION"], task_attempt=int(env.get("CLOUD_RUN_TASK_ATTEMPT", "0")))
        try:
            run = lifecycle.change(services, run_id, lambda r: protocol.own(r, epoch, owner, utc_now()))
        except Fenced as fenced:
            log.info("leaving %s: %s", run_id, fenced)
            return None
        if run is None or run.state.is_final:
            return None
        log.info("owning %s, epoch %d, attempt %d", run_id, epoch, run.attempt)
        return cls(services, run, owner)

    @property
    def manifest(self) -> Manifest:
        """The resolved manifest."""
        if self.run.manifest is None:
            raise ValueError(f"{self.run.run_id} reached the trainer without a manifest")
        return self.run.manifest

    @property
    def staging(self) -> str:
        """The prefix that only this execution uploads to."""
        return layout.staging_prefix(self.run.tenant, self.run.name, self.run.run_id, self.run.epoch)

    def carry_out(self, train: Callable[[Attempt], None]) -> int:
        """Runs the training and ends the run as it must; returns the exit status."""
        try:
            if protocol.is_committed(self.run):
                publish_version(self.services, self.run)
            else:
                train(self)
        except (Fenced, Stopped) as ended:
            log.info("leaving %s: %s", self.run.run_id, ended)
            return 0
        except Refused as refused:
            for found in refused.problems[:10]:
                log.error("%s [%s]", found.message, found.code)
            problems = refused.problems
            self._end(lambda r: _failed(r, self.owner, problems))
            return 0
        except Exception as error:
            cause = describe(error)
            log.error("attempt %d of %s ended: %s", self.run.attempt, self.run.run_id, cause)
            self._end(lambda r: _crashed(r, self.owner, cause))
            return 1
        return 0

    def enter(self, state: RunState, reason: str, **fields: Any) -> None:
        """Moves the run on. Raises Fenced."""
        self._flush_points(fields.get("progress", self.run.progress))
        self._change(lambda r: protocol.advance(r, self.owner, state, reason, utc_now(), **fields))

    def report(self, progress: Progress, point: dict[str, Any] | None = None) -> None:
        """Notes progress and a point of the loss curve; written every few seconds. Raises Fenced and Stopped."""
        if point is not None:
            self._points.append(point)
        expected_s = self.manifest.compute.timeout_s if progress.eta_s is None else progress.eta_s
        pause_s = max(REPORT_EVERY_S, min(expected_s / _REPORTS_AT_MOST, 30.0))
        if time.monotonic() - self._last_report >= pause_s:
            self._flush_points(progress)

    def alive(self) -> None:
        """Says that the attempt goes on, between the steps that `report` covers. Raises Fenced and Stopped."""
        self.report(self.run.progress)

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
        """Uploads the folder, names the version in one transaction, and puts it in its place. Raises Fenced."""
        bucket = self.services.settings.artifacts_bucket
        for name in sha256:
            self.services.objects.upload_new(bucket, self.staging + name, folder / name)
            self.alive()
        size = sum((folder / name).stat().st_size for name in sha256)
        staged = Artifacts(version=0, staged=self.staging, size_bytes=size, sha256=sha256)
        self.run = self.services.runs.commit(self.run.run_id, self.owner, staged, metrics)
        publish_version(self.services, self.run)

    def _flush_points(self, progress: Progress) -> None:
        points, self._points = self._points, []
        self._last_report = time.monotonic()
        self._change(lambda r: protocol.heartbeat(r, self.owner, progress, utc_now()), points)
        try:
            lifecycle.write_beside_drop(self.services, self.run)
        except (GoogleAPICallError, RetryError) as error:
            log.warning("STATUS.json was not renewed: %s", type(error).__name__)

    def _change(self, decide: Decide, points: Points | None = None) -> None:
        changed = lifecycle.change(self.services, self.run.run_id, decide, points=points)
        self.run = changed or self.run
        if self.run.state is RunState.CANCELLED:
            raise Stopped("the run was cancelled")

    def _end(self, decide: Decide) -> None:
        try:
            lifecycle.change(self.services, self.run.run_id, decide)
        except Fenced as fenced:
            log.info("leaving %s: %s", self.run.run_id, fenced)


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
