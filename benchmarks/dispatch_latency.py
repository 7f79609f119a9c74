"""From a drop to a trainer process, held against one message through the bare Pub/Sub emulator.

On the way lie two messages (the storage notification, `run-ready`), two functions, reading and checking the data,
and the writes to Firestore; the floor is one message from publish to receipt.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from google.cloud import pubsub_v1, storage

from benchmarks.figure import show
from schemas.run_states import RunState
from tests import forked
from tests.apart import cloud_apart
from tests.cloud import DROPS, PROJECT, STUB, TestCloud, chat_rows, eventually, manifest


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dispatch_latency", description=__doc__)
    parser.add_argument("--drops", type=int, default=15, help="how many (default: %(default)s)")
    drops = parser.parse_args().drops
    with (
        tempfile.TemporaryDirectory() as scratch,
        cloud_apart(Path(scratch), ADAPTML_TRAINER_COMMAND=forked.command(STUB)) as cloud,
    ):
        floor = statistics.median(_message_s(drops))
        _drop(cloud, Path(scratch), 0)  # the first one warms up functions and connections
        measured = [_drop(cloud, Path(scratch), number) for number in range(1, drops + 1)]
    peer = "one message through the Pub/Sub emulator, median"
    show("manifest stored to trainer process, median", statistics.median(m[0] for m in measured), floor, peer, "s")
    show("end of gsutil cp to trainer process, median", statistics.median(m[1] for m in measured), floor, peer, "s")
    return 0


def _drop(cloud: TestCloud, scratch: Path, number: int) -> tuple[float, float]:
    """Seconds until a trainer process ran: since the manifest was stored, and since gsutil came back."""
    folder = scratch / f"drop-{number}"
    folder.mkdir()
    (folder / "train.jsonl").write_text(chat_rows(100))
    (folder / "manifest.yaml").write_text(manifest())
    cloud.command("gsutil", "-q", "cp", "-r", str(folder), f"gs://{DROPS}/bench/")
    copied = time.time()
    blob = storage.Client(project=PROJECT).bucket(DROPS).get_blob(f"bench/{folder.name}/manifest.yaml")
    run_id = cloud.run_id("bench", folder.name, int(blob.generation))
    run = cloud.wait(run_id, RunState.SUCCEEDED)
    if run.state is not RunState.SUCCEEDED:
        raise RuntimeError(f"{run_id} is {run.state}: {run.error}")
    started = eventually(lambda: cloud.services.jobs.look_up(run.execution or "").started_at)
    return started.timestamp() - blob.time_created.timestamp(), started.timestamp() - copied


def _message_s(count: int) -> list[float]:
    """Seconds from publishing a message to its receipt."""
    publisher, subscriber = pubsub_v1.PublisherClient(), pubsub_v1.SubscriberClient()
    topic, subscription = f"projects/{PROJECT}/topics/bench", f"projects/{PROJECT}/subscriptions/bench"
    publisher.create_topic(name=topic)
    subscriber.create_subscription(name=subscription, topic=topic)
    arrived, arrivals = threading.Event(), []

    def receive(message: pubsub_v1.subscriber.message.Message) -> None:
        arrivals.append(time.perf_counter())
        message.ack()
        arrived.set()

    pulling = subscriber.subscribe(subscription, receive)
    times = []
    for _ in range(count + 1):
        arrived.clear()
        sent = time.perf_counter()
        publisher.publish(topic, b"{}")
        if not arrived.wait(30):
            raise TimeoutError("the Pub/Sub emulator delivered nothing")
        times.append(arrivals[-1] - sent)
    pulling.cancel()
    return times[1:]


if __name__ == "__main__":
    sys.exit(main())
