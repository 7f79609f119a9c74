"""All services of a world, wired as schemas/topology.yaml wires the real ones."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from adaptml.bus import Bus
from adaptml.dead_letters import Message
from adaptml.objects import ObjectStore
from adaptml.runs.store import RunStore
from adaptml.services import Services
from adaptml.settings import Settings
from functions import bucket_events, dead_letters, dispatcher, reconciler, run_requests
from functions import commands as run_commands
from functions.bucket_events import Landed
from functions.reconciler import Wakeup
from schemas.layout import DropPath, ObjectRole
from schemas.messages import RunCommand, RunReady, RunRequest
from tests.simulation import cloud_run, firestore, pubsub, storage
from tests.simulation.storage import Held
from tests.simulation.training import Trainers
from tests.simulation.world import World

DROPS, ARTIFACTS = "drops", "artifacts"
TICK_S, SWEEP_EVERY = 60.0, 8
BUCKET_EVENT_TRIES = 60
"""In the 24 hours that Eventarc keeps an event."""


@dataclass
class Cloud:
    """The services, the functions, and the ticks."""

    world: World
    settings: Settings
    database: firestore.Database
    storage: storage.Storage
    topics: pubsub.Topics
    jobs: cloud_run.CloudRun
    services: Services
    intake: pubsub.Function
    trainers: Trainers
    event_hazards: pubsub.Hazards
    lost: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    """Objects → generations whose event was lost."""

    @classmethod
    def of(
        cls, world: World, gpu_quota: int, *, leftovers_after_s: int = 4000, checkpoints_kept_s: int = 7200
    ) -> Cloud:
        """A cloud in which nothing has happened."""
        settings = Settings(
            project="simulated",
            drops_bucket=DROPS,
            artifacts_bucket=ARTIFACTS,
            data_deadline_s=900,
            settle_s=30,
            stuck_after_s=120,
            hung_after_s=300,
            gpu_quota=gpu_quota,
            leftovers_after_s=leftovers_after_s,
            checkpoints_kept_s=checkpoints_kept_s,
        )
        database, objects, topics = firestore.Database(world), storage.Storage(world), pubsub.Topics(world)
        jobs = cloud_run.CloudRun(world, lambda environment: trainers.run(environment))
        services = Services(
            settings=settings,
            runs=RunStore(firestore.Client(database), world.local_now),
            objects=ObjectStore(storage.Client(objects)),
            bus=Bus(pubsub.Publisher(topics), settings.project),
            jobs=jobs,  # type: ignore[arg-type]
            now=world.local_now,
        )
        trainers = Trainers(world, objects, services)

        def function(name: str, body: Any, tries: int = pubsub.MAX_DELIVERIES, *, serial: bool = False) -> Any:
            return pubsub.Function(world, name, lambda payload: body(services, payload), tries, is_serial=serial)

        topics.functions = {
            "run-requests": function("requests", _request),
            "run-commands": function("commands", _command),
            "run-ready": function("dispatch", _dispatch),
            "reconcile": function("reconcile", _reconcile, serial=True),
        }
        undelivered = function("undelivered", dead_letters.take, BUCKET_EVENT_TRIES)
        for one in topics.functions.values():
            one.given_up = lambda message: undelivered.send(message, pubsub.Hazards())
        intake = function("intake", bucket_events.take, BUCKET_EVENT_TRIES)
        cloud = cls(
            world, settings, database, objects, topics, jobs, services, intake, trainers, pubsub.Hazards()
        )  # fmt: skip
        objects.finalized.append(cloud._finalized)
        jobs.on_end = cloud._execution_ended
        jobs.tenant_of = cloud._tenant_of
        world.after(TICK_S, lambda: cloud._tick(1), idle=True)
        return cloud

    def document(self, path: str, id_: str) -> firestore.Stored:
        """A document as it is; empty where there is none."""
        return self.database.documents(path).get(id_) or firestore.Stored()

    def _tick(self, number: int) -> None:
        body = json.dumps({"sweep_drops": True} if number % SWEEP_EVERY == 0 else {}).encode()
        message = self.topics.message("reconcile", body, {})
        self.topics.functions["reconcile"].send(message, pubsub.Hazards(), idle=True)
        self.world.after(TICK_S, lambda: self._tick(number + 1), idle=True)

    def _execution_ended(self, name: str) -> None:
        self.topics.accept(
            "reconcile", json.dumps({"labels": {"run.googleapis.com/execution_name": name}}).encode(), {}
        )

    def _tenant_of(self, run_id: str) -> str:
        return str(self.document("runs", run_id).get("tenant", ""))

    def _finalized(self, held: Held) -> None:
        path = DropPath.parse(held.bucket, held.name) if held.bucket == DROPS else None
        if path is None or path.role is ObjectRole.IGNORED:
            return  # functions/bucket_events.py does nothing with these, and there are many of them
        if self.world.chance(self.event_hazards.lost):
            self.world.note("eventarc", "loses the event of", held.name)
            self.lost[path.bucket, held.name].append(held.generation)
            return
        landed = Landed(path, held.generation, held.time_created)
        self.intake.send(landed, self.event_hazards, tenant=path.tenant)

    def request(self, request: RunRequest) -> None:
        """Another system asks for a run."""
        self.topics.accept("run-requests", request.to_bytes(), {})

    def command(self, command: RunCommand) -> None:
        """Another system ends a run or takes one up again."""
        self.topics.accept("run-commands", command.to_bytes(), {})


# As functions/main.py has them.
def _request(services: Services, message: Message) -> None:
    with dead_letters.noting(services, message):
        run_requests.take_request(services, message.body)


def _command(services: Services, message: Message) -> None:
    with dead_letters.noting(services, message):
        run_commands.take_command(services, message.body)


def _dispatch(services: Services, message: Message) -> None:
    RunReady.model_validate_json(message.body)
    dispatcher.fill(services)


def _reconcile(services: Services, message: Message) -> None:
    reconciler.reconcile(services, Wakeup.parse(message.body))
