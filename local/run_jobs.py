"""Cloud Run Jobs, as far as AdaptML uses it: jobs, executions, retries, timeouts, cancelling.

A gRPC server for google.cloud.run.v2 made of google-cloud-run's own message types, so that the unmodified clients
talk to it. An execution is a process on this machine. One thread starts and watches all of them: the kernel ties a
child's life to the thread that started it, so that thread must live as long as the server.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
from google.cloud import pubsub_v1, run_v2
from google.longrunning import operations_pb2
from google.protobuf import any_pb2

TERMINATION_GRACE_S = 10
"""Between SIGTERM and SIGKILL, as in Cloud Run."""
POLL_S = 0.02


@dataclass
class _Running:
    """An execution and its present process."""

    execution: Any
    command: list[str]
    environment: dict[str, str]
    timeout_s: float
    max_retries: int
    process: subprocess.Popen[bytes] | None = None
    disk: Path = Path()
    """For its temporary files; it goes with the process, as a container's does."""
    task_attempt: int = 0
    deadline: float = 0.0
    kill_at: float | None = None
    ending: str = ""
    """Why it is being ended: timeout or cancel; empty while it may run."""


class CloudRun:
    """Jobs and their executions, in memory."""

    def __init__(self, logs: Path, disks: Path, concurrency: int, on_end: Callable[[str], None]) -> None:
        self._logs = logs
        self._disks = disks
        self._concurrency = concurrency
        self._on_end = on_end
        self._jobs: dict[str, Any] = {}
        self._executions: dict[str, _Running] = {}
        self._pending: queue.SimpleQueue[_Running] = queue.SimpleQueue()
        self._alive: list[_Running] = []
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._boot = f"{int(time.time()) % 10**6:06d}"

    # The API

    def create_job(self, request: Any, _: Any) -> Any:
        """CreateJob."""
        job = run_v2.Job(request.job)
        job.name = f"{request.parent}/jobs/{request.job_id}"
        self._jobs[job.name] = job
        return _operation(job.name, run_v2.Job, job, done=True)

    def get_job(self, request: Any, context: grpc.ServicerContext) -> Any:
        """GetJob."""
        return self._jobs.get(request.name) or context.abort(grpc.StatusCode.NOT_FOUND, f"no job {request.name}")

    def run_job(self, request: Any, context: grpc.ServicerContext) -> Any:
        """RunJob: the execution is pending until a slot is free."""
        if request.name not in self._jobs:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no job {request.name}")
        job = self._jobs[request.name]
        if request.overrides.task_count not in (0, 1):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "one task an execution")
        template = run_v2.TaskTemplate(job.template.template)
        overridden = {e.name: e for o in request.overrides.container_overrides for e in o.env}
        container = template.containers[0]
        container.env = [e for e in container.env if e.name not in overridden] + list(overridden.values())
        timeout = request.overrides.timeout or template.timeout
        short = f"{job.name.rsplit('/', 1)[-1]}-{self._boot}-{next(self._numbers)}"
        execution = run_v2.Execution(
            name=f"{job.name}/executions/{short}",
            job=job.name,
            create_time=datetime.now(UTC),
            template=template,
            task_count=1,
        )
        running = _Running(
            execution=execution,
            command=[*container.command, *container.args],
            environment={e.name: e.value for e in container.env}
            | {"CLOUD_RUN_JOB": job.name.rsplit("/", 1)[-1], "CLOUD_RUN_EXECUTION": short},
            timeout_s=timeout.total_seconds() or 600,
            max_retries=template.max_retries,
        )
        with self._lock:
            self._executions[execution.name] = running
        self._pending.put(running)
        return _operation(execution.name, run_v2.Execution, execution, done=False)

    def get_execution(self, request: Any, context: grpc.ServicerContext) -> Any:
        """GetExecution."""
        found = self._executions.get(request.name)
        if found is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no execution {request.name}")
        return found.execution  # type: ignore[union-attr]

    def list_executions(self, request: Any, _: Any) -> Any:
        """ListExecutions, newest first, the last 1,000."""
        with self._lock:
            found = [r.execution for r in self._executions.values() if r.execution.job == request.parent]
        return run_v2.ListExecutionsResponse(executions=found[::-1][:1000])

    def cancel_execution(self, request: Any, context: grpc.ServicerContext) -> Any:
        """CancelExecution."""
        found = self._executions.get(request.name)
        if found is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no execution {request.name}")
        elif not found.execution.completion_time:
            found.ending = found.ending or "cancel"
        return _operation(request.name, run_v2.Execution, found.execution if found else None, done=False)

    # The machine

    def work(self, stop: threading.Event) -> None:
        """Starts and watches processes until `stop`; runs in the thread whose life the children are tied to."""
        while not stop.is_set():
            while len(self._alive) < self._concurrency:
                try:
                    running = self._pending.get_nowait()
                except queue.Empty:
                    break
                if running.ending:
                    self._finish(running, exit_code=0)
                    continue
                self._start(running)
                self._alive.append(running)
            for running in list(self._alive):
                self._watch(running)
            stop.wait(POLL_S)
        for running in self._alive:
            if running.process is not None:
                running.process.kill()

    def _start(self, running: _Running) -> None:
        name = running.execution.name.rsplit("/", 1)[-1]
        environment = os.environ | running.environment
        environment |= {"CLOUD_RUN_TASK_INDEX": "0", "CLOUD_RUN_TASK_ATTEMPT": str(running.task_attempt)}
        running.disk = self._disks / f"{name}-{running.task_attempt}"
        running.disk.mkdir(parents=True)
        environment["TMPDIR"] = str(running.disk)
        tether = [sys.executable, str(Path(__file__).with_name("tether.py")), str(os.getpid())]
        with (self._logs / f"{name}.log").open("ab") as log:
            running.process = subprocess.Popen(
                [*tether, *running.command], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        running.deadline = time.monotonic() + running.timeout_s
        running.kill_at = None
        running.execution.start_time = running.execution.start_time or datetime.now(UTC)
        running.execution.running_count = 1

    def _watch(self, running: _Running) -> None:
        process = running.process
        if process is None:
            return
        exit_code, now = process.poll(), time.monotonic()
        if exit_code is not None:
            shutil.rmtree(running.disk, ignore_errors=True)
        if exit_code is None:
            if not running.ending and now > running.deadline:
                running.ending = "timeout"
            if running.ending and running.kill_at is None:
                process.send_signal(signal.SIGTERM)
                running.kill_at = now + TERMINATION_GRACE_S
            elif running.kill_at is not None and now > running.kill_at:
                process.kill()
        elif exit_code != 0 and running.ending != "cancel" and running.task_attempt < running.max_retries:
            running.task_attempt += 1
            running.ending = ""
            running.execution.retried_count += 1
            self._start(running)
        else:
            self._alive.remove(running)
            self._finish(running, exit_code)

    def _finish(self, running: _Running, exit_code: int) -> None:
        execution = running.execution
        execution.running_count = 0
        message = ""
        if running.ending == "cancel":
            execution.cancelled_count, message = 1, "The execution was cancelled."
        elif running.ending == "timeout":
            execution.failed_count, message = 1, "The configured timeout was reached."
        elif exit_code < 0:
            execution.failed_count = 1
            message = f"The container was terminated by signal {-exit_code} ({signal.Signals(-exit_code).name})."
        elif exit_code:
            execution.failed_count, message = 1, f"The container exited with an error (exit code {exit_code})."
        else:
            execution.succeeded_count = 1
        execution.conditions = [run_v2.Condition(type_="Completed", message=message)]
        execution.completion_time = datetime.now(UTC)
        self._on_end(execution.name.rsplit("/", 1)[-1])


def _operation(name: str, kind: Any, value: Any, *, done: bool) -> operations_pb2.Operation:
    packed = any_pb2.Any()
    if value is not None:
        packed.Pack(kind.pb(value))
    operation = operations_pb2.Operation(name=f"{name}/operations/1", metadata=packed, done=done)
    if done:
        operation.response.CopyFrom(packed)
    return operation


def handlers(cloud_run: CloudRun) -> list[grpc.GenericRpcHandler]:
    """The methods under the names that Google's clients call."""

    def unary(method: Any, request: Any, response: Any = None) -> Any:
        serialize = operations_pb2.Operation.SerializeToString if response is None else response.serialize
        return grpc.unary_unary_rpc_method_handler(
            method, request_deserializer=request.deserialize, response_serializer=serialize
        )

    jobs = {
        "CreateJob": unary(cloud_run.create_job, run_v2.CreateJobRequest),
        "GetJob": unary(cloud_run.get_job, run_v2.GetJobRequest, run_v2.Job),
        "RunJob": unary(cloud_run.run_job, run_v2.RunJobRequest),
    }
    executions = {
        "GetExecution": unary(cloud_run.get_execution, run_v2.GetExecutionRequest, run_v2.Execution),
        "ListExecutions": unary(cloud_run.list_executions, run_v2.ListExecutionsRequest, run_v2.ListExecutionsResponse),
        "CancelExecution": unary(cloud_run.cancel_execution, run_v2.CancelExecutionRequest),
    }
    return [
        grpc.method_handlers_generic_handler("google.cloud.run.v2.Jobs", jobs),
        grpc.method_handlers_generic_handler("google.cloud.run.v2.Executions", executions),
    ]


def main() -> None:
    """Serves until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m local.run_jobs", description="Cloud Run Jobs on this machine.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--logs", type=Path, required=True, help="folder for a log of each execution")
    parser.add_argument("--disks", type=Path, required=True, help="folder for the temporary files of each execution")
    parser.add_argument("--concurrency", type=int, default=1, help="executions at a time: the GPU quota")
    parser.add_argument("--topic", required=True, help="full name of the topic told of ended executions")
    options = parser.parse_args()
    options.logs.mkdir(parents=True, exist_ok=True)
    publisher = pubsub_v1.PublisherClient()

    def announce(execution: str) -> None:
        # As the log sink of the real cloud: a log entry with the execution's name in its labels.
        entry = {"labels": {"run.googleapis.com/execution_name": execution}}
        publisher.publish(options.topic, json.dumps(entry).encode())

    cloud_run = CloudRun(options.logs, options.disks, options.concurrency, announce)
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers(handlers(cloud_run))
    server.add_insecure_port(f"127.0.0.1:{options.port}")
    server.start()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    cloud_run.work(stop)
    server.stop(0)


if __name__ == "__main__":
    main()
