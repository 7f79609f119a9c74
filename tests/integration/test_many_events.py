"""Many drops at once, their events in random order and many of them twice: none is lost, none trains twice."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from google.api_core.exceptions import DeadlineExceeded
from google.cloud import firestore, pubsub_v1, storage
from google.cloud.firestore_v1.base_query import FieldFilter

from local.wiring import STORAGE_TOPIC
from schemas.run import Run
from schemas.run_states import RunState
from tests import forked
from tests.apart import cloud_apart
from tests.cloud import DROPS, PROJECT, STUB, TestCloud, chat_rows, eventually, manifest

COUNT = int(os.environ.get("SOAK_DROPS", "12"))
"""500 in the long test (`make soak`): 7,000 objects, 10,000 events."""
FILES = 13
DUPLICATES = 3 / 7
"""Of the events that the bucket sends: 30 % of all that are delivered."""
SEED = int(os.environ.get("SOAK_SEED", "1"))


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCloud]:
    """One in which data has time to arrive: copying many drops in random order takes a while."""
    with cloud_apart(
        tmp_path_factory.mktemp("many"), ADAPTML_TRAINER_COMMAND=forked.command(STUB), ADAPTML_GPU_QUOTA="4"
    ) as started:
        yield started


@contextmanager
def recorded() -> Iterator[list[pubsub_v1.types.PubsubMessage]]:
    """All events that the bucket sends meanwhile, filled in at the end."""
    subscriber = pubsub_v1.SubscriberClient()
    path = subscriber.subscription_path(PROJECT, "recorder")
    subscriber.create_subscription(name=path, topic=subscriber.topic_path(PROJECT, STORAGE_TOPIC))
    events: list[pubsub_v1.types.PubsubMessage] = []
    try:
        yield events
        while True:
            try:
                pulled = subscriber.pull(subscription=path, max_messages=1000, timeout=5).received_messages
            except DeadlineExceeded:
                return
            if not pulled:
                return
            events += [received.message for received in pulled]
            subscriber.acknowledge(subscription=path, ack_ids=[received.ack_id for received in pulled])
    finally:
        subscriber.delete_subscription(subscription=path)


def copy(objects: list[tuple[str, str]]) -> dict[str, int]:
    """Writes all of them in random order, several at a time; name → generation."""
    bucket = storage.Client(project=PROJECT).bucket(DROPS)

    def put(item: tuple[str, str]) -> tuple[str, int]:
        blob = bucket.blob(item[0])
        blob.upload_from_string(item[1])
        return item[0], int(blob.generation)

    with ThreadPoolExecutor(16) as pool:
        return dict(pool.map(put, objects))


def again(events: list[pubsub_v1.types.PubsubMessage], draw: random.Random) -> None:
    """Sends some of the events a second time, in random order."""
    publisher = pubsub_v1.PublisherClient()
    topic = publisher.topic_path(PROJECT, STORAGE_TOPIC)
    twice = draw.sample(events, round(len(events) * DUPLICATES))
    for sent in [publisher.publish(topic, event.data, **event.attributes) for event in twice]:
        sent.result(timeout=60)


def all_runs() -> list[Run]:
    query = firestore.Client(project=PROJECT).collection("runs").where(filter=FieldFilter("tenant", ">=", "soak-"))
    found = query.where(filter=FieldFilter("tenant", "<", "soak-~")).stream()
    return [Run.model_validate(snapshot.to_dict()) for snapshot in found]


@pytest.mark.timeout(300 + 10 * COUNT)
def test_no_drop_is_lost_and_none_trains_twice(cloud: TestCloud) -> None:
    draw = random.Random(SEED)
    names = [f"part-{i}.jsonl" for i in range(FILES)]
    text = manifest(dataset={"train": names})
    objects = [
        (f"soak-{i % 5}/drop-{i}/{name}", text if name == "manifest.yaml" else chat_rows(1, f"{name} {{}}"))
        for i in range(COUNT)
        for name in (*names, "manifest.yaml")
    ]
    draw.shuffle(objects)
    with recorded() as events:
        generations = copy(objects)
        time.sleep(1)
    sent = [event for event in events if event.attributes.get("eventType") == "OBJECT_FINALIZE"]
    sent = [event for event in sent if event.attributes["objectId"] in generations]
    assert len(sent) == len(objects)
    again(sent, draw)

    expected = {
        cloud.run_id(tenant, folder, generations[f"{tenant}/{folder}/manifest.yaml"])
        for tenant, folder in {tuple(name.split("/")[:2]) for name, _ in objects}
    }

    def ended() -> list[Run] | None:
        runs = all_runs()
        return runs if len(runs) >= COUNT and all(run.state.is_final for run in runs) else None

    within_s = 120 + 8 * COUNT
    runs = eventually(ended, within_s=within_s, every_s=1, what=lambda: Counter(run.state for run in all_runs()))
    assert {run.run_id for run in runs} == expected
    assert Counter(run.state for run in runs) == {RunState.SUCCEEDED: COUNT}
    assert Counter((run.epoch, run.attempt, run.deaths) for run in runs) == {(1, 1, 0): COUNT}
    executions = Counter(e.run_id for e in cloud.services.jobs.listed() if e.run_id in expected)
    assert set(executions.values()) == {1}
    for run in runs:
        assert run.artifacts is not None
        assert run.artifacts.version == 1
