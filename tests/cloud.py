"""A local cloud for tests, used by the clients that users have."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from google.cloud import firestore, pubsub_v1, storage
from google.cloud.firestore_v1.base_query import FieldFilter

from adaptml.bus import Bus
from adaptml.jobs import Jobs
from adaptml.objects import ObjectStore
from adaptml.runs.store import RunStore
from adaptml.services import Services
from adaptml.settings import Settings
from local import prerequisites
from local.processes import family
from schemas import layout
from schemas.run import Run
from schemas.run_states import RunState

T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent
DROPS, ARTIFACTS, PROJECT = "adaptml-drops", "adaptml-artifacts", "adaptml-local"
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
STUB = "tests.stub_trainer"


@dataclass
class TestCloud:
    """A running local cloud. `services` is what a function would get in it."""

    __test__ = False

    home: Path
    environment: dict[str, str]
    services: Services

    @classmethod
    def start(cls, home: Path, **settings: str) -> TestCloud:
        """Starts one as `make up` does, which does not outlive this process; settings are environment variables."""
        environment = os.environ | {"ADAPTML_LOCAL_HOME": str(home)} | settings
        up = [sys.executable, "-m", "local", "up", "--ends-with", str(os.getpid())]
        subprocess.run(up, cwd=ROOT, env=environment, check=True, timeout=240)
        lines = (home / "env").read_text("utf-8").splitlines()
        reached = dict(shlex.split(line)[1].split("=", 1) for line in lines)
        os.environ.update(reached)
        settings_of = Settings.from_env(environment | reached)
        services = Services(
            settings=settings_of,
            runs=RunStore(firestore.Client(project=PROJECT)),
            objects=ObjectStore(storage.Client(project=PROJECT)),
            bus=Bus(pubsub_v1.PublisherClient(), PROJECT),
            jobs=Jobs.connect(settings_of.job_path),
        )
        return cls(home, environment | reached, services)

    def stop(self) -> None:
        """Stops it as `make down` does."""
        subprocess.run([sys.executable, "-m", "local", "down"], cwd=ROOT, env=self.environment, check=True, timeout=60)

    def part(self, name: str) -> int:
        """The process id of one part."""
        state = json.loads((self.home / "state.json").read_text("utf-8"))
        return int(state["pid"] if name == "supervisor" else state["parts"][name])

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """One part stands still meanwhile: it keeps what it holds and answers nothing."""
        standing = family([self.part(name)])
        for process in standing:
            process.suspend()
        try:
            yield
        finally:
            for process in standing:
                process.resume()

    def command(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A client program with the environment of `.local/env`."""
        program = prerequisites.gsutil() if words[0] == "gsutil" else words[0]
        return subprocess.run(
            [program, *words[1:]], env=self.environment, check=check, timeout=120, capture_output=True, text=True
        )

    def put(self, name: str, content: str | bytes) -> int:
        """Writes an object of the drops bucket and returns its generation."""
        blob = storage.Client(project=PROJECT).bucket(DROPS).blob(name)
        blob.upload_from_string(content)
        return int(blob.generation)

    def read(self, name: str, bucket: str = DROPS) -> str | None:
        """An object's text, or None."""
        blob = storage.Client(project=PROJECT).bucket(bucket).get_blob(name)
        return None if blob is None else blob.download_as_bytes().decode()

    def names(self, prefix: str, bucket: str = ARTIFACTS) -> set[str]:
        """Names of objects below a prefix, without it."""
        return {item.name.removeprefix(prefix) for item in self.services.objects.list(bucket, prefix)}

    def runs_of(self, tenant: str, folder: str) -> list[Run]:
        """All runs of one drop's folder, oldest first."""
        documents = (
            firestore.Client(project=PROJECT)
            .collection("runs")
            .where(filter=FieldFilter("tenant", "==", tenant))
            .stream()
        )
        found = [Run.model_validate(d.to_dict()) for d in documents]
        return sorted((r for r in found if r.folder == folder), key=lambda r: r.created_at)

    def run_id(self, tenant: str, folder: str, generation: int, manifest: str = "manifest.yaml") -> str:
        """The id of the run that a manifest generation starts."""
        return layout.run_id(tenant, folder, DROPS, f"{tenant}/{folder}/{manifest}", str(generation))

    def wait(self, run_id: str, *states: RunState, within_s: float = 60) -> Run:
        """The run once it is in one of these states, or has ended."""

        def reached() -> Run | None:
            run = self.services.runs.find(run_id)
            return run if run is not None and (run.state in states or run.state.is_final) else None

        return eventually(reached, within_s=within_s, what=lambda: f"{run_id}: {self.services.runs.find(run_id)}")


def eventually(
    probe: Callable[[], T | None], *, within_s: float = 30, every_s: float = 0.1, what: Callable[[], object] = str
) -> T:
    """The first result that is not None and not False; fails after `within_s`."""
    deadline = time.monotonic() + within_s
    while True:
        result = probe()
        if result is not None and result is not False:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"did not happen within {within_s} s: {what()}")
        time.sleep(every_s)


def manifest(**settings: Any) -> str:
    """A manifest for the local model, as JSON (which is YAML)."""
    return json.dumps({"base_model": MODEL, "dataset": {"train": ["train.jsonl"]}} | settings)


def chat_rows(count: int, answer: str = "The answer is {}.") -> str:
    """Rows of messages."""
    return "".join(
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": f"Question {i}?"},
                    {"role": "assistant", "content": answer.format(i)},
                ]
            }
        )
        + "\n"
        for i in range(count)
    )
