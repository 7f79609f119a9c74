"""Dispatcher: gives free GPUs to waiting runs, in turn, and starts the job for them."""

from __future__ import annotations

import logging

from google.api_core.exceptions import GoogleAPICallError, InvalidArgument, NotFound, PermissionDenied, RetryError

from adaptml import lifecycle, protocol, quota, tracing
from adaptml.quota import Wait
from adaptml.runs.documents import UnknownRun
from adaptml.services import Services
from schemas.errors import problem
from schemas.run import Run
from schemas.run_states import RunState

log = logging.getLogger(__name__)

TENANTS_AT_ONCE = 50
"""Whose waiting runs are looked at for one GPU; who comes after them is looked at for the next."""


def fill(services: Services) -> None:
    """Starts waiting runs until no GPU is free or none of them may have one.

    Whoever makes a run wait or frees a GPU calls this, and so does each tick: called in vain it reads one document.
    """
    for accelerator in quota.ACCELERATORS:
        while (run := _claim_next(services, accelerator)) is not None:
            if run.state is RunState.STARTING:
                start(services, run)


def _claim_next(services: Services, accelerator: str) -> Run | None:
    """A run that holds a GPU now, or that ended instead of getting one; None when there is nothing to start."""
    default = services.settings.gpu_quota
    pool = services.runs.ledger.pool(accelerator)
    if not quota.free_slots(pool, default):
        return None
    heads = services.runs.queries.waiting(after=pool.last_tenant, at_most=TENANTS_AT_ONCE)
    for head in quota.in_turn(pool, heads):
        try:
            claimed = lifecycle.claim(services, head.run_id)
        except UnknownRun:
            continue
        except ValueError:  # it, or its tenant's account, cannot be read; the others can
            log.exception("run %s could not be claimed", head.run_id)
            continue
        if isinstance(claimed, Run):
            return claimed
        if isinstance(claimed, Wait) and not claimed.is_personal:
            return None
    return None


@tracing.on_run("start job")
def start(services: Services, run: Run) -> None:
    """Starts the job for a run that holds a GPU."""
    epoch = run.epoch
    timeout_s = run.manifest.compute.timeout_s if run.manifest else 3600
    try:
        execution = services.jobs.start(run.run_id, epoch, timeout_s)
    except (NotFound, PermissionDenied, InvalidArgument) as error:
        cause = f"{type(error).__name__} for job {services.settings.trainer_job}"
        failed = protocol.fail(problem("job_start_refused", cause=cause))
        lifecycle.change(services, run.run_id, lambda r: failed if _is_unstarted(r, epoch) else None)
        return
    except (GoogleAPICallError, RetryError) as error:
        # Whether an execution exists is not known. The reconciler looks for one by run and epoch, and starts
        # another only when there is none; if both run after all, the older epoch is fenced off.
        log.warning("outcome of starting %s epoch %d is not known: %s", run.run_id, epoch, type(error).__name__)
        return
    lifecycle.change(services, run.run_id, lambda r: protocol.dispatched(r, epoch, execution))


def _is_unstarted(run: Run, epoch: int) -> bool:
    return run.state is RunState.STARTING and run.epoch == epoch and run.owner is None
