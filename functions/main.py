"""Entry points. Decode, call, done."""

from __future__ import annotations

import logging
import os

import functions_framework
import functions_framework.aio
from cloudevents.http import CloudEvent
from starlette.requests import Request
from starlette.types import ASGIApp

from adaptml import logs, tracing
from adaptml.services import Services
from functions import bucket_events, dead_letters, dispatcher, reconciler, run_requests
from functions import commands as run_commands
from functions.events import landed, pubsub_data, pubsub_message, traced
from schemas.messages import RunReady
from schemas.topology import tenant_of

logs.configure()
tracing.configure(os.environ.get("FUNCTION_TARGET", "functions"))
log = logging.getLogger(__name__)


@functions_framework.cloud_event
@traced
def intake(event: CloudEvent) -> None:
    """An object of the drops bucket was finalized."""
    if (found := landed(event)) is not None:
        bucket_events.take(Services.from_env(), found)


@functions_framework.cloud_event
@traced
def requests(event: CloudEvent) -> None:
    """Another system asks for a run."""
    services, message = Services.from_env(), pubsub_message(event)
    with dead_letters.noting(services, message):
        run_requests.take_request(services, message.body, only=tenant_of(message.topic))


@functions_framework.cloud_event
@traced
def commands(event: CloudEvent) -> None:
    """Another system ends a run or takes one up again."""
    services, message = Services.from_env(), pubsub_message(event)
    with dead_letters.noting(services, message):
        run_commands.take_command(services, message.body, only=tenant_of(message.topic))


@functions_framework.cloud_event
@traced
def dispatch(event: CloudEvent) -> None:
    """A run waits for a GPU, or one became free."""
    services, message = Services.from_env(), pubsub_message(event)
    with dead_letters.noting(services, message):
        log.info("woken by %s", dead_letters.readable(RunReady, message.body).run_id)
        dispatcher.fill(services)


@functions_framework.cloud_event
@traced
def reconcile(event: CloudEvent) -> None:
    """The scheduler ticked, or an execution ended."""
    reconciler.reconcile(Services.from_env(), reconciler.Wakeup.parse(pubsub_data(event)))


@functions_framework.cloud_event
@traced
def undelivered(event: CloudEvent) -> None:
    """A message was given up: it is on a dead-letter topic."""
    dead_letters.take(Services.from_env(), pubsub_message(event))


@functions_framework.aio.http
async def api(_: Request) -> ASGIApp:
    """Somebody asks over HTTP. An ASGI application is a response: it gets the request as it came."""
    from functions.api.app import APP  # FastAPI takes half a second, which only this function pays

    return APP
