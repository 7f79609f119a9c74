"""Executions of the trainer's Cloud Run Job."""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import grpc
from google.api_core.exceptions import NotFound
from google.cloud import run_v2
from google.cloud.run_v2.services.executions.transports import ExecutionsGrpcTransport
from google.cloud.run_v2.services.jobs.transports import JobsGrpcTransport
from google.protobuf.duration_pb2 import Duration

RUN_ID, RUN_EPOCH = "RUN_ID", "RUN_EPOCH"
EMULATOR_HOST = "CLOUD_RUN_EMULATOR_HOST"
"""As PUBSUB_EMULATOR_HOST and FIRESTORE_EMULATOR_HOST do for theirs; Google's client reads none for Cloud Run."""


class ExecutionState(enum.Enum):
    """What Cloud Run says of an execution."""

    ALIVE = "alive"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    MISSING = "missing"

    @property
    def has_ended(self) -> bool:
        """True when nothing of it runs any more: the only proof of death there is."""
        return self is not ExecutionState.ALIVE


@dataclass(frozen=True)
class Execution:
    """One execution as the reconciler sees it."""

    name: str
    """Short name, as CLOUD_RUN_EXECUTION gives it to the trainer."""
    state: ExecutionState
    run_id: str = ""
    epoch: int = 0
    message: str = ""
    started_at: datetime | None = None
    """None while it waits for a GPU."""
    ended_at: datetime | None = None


class Jobs:
    """Starts, looks up and cancels executions of one job."""

    def __init__(self, jobs: run_v2.JobsClient, executions: run_v2.ExecutionsClient, job_path: str) -> None:
        self._jobs = jobs
        self._executions = executions
        self._job_path = job_path

    @classmethod
    def connect(cls, job_path: str) -> Jobs:
        """Google's clients, on the emulator when CLOUD_RUN_EMULATOR_HOST names one."""
        host = os.environ.get(EMULATOR_HOST)
        if not host:
            return cls(run_v2.JobsClient(), run_v2.ExecutionsClient(), job_path)
        channel = grpc.insecure_channel(host)
        executions = run_v2.ExecutionsClient(transport=ExecutionsGrpcTransport(channel=channel))
        return cls(run_v2.JobsClient(transport=JobsGrpcTransport(channel=channel)), executions, job_path)

    def start(self, run_id: str, epoch: int, timeout_s: int) -> str:
        """Starts an execution and returns its short name. An id and a number go with it, nothing of the manifest.

        Raises google.api_core.exceptions.GoogleAPICallError. RunJob takes no idempotency key: after an error whose
        outcome is not known an execution may exist all the same.
        """
        environment = {RUN_ID: run_id, RUN_EPOCH: str(epoch)}
        overrides = run_v2.RunJobRequest.Overrides(
            container_overrides=[
                run_v2.RunJobRequest.Overrides.ContainerOverride(
                    env=[run_v2.EnvVar(name=name, value=value) for name, value in environment.items()]
                )
            ],
            task_count=1,
            timeout=Duration(seconds=timeout_s),
        )
        operation = self._jobs.run_job(
            request=run_v2.RunJobRequest(name=self._job_path, overrides=overrides), timeout=60
        )
        return _short(operation.metadata.name)

    def look_up(self, name: str) -> Execution:
        """One execution; MISSING when Cloud Run knows it no longer."""
        try:
            return _seen(self._executions.get_execution(name=f"{self._job_path}/executions/{name}", timeout=30))
        except NotFound:
            return Execution(name, ExecutionState.MISSING, message="Cloud Run does not know the execution")

    def listed(self) -> Iterator[Execution]:
        """Executions that Cloud Run still lists (7 days, or the last 1,000)."""
        for execution in self._executions.list_executions(parent=self._job_path, timeout=30):
            yield _seen(execution)

    def cancel(self, name: str) -> None:
        """Asks for the end of an execution; fine when there is none."""
        try:
            self._executions.cancel_execution(name=f"{self._job_path}/executions/{name}", timeout=30)
        except NotFound:
            return


def _short(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _seen(execution: Any) -> Execution:
    env = {item.name: item.value for c in execution.template.containers for item in c.env}
    message = next((c.message for c in execution.conditions if c.message), "")
    return Execution(
        name=_short(execution.name),
        state=_state_of(execution),
        run_id=env.get(RUN_ID, ""),
        epoch=int(env.get(RUN_EPOCH, 0) or 0),
        message=message,
        started_at=execution.start_time or None,
        ended_at=execution.completion_time or None,
    )


def _state_of(execution: Any) -> ExecutionState:
    if not execution.completion_time:
        return ExecutionState.ALIVE
    if execution.cancelled_count:
        return ExecutionState.CANCELLED
    return ExecutionState.FAILED if execution.failed_count else ExecutionState.SUCCEEDED
