"""What an event costs as the database grows: time, documents read and written, at 100, 10,000 and 100,000 runs.

The functions' own code against the Firestore, Pub/Sub and Cloud Storage emulators; only Cloud Run is pretended, so that
a start takes no time. Reads and writes are counted at the client's interface, as they are billed. The time is that of
the emulator, which keeps no indexes; the real service's queries take as long as their result is large.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from google.cloud import firestore, pubsub_v1, storage

from adaptml.bus import Bus
from adaptml.jobs import RUN_EPOCH, RUN_ID, Execution, ExecutionState
from adaptml.objects import ObjectStore
from adaptml.runs.store import RunStore
from adaptml.services import Services
from adaptml.settings import Settings
from benchmarks.figure import show
from functions import dispatcher, intake, reconciler
from functions.reconciler import Wakeup
from local import provision
from local.parts import emulators
from local.wiring import Ports, client_environment
from schemas.layout import DropPath
from schemas.run import Run
from schemas.run_states import RunState
from tests import stub_trainer
from tests.cloud import DROPS, PROJECT, chat_rows, manifest
from trainer.attempt import Attempt

SIZES = (100, 10_000, 100_000)
HEAP = "-Xmx6g"
CLASS_A, CLASS_B = "objects written or listed", "objects read"
OPERATIONS = {
    "pin": [CLASS_B], "read": [CLASS_B], "open": [CLASS_B], "list": [CLASS_A], "upload_new": [CLASS_A],
    "copy_new": [CLASS_B, CLASS_A], "put_newer": [CLASS_B, CLASS_A], "put_new": [CLASS_A],
    "delete_older": [CLASS_B],
}  # fmt: skip


@dataclass
class Meter:
    """What is billed."""

    counts: Counter[str] = field(default_factory=Counter)

    def take(self) -> Counter[str]:
        """What came together since the last time."""
        taken, self.counts = self.counts, Counter()
        return taken


class CountedFirestore:
    """Firestore's interface below the client; a query without a result is billed as one read."""

    def __init__(self, api: Any, meter: Meter) -> None:
        self._api, self._meter = api, meter

    def batch_get_documents(self, *arguments: Any, **named: Any) -> Iterator[Any]:
        for answer in self._api.batch_get_documents(*arguments, **named):
            self._meter.counts["documents read"] += 1
            yield answer

    def run_query(self, *arguments: Any, **named: Any) -> Iterator[Any]:
        found = 0
        for answer in self._api.run_query(*arguments, **named):
            found += bool(answer.document.name)
            yield answer
        self._meter.counts["documents read"] += max(found, 1)

    def commit(self, *arguments: Any, **named: Any) -> Any:
        self._meter.counts["documents written"] += len(named["request"]["writes"])
        return self._api.commit(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._api, name)


class Counted:
    """Any other service, by its methods."""

    def __init__(self, service: Any, meter: Meter, names: Callable[[str], list[str]]) -> None:
        self._service, self._meter, self._names = service, meter, names

    def __getattr__(self, method: str) -> Any:
        self._meter.counts.update(self._names(method))
        return getattr(self._service, method)


class PretendedJobs:
    """Cloud Run that starts at once and does nothing."""

    def __init__(self) -> None:
        self.started: list[tuple[str, int, float]] = []

    def start(self, run_id: str, epoch: int, timeout_s: int) -> str:
        self.started.append((run_id, epoch, time.perf_counter()))
        return f"x-{len(self.started)}"

    def look_up(self, name: str) -> Execution:
        return Execution(name, ExecutionState.ALIVE)

    def listed(self) -> Iterator[Execution]:
        return iter(())

    def cancel(self, name: str) -> None:
        return None


@contextmanager
def running_emulators() -> Iterator[None]:
    """The three emulators, ended afterwards."""
    ports = Ports.free()
    with tempfile.TemporaryDirectory() as home:
        os.environ.update(client_environment(ports, Path(home)))
        commands = [[HEAP if word.startswith("-Xmx") else word for word in p.command] for p in emulators(ports)]
        nowhere = subprocess.DEVNULL
        processes = [subprocess.Popen(command, stdout=nowhere, stderr=nowhere) for command in commands]
        try:
            time.sleep(8)
            provision.topics()
            provision.buckets(Settings.from_env())
            yield
        finally:
            for process in processes:
                process.kill()


def grow(client: firestore.Client, run: Run, have: int, want: int) -> None:
    """More runs like one that ended, of 100 tenants."""
    document = run.to_document()
    for first in range(have, want, 400):
        batch = client.batch()
        for number in range(first, min(first + 400, want)):
            age = {"created_at": run.created_at - timedelta(minutes=number)}
            other = document | age | {"run_id": f"old-{number}", "tenant": f"tenant-{number % 100}", "name": "old"}
            batch.set(client.collection("runs").document(f"old-{number}"), other)
        batch.commit()


@dataclass(frozen=True)
class Measured:
    """One run from its manifest to its version."""

    seconds: dict[str, float]
    counts: dict[str, Counter[str]]
    run: Run


def one_run(services: Services, jobs: PretendedJobs, meter: Meter, number: int) -> Measured:
    """Takes it in, starts it, lets a stub train, and ticks once."""
    bucket = storage.Client(project=PROJECT).bucket(DROPS)
    bucket.blob(f"bench/drop-{number}/train.jsonl").upload_from_string(chat_rows(12))
    blob = bucket.blob(f"bench/drop-{number}/manifest.yaml")
    blob.upload_from_string(manifest(labels={"steps": "10"}))
    seconds, counts = {}, {}

    def phase(name: str, do: Callable[[], object]) -> None:
        meter.take()
        began = time.perf_counter()
        do()
        seconds[name], counts[name] = time.perf_counter() - began, meter.take()

    path = DropPath(DROPS, "bench", f"drop-{number}", "manifest.yaml")
    written = blob.generation, blob.time_created
    phase("manifest to QUEUED", lambda: intake.take_manifest(services, path, *written))
    phase("the same event again", lambda: intake.take_manifest(services, path, *written))
    phase("QUEUED to RunJob", lambda: dispatcher.fill(services))
    run_id, epoch, _ = jobs.started[-1]
    phase("a tick of the reconciler", lambda: reconciler.reconcile(services, Wakeup()))
    env = {RUN_ID: run_id, RUN_EPOCH: str(epoch), "CLOUD_RUN_EXECUTION": f"x-{len(jobs.started)}"}

    def train() -> None:
        begun = Attempt.begin(services, env)
        if begun is None or begun.carry_out(stub_trainer.train):
            raise RuntimeError(f"{run_id} did not train")

    phase("training", train)
    run = services.runs.get(run_id)
    if run.state is not RunState.SUCCEEDED:
        raise RuntimeError(f"{run_id} is {run.state}: {run.state_reason}")
    return Measured(seconds, counts, run)


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--runs", type=int, default=15, help="measured at each size (default: %(default)s)")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="runs in the database")
    options = parser.parse_args()
    meter, jobs = Meter(), PretendedJobs()
    with running_emulators():
        client = firestore.Client(project=PROJECT)
        client._firestore_api_internal = CountedFirestore(client._firestore_api, meter)
        settings = Settings.from_env(os.environ | {"ADAPTML_GPU_QUOTA": "1", "ADAPTML_SETTLE_S": "0"})
        objects: Any = Counted(ObjectStore(storage.Client(project=PROJECT)), meter, lambda m: OPERATIONS.get(m, []))
        bus: Any = Counted(Bus(pubsub_v1.PublisherClient(), PROJECT), meter, lambda _: ["messages"])
        pretended: Any = jobs
        services = Services(settings, RunStore(client), objects, bus, pretended)
        first = one_run(services, jobs, meter, 0)
        baseline: dict[str, float] = {}
        number, have = 1, 0
        for size in options.sizes:
            grow(firestore.Client(project=PROJECT), first.run, have, size)
            have = size
            measured = [one_run(services, jobs, meter, number + i) for i in range(options.runs)]
            number += options.runs
            for phase in first.seconds:
                took = statistics.median(m.seconds[phase] for m in measured)
                peer = f"with {options.sizes[0]} runs in the database"
                show(f"{phase}, {size} runs", took, baseline.setdefault(phase, took), peer, "s")
                counted = measured[-1].counts[phase]
                for what in sorted(counted):
                    floor = baseline.setdefault(f"{phase}/{what}", counted[what])
                    show(f"{phase}, {size} runs: {what}", counted[what], floor, peer, what)
    return 0


if __name__ == "__main__":
    sys.exit(main())
