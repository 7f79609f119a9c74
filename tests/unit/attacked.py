"""A cloud in memory that somebody attacks, and everything that it tells anybody."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from adaptml.logs import CloudFormatter
from adaptml.services import Services
from functions import bucket_events
from functions.bucket_events import Landed
from schemas import layout
from schemas.layout import DropPath
from schemas.run import Run
from tests.simulation.cloud import DROPS, Cloud
from tests.simulation.scenario import MODEL
from tests.simulation.world import World

MODELS = "models"
ROWS = b"".join(
    json.dumps({"prompt": f"Question {i}?", "completion": f"Answer {i}."}).encode() + b"\n" for i in range(12)
)


def manifest(**settings: Any) -> bytes:
    """A good one, as JSON, but for these settings."""
    return json.dumps({"base_model": MODEL, "dataset": {"train": ["train.jsonl"]}} | settings).encode()


@dataclass
class Attacked:
    """The simulated services, in which every call succeeds at once."""

    cloud: Cloud = field(default_factory=lambda: Cloud.of(World(0), gpu_quota=4))
    services: Services = field(init=False)

    def __post_init__(self) -> None:
        settings = self.cloud.services.settings.model_copy(update={"models_bucket": MODELS})
        self.services = replace(self.cloud.services, settings=settings)

    def put(self, name: str, body: bytes, bucket: str = DROPS) -> int:
        """Writes an object, without an event. Returns its generation."""
        return self.cloud.storage.put(bucket, name, body, {}, None).generation

    def drop(self, text: bytes, files: dict[str, bytes] | None = None, folder: str = "acme/bot") -> Run:
        """Takes in a drop, and returns the run as it is then."""
        for name, body in (files if files is not None else {"train.jsonl": ROWS}).items():
            self.put(f"{folder}/{name}", body)
        return self.land(f"{folder}/manifest.yaml", text)

    def land(self, name: str, body: bytes) -> Run:
        """A manifest lands, and intake takes it."""
        path = DropPath.parse(DROPS, name)
        assert path is not None
        generation = self.put(name, body)
        bucket_events.take(self.services, Landed(path, generation, self.services.now()))
        return self.services.runs.get(layout.run_id(path.tenant, path.folder, DROPS, name, str(generation)))

    def document(self, run_id: str) -> dict[str, Any]:
        """The run as Firestore has it."""
        return dict(self.cloud.document("runs", run_id))

    def edit(self, run_id: str, /, **fields: Any) -> None:
        """What somebody does in the console."""
        self.services.runs._documents.client.collection("runs").document(run_id).update(fields)

    def messages(self) -> str:
        """All that was published."""
        return "\n".join(
            f"{message.topic} {message.body.decode()} {message.attributes}"
            for messages in self.cloud.topics.published.values()
            for message in messages
        )

    def documents(self) -> str:
        """All of Firestore."""
        return "\n".join(f"{path} {found}" for path, found in self.cloud.database.collections.items())

    def objects(self, *, but: tuple[str, ...]) -> dict[str, str]:
        """All objects that were not there before, by name: those that end otherwise than these."""
        return {
            name: held.body.decode("utf-8", "replace")
            for held_by_name in self.cloud.storage.present.values()
            for name, held in held_by_name.items()
            if not name.endswith(but)
        }


@contextmanager
def logged() -> Iterator[io.StringIO]:
    """Every line that is logged meanwhile, also of libraries and of the lowest level, as Cloud Logging gets it."""
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(CloudFormatter({}))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
