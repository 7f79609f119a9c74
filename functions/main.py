"""Entry points. Decode, call, done."""

from __future__ import annotations

import functions_framework
from cloudevents.http import CloudEvent

from adaptml import logs
from adaptml.services import Services
from functions import dispatcher, reconciler, run_requests
from functions import intake as intake_function
from functions.events import pubsub_data
from schemas.layout import DropPath
from schemas.messages import RunReady

logs.configure()


@functions_framework.cloud_event
def intake(event: CloudEvent) -> None:
    """An object of the drops bucket was finalized."""
    dropped = DropPath.parse(event.data["bucket"], event.data["name"])
    if dropped is not None:
        intake_function.take_in(Services.from_env(), dropped, int(event.data["generation"]))


@functions_framework.cloud_event
def requests(event: CloudEvent) -> None:
    """Another system asks for a run."""
    run_requests.take_request(Services.from_env(), pubsub_data(event))


@functions_framework.cloud_event
def dispatch(event: CloudEvent) -> None:
    """A run is ready to be started."""
    dispatcher.dispatch(Services.from_env(), RunReady.model_validate_json(pubsub_data(event)))


@functions_framework.cloud_event
def reconcile(event: CloudEvent) -> None:
    """The scheduler ticked, or an execution ended."""
    reconciler.reconcile(Services.from_env(), reconciler.Wakeup.parse(pubsub_data(event)))
