"""What `terraform apply` has gcloud do to Eventarc's subscriptions, done by the real gcloud to the Pub/Sub emulator."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.cloud import pubsub_v1

from local import prerequisites
from schemas.topology import TOPOLOGY, dead_letter_topic
from tests.terraform.deployment import PROJECT, deployment

NOT_IN_THE_EMULATOR = " --expiration-period=never"


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    host, _, port = address.partition(":")
    command = [
        prerequisites.java(),
        "-Xmx256m",
        "-jar",
        str(prerequisites.pubsub_jar()),
        f"--host={host}",
        f"--port={port}",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(host, int(port))
            monkeypatch.setenv("PUBSUB_EMULATOR_HOST", address)
            yield address
        finally:
            process.kill()


def _wait_for(host: str, port: int) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            socket.create_connection((host, port), 1).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def test_the_command_makes_a_subscription_deliver_as_the_topology_says(emulator: str, tmp_path: Path) -> None:
    [command] = [
        row.values["input"]
        for row in deployment().resources("terraform_data")
        if row.address.startswith('module.triggers["intake"]')
    ]
    assert NOT_IN_THE_EMULATOR in command
    dead = f"projects/{PROJECT}/topics/{dead_letter_topic(TOPOLOGY.storage_topic)}"
    made = f"projects/{PROJECT}/topics/eventarc"
    subscription = f"projects/{PROJECT}/subscriptions/eventarc-us-central1-intake"
    for topic in (dead, made):
        pubsub_v1.PublisherClient().create_topic(name=topic)
    subscriber = pubsub_v1.SubscriberClient()
    subscriber.create_subscription(name=subscription, topic=made)

    environment = os.environ | {
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_PUBSUB": f"http://{emulator}/",
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
        "CLOUDSDK_CONFIG": str(tmp_path),
    }
    shell = ["sh", "-c", command.replace(NOT_IN_THE_EMULATOR, "")]
    done = subprocess.run(shell, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr

    found = subscriber.get_subscription(subscription=subscription)
    delivery = TOPOLOGY.delivery
    assert found.ack_deadline_seconds == delivery.ack_deadline_s
    assert found.retry_policy.minimum_backoff.total_seconds() == delivery.minimum_backoff_s
    assert found.retry_policy.maximum_backoff.total_seconds() == delivery.maximum_backoff_s
    assert found.dead_letter_policy.dead_letter_topic == dead
    assert found.dead_letter_policy.max_delivery_attempts == delivery.max_delivery_attempts
