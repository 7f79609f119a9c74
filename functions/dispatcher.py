"""Dispatcher: claims a waiting run in a transaction and starts the job for it."""

from __future__ import annotations

import logging

from google.api_core.exceptions import GoogleAPICallError, InvalidArgument, NotFound, PermissionDenied, RetryError

from adaptml import lifecycle, protocol
from adaptml.runs import UnknownRun
from adaptml.services import Services
from schemas.errors import problem
from schemas.messages import RunReady
from schemas.run_states import RunState

log = logging.getLogger(__name__)


def dispatch(services: Services, ready: RunReady) -> None:
    """Starts the run if it waits. A second delivery finds it claimed and does nothing."""
    try:
        run = lifecycle.change(services, ready.run_id, protocol.claim)
    except UnknownRun:
        log.error("run-ready names an unknown run")
        return
    if run is None or run.state is not RunState.STARTING:
        return
    epoch = run.epoch
    timeout_s = run.manifest.compute.timeout_s if run.manifest else 3600
    try:
        execution = services.jobs.start(run.run_id, epoch, timeout_s)
    except (NotFound, PermissionDenied, InvalidArgument) as error:
        cause = f"{type(error).__name__} for job {services.settings.trainer_job}"
        failed = protocol.fail(problem("job_start_refused", cause=cause))
        lifecycle.change(services, run.run_id, lambda r: failed if r.state is RunState.STARTING else None)
        return
    except (GoogleAPICallError, RetryError) as error:
        # Whether an execution exists is not known. The reconciler looks for one by run and epoch, and starts
        # another only when there is none; if both run after all, the older epoch is fenced off.
        log.warning("outcome of starting %s epoch %d is not known: %s", run.run_id, epoch, type(error).__name__)
        return
    lifecycle.change(services, run.run_id, lambda r: protocol.dispatched(r, epoch, execution))
