"""A run that really is trained, attempt after attempt, with what lies around the trainer kept in memory."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

from adaptml import protocol
from adaptml.protocol import Change
from adaptml.services import Services
from adaptml.settings import Settings
from schemas import layout
from schemas.manifest import Manifest
from schemas.run import Artifacts, DataFile, DatasetSummary, Metrics, Owner, Progress, Run, Source
from schemas.run_states import RunState
from tests.cloud import ARTIFACTS, DROPS, MODEL, PROJECT, chat_rows
from tests.unit.bucket import Bucket
from trainer.attempt import Attempt
from trainer.train import train

CONTRARY = "{} xyzzy QQQQ qwxz JJJJ vkvk ####"
"""An answer that grows less likely the more of the others are learned."""
WEIGHTS = "adapter_model.safetensors"


class Killed(BaseException):
    """What `kill -9` is to the code that runs: nothing is done any more."""


@dataclass
class Document:
    """The one run's document, as `RunStore` has it."""

    run: Run
    points: list[dict[str, Any]] = field(default_factory=list)
    """Of the loss curve."""

    @property
    def versions(self) -> Document:
        return self

    def change(self, _: str, decide: Callable[[Run], Change | None], *, points: Any = None) -> Run | None:
        change = decide(self.run)
        if change is None:
            return None
        self.run = change.applied_to(self.run, datetime.now(UTC)).model_copy(update={"outbox_pending": False})
        self.points += points or []
        return self.run

    def curve(self, _: str) -> list[dict[str, Any]]:
        return self.points

    def commit(self, _: str, owner: Owner, artifacts: Artifacts, metrics: Metrics) -> Run:
        numbered = artifacts.model_copy(update={"version": 1})
        changed = self.change("", lambda r: protocol.commit(r, owner, numbered, metrics, datetime.now(UTC)))
        return cast(Run, changed)

    def watch(self, *_: object) -> Callable[[], None]:
        return lambda: None


class Desk:
    """One run, from its first attempt to its last."""

    def __init__(self, *, run_id: str = "r", every_s: int = 0, bucket: Bucket | None = None, **parts: Any) -> None:
        """`parts` of the manifest; a checkpoint is written every `every_s` seconds."""
        self.bucket = bucket or Bucket()
        self.bucket.objects["train.jsonl"] = chat_rows(24).encode()
        document: dict[str, Any] = {"name": "bot", "base_model": MODEL, "dataset": {"train": ["train.jsonl"]}, **parts}
        roles = {"train.jsonl": "train"} | dict.fromkeys(document["dataset"].get("validation", ()), "validation")
        if "contrary.jsonl" in roles:
            self.bucket.objects["contrary.jsonl"] = chat_rows(6, CONTRARY).encode()
        pinned: Any = [
            DataFile(name=name, object=name, generation=1, size=1, crc32c="", role=role) for name, role in roles.items()
        ]
        now = datetime.now(UTC)
        self.document = Document(
            Run(
                run_id=run_id, state=RunState.QUEUED, state_reason="", tenant="t", name="bot",
                source=Source(bucket=DROPS), manifest=Manifest.model_validate(document),
                dataset=DatasetSummary(files=pinned), created_at=now, updated_at=now, state_since=now,
            )
        )  # fmt: skip
        settings = Settings(project=PROJECT, drops_bucket=DROPS, artifacts_bucket=ARTIFACTS, checkpoint_every_s=every_s)
        nobody: Any = None
        self.services = Services(settings, cast(Any, self.document), cast(Any, self.bucket), nobody, nobody)

    @property
    def run(self) -> Run:
        return self.document.run

    def begin(self) -> Attempt:
        """The next attempt: claimed as the dispatcher does it, owned as the trainer does it."""
        self.document.change("", protocol.claim)
        execution = f"x-{self.run.epoch}"
        env = {"RUN_ID": self.run.run_id, "RUN_EPOCH": str(self.run.epoch), "CLOUD_RUN_EXECUTION": execution}
        attempt = Attempt.begin(self.services, env)
        assert attempt is not None
        return attempt

    def attempt(self, at: int | None = None, do: Callable[[Attempt], None] = lambda _: None) -> int:
        """One attempt; `do` is done once it has reported step `at`. Returns the exit status."""
        attempt = self.begin()
        report = attempt.report

        def report_and_do(progress: Progress, point: dict[str, Any] | None = None) -> None:
            report(progress, point)
            if point is not None and progress.step == at:
                do(attempt)

        attempt.report = report_and_do
        try:
            return attempt.carry_out(train)
        except Killed:
            # What the reconciler does of it.
            self.document.change("", lambda r: protocol.retry_or_fail(r, "killed"))
            return -signal.SIGKILL
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    @property
    def checkpoints(self) -> list[str]:
        """Names of all there are of this run, by step."""
        prefix = layout.checkpoint_prefix("t", "bot", self.run.run_id)
        return sorted((name for name in self.bucket.objects if name.startswith(prefix)), key=step_of)

    def delivered(self, name: str = WEIGHTS) -> bytes:
        """A file of the version."""
        assert self.run.state is RunState.SUCCEEDED, self.run.error
        return self.bucket.objects[f"t/bot/v1/{name}"]

    def curve(self) -> list[dict[str, Any]]:
        """metrics.jsonl, without what depends on the clock."""
        points = [json.loads(line) for line in self.delivered("metrics.jsonl").splitlines()]
        return [{key: value for key, value in point.items() if key != "tokens_per_s"} for point in points]


def step_of(name: str) -> int:
    """Of a checkpoint, by its name."""
    return int(name.rpartition("/")[2].split("-")[1].removeprefix("s"))


def terminate(_: Attempt) -> None:
    """As Cloud Run does it before it takes a machine away."""
    os.kill(os.getpid(), signal.SIGTERM)


def kill(_: Attempt) -> None:
    raise Killed
