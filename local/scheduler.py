"""Cloud Scheduler: ticks for the reconciler."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import threading

from google.api_core.exceptions import GoogleAPICallError, RetryError
from google.cloud import pubsub_v1

from adaptml import logs

log = logging.getLogger("local.scheduler")


def main() -> None:
    """Ticks until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m local.scheduler", description="Ticks for the reconciler.")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between ticks (default: %(default)s)")
    parser.add_argument("--sweep-every", type=int, default=6, help="every so many ticks the bucket is compared, too")
    options = parser.parse_args()
    logs.configure()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    publisher = pubsub_v1.PublisherClient()
    tick = 0
    while not stop.wait(options.every):
        tick += 1
        body = {"sweep_drops": True} if tick % options.sweep_every == 0 else {}
        try:
            publisher.publish(options.topic, json.dumps(body).encode()).result(timeout=10)
        except (GoogleAPICallError, RetryError, TimeoutError) as error:
            log.warning("tick was not published: %s", type(error).__name__)


if __name__ == "__main__":
    main()
