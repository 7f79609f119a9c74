"""Eventarc: turns a storage notification into the CloudEvent that a function gets, at least once.

The notification stays unacknowledged until the function has answered with 2xx; Pub/Sub then delivers it again with
growing pauses, as Eventarc's own transport does.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import threading
from typing import Any

import requests
from cloudevents.conversion import to_binary
from cloudevents.http import CloudEvent
from google.cloud import pubsub_v1

from adaptml import logs

log = logging.getLogger("local.eventarc")

TYPES = {
    "OBJECT_FINALIZE": "google.cloud.storage.object.v1.finalized",
    "OBJECT_DELETE": "google.cloud.storage.object.v1.deleted",
}


def to_cloud_event(attributes: dict[str, str], body: bytes, message_id: str) -> CloudEvent | None:
    """The event that Eventarc would send; None for a kind that it does not know."""
    kind = TYPES.get(attributes.get("eventType", ""))
    if kind is None:
        return None
    bucket, name = attributes["bucketId"], attributes["objectId"]
    return CloudEvent(
        {
            "id": message_id,
            "type": kind,
            "source": f"//storage.googleapis.com/projects/_/buckets/{bucket}",
            "subject": f"objects/{name}",
            "time": attributes.get("eventTime"),
            "datacontenttype": "application/json",
        },
        json.loads(body) | {"bucket": bucket, "name": name, "generation": attributes["objectGeneration"]},
    )


def main() -> None:
    """Routes until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m local.eventarc", description="Storage events to functions.")
    parser.add_argument("--subscription", required=True)
    parser.add_argument(
        "--route", action="append", required=True, metavar="TYPE,BUCKET,URL", help="may be given several times"
    )
    options = parser.parse_args()
    logs.configure()
    routes = [tuple(route.split(",", 2)) for route in options.route]
    session = requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=32))

    def deliver(message: Any) -> None:
        event = to_cloud_event(dict(message.attributes), message.data, message.message_id)
        urls = [
            url for kind, bucket, url in routes
            if event is not None and event["type"] == kind and event.data["bucket"] == bucket
        ]  # fmt: skip
        for url in urls:
            headers, body = to_binary(event)
            try:
                status = session.post(url, headers=headers, data=body, timeout=600).status_code
            except requests.RequestException as error:
                status = 0
                log.warning("%s did not answer: %s", url, type(error).__name__)
            if not 200 <= status < 300:
                log.warning("event %s was not accepted (%d), it will be delivered again", message.message_id, status)
                message.nack()
                return
        message.ack()

    flow = pubsub_v1.types.FlowControl(max_messages=16)
    subscriber = pubsub_v1.SubscriberClient()
    pull = subscriber.subscribe(options.subscription, callback=deliver, flow_control=flow)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    while not stop.wait(0.5):
        if pull.done():
            log.warning("the stream of notifications ended; opening it again")
            pull = subscriber.subscribe(options.subscription, callback=deliver, flow_control=flow)
    pull.cancel()


if __name__ == "__main__":
    main()
