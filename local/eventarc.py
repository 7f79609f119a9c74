"""Eventarc: turns a storage notification into the CloudEvent that a function gets, at least once.

Pub/Sub pushes each notification here and takes the function's own answer for ours: until that is 2xx it pushes
again with growing pauses, as Eventarc's own transport does.
"""

from __future__ import annotations

import argparse
import base64
import json
import logging
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import requests
from cloudevents.conversion import to_binary
from cloudevents.http import CloudEvent

from adaptml import logs

log = logging.getLogger("local.eventarc")

TYPES = {
    "OBJECT_FINALIZE": "google.cloud.storage.object.v1.finalized",
    "OBJECT_DELETE": "google.cloud.storage.object.v1.deleted",
}


class Route(NamedTuple):
    """Events of one type in one bucket go to one URL."""

    type: str
    bucket: str
    url: str


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


def handler(routes: list[Route]) -> type[BaseHTTPRequestHandler]:
    """A request handler that takes Pub/Sub pushes and calls functions."""
    session = requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=64))

    class Router(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["message"]
            body = base64.b64decode(message.get("data", ""))
            event = to_cloud_event(message["attributes"], body, message["messageId"])
            statuses = [deliver(event, route.url) for route in routes if event is not None and _matches(route, event)]
            self.send_response(max(statuses, default=204))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Functions log what arrives."""

    def deliver(event: CloudEvent, url: str) -> int:
        headers, body = to_binary(event)
        try:
            return session.post(url, headers=headers, data=body, timeout=600).status_code
        except requests.RequestException as error:
            log.warning("event %s found no function: %s", event["id"], type(error).__name__)
            return 503

    return Router


def _matches(route: Route, event: CloudEvent) -> bool:
    return bool(event["type"] == route.type and event.data["bucket"] == route.bucket)


def main() -> None:
    """Routes until it is killed."""
    parser = argparse.ArgumentParser(prog="python -m local.eventarc", description="Storage events to functions.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument(
        "--route", action="append", required=True, metavar="TYPE,BUCKET,URL", help="may be given several times"
    )
    options = parser.parse_args()
    logs.configure()
    routes = [Route(*route.split(",", 2)) for route in options.route]
    ThreadingHTTPServer(("127.0.0.1", options.port), handler(routes)).serve_forever()


if __name__ == "__main__":
    main()
