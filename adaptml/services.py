"""The four outside services in one value, so that a decision can be tested with others."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from google.cloud import firestore, pubsub_v1, storage

from adaptml.bus import Bus
from adaptml.clock import utc_now
from adaptml.jobs import Jobs
from adaptml.objects import ObjectStore
from adaptml.runs.store import RunStore
from adaptml.settings import Settings


@dataclass(frozen=True)
class Services:
    """What a function or the trainer works with."""

    settings: Settings
    runs: RunStore
    objects: ObjectStore
    bus: Bus
    jobs: Jobs
    now: Callable[[], datetime] = utc_now

    @classmethod
    @functools.cache
    def from_env(cls) -> Services:
        """Google's clients, made once a process; they find emulators by the usual environment variables."""
        settings = Settings.from_env()
        return cls(
            settings=settings,
            runs=RunStore(firestore.Client(project=settings.project)),
            objects=ObjectStore(storage.Client(project=settings.project)),
            bus=Bus(pubsub_v1.PublisherClient(), settings.project),
            jobs=Jobs.connect(settings.job_path),
        )
