"""From what a request says to the run that it asks for: one like any other, begun at once so that its id is there.

What is wrong with a manifest is said by the manifest's own reader, here as for every drop.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable
from typing import Any

from google.api_core.exceptions import GoogleAPICallError, RetryError

from adaptml import lifecycle, protocol, tracing
from adaptml.services import Services
from adaptml.tracing import Cause
from functions import commands, intake, run_requests
from functions.api import files
from functions.api.callers import Caller
from schemas import layout, yaml_strict
from schemas.aliases import names_in
from schemas.errors import Refused, problem
from schemas.messages import Message, RunCommand, RunRequest
from schemas.run import Run
from schemas.run_states import RunState

log = logging.getLogger(__name__)

PUBLISHER = "api"
_BY_HTTP = Cause(attributes={"faas.trigger": "http"})
_NAMING_FILES = ("dataset.train", "dataset.validation")
Resolve = Callable[[str], str]


def ask(services: Services, caller: Caller, body: bytes, key: str | None, **settings: Any) -> Run:
    """The run that a manifest in a request asks for; `settings` are laid over it. Raises Refused."""
    manifest = manifest_text(body, lambda name: _in_tenants_folder(services, caller.tenant, name), settings)
    return _take(services, _request(caller, key, manifest=manifest))


def ask_by_uri(services: Services, caller: Caller, manifest_uri: str, key: str | None) -> Run:
    """The run that a manifest in the tenant's folder asks for. Raises Refused."""
    return _take(services, _request(caller, key, manifest_uri=manifest_uri))


def manifest_text(body: bytes, resolve: Resolve, settings: dict[str, Any]) -> str:
    """The manifest as text that is the same for the same wish, its files named by where they lie. Raises Refused."""
    value, _ = yaml_strict.load(body, file="request")
    if isinstance(value, dict):
        value = _named("", value, resolve)
        if isinstance(value.get("dataset"), dict):
            value["dataset"] = _named("dataset", value["dataset"], resolve)
        value |= settings
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _named(section: str, settings: dict[str, Any], resolve: Resolve) -> dict[str, Any]:
    """The settings of a section, with those that name files, whatever tool's name they have, resolved."""
    names = names_in(section)

    def of(name: str, value: Any) -> Any:
        if name in names and names[name].target in _NAMING_FILES:
            return [_resolved(one, resolve) for one in value] if isinstance(value, list) else _resolved(value, resolve)
        return value

    return {name: of(name, value) for name, value in settings.items()}


def _resolved(value: Any, resolve: Resolve) -> Any:
    return resolve(value) if isinstance(value, str) else value


def _in_tenants_folder(services: Services, tenant: str, name: str) -> str:
    """A file's id, its URI, or its name below the tenant's folder → that name. Raises Refused."""
    if layout.is_file_id(name):
        return files.find(services, tenant, name, "/training_file").name.removeprefix(f"{tenant}/")
    if name.startswith("gs://"):
        if not run_requests.is_own(name, tenant, services.settings.drops_bucket):
            raise Refused([problem("foreign_object", uri=name, tenant=tenant)])
        return layout.parse_uri(name)[1].removeprefix(f"{tenant}/")
    return name


def _request(caller: Caller, key: str | None, *, manifest: str = "", manifest_uri: str = "") -> RunRequest:
    request_id = key or f"api-{secrets.token_hex(6)}"
    return RunRequest(
        request_id=request_id, tenant=caller.tenant, manifest_uri=manifest_uri, manifest=manifest, dataset_uris=[]
    )


def _take(services: Services, request: RunRequest) -> Run:
    found = run_requests.objection(request, services.settings.drops_bucket)
    if found is not None:
        raise Refused([found])
    with tracing.call(_BY_HTTP), tracing.span("take in request"):
        run = run_requests.run_of(services, request, usable=True, publisher=PUBLISHER)
        present = services.runs.find(run.run_id)
        if present is None:
            # Refused here, no run is made: nobody would look for the reasons there who has them in the answer.
            manifest, _ = intake.manifest_of(services, run)
            present = intake.begin(services, run.model_copy(update={"manifest": manifest, "name": manifest.name}))
        if _asked(present) != _asked(run):
            raise Refused([problem("idempotency_key_reused", run_id=present.run_id)])
        if present.state is RunState.RECEIVED:
            _publish(services, "run-requests", request, present)
    return present


def _asked(run: Run) -> tuple[object, ...]:
    return run.source.inline_manifest, run.source.manifest_object, run.source.dataset_uris


def cancel(services: Services, run: Run) -> Run:
    """Ends a run, at once or as soon as its execution sees it. Asked for again, it does nothing. Raises Refused."""
    if run.state.is_final and run.state is not RunState.CANCELLED:
        raise Refused([problem("already_ended", run_id=run.run_id, state=run.state)])
    with tracing.call(_BY_HTTP), tracing.of_run(run, "take in command"):
        return lifecycle.change(services, run.run_id, protocol.request_cancel) or services.runs.get(run.run_id)


def resume(services: Services, run: Run, key: str | None) -> Run:
    """The run that goes on where this one ended. Raises Refused."""
    if why := intake.not_resumable(run):
        raise Refused([problem("nothing_to_resume", why=why)])
    command_id = key or secrets.token_hex(12)
    command = RunCommand(command_id=command_id, tenant=run.tenant, run_id=run.run_id, command="resume")
    with tracing.call(_BY_HTTP), tracing.span("take in command"):
        tracing.link(run)
        resumed = intake.begin(services, commands.resumed_by(services, run, command_id))
        if resumed.source.resumes != run.run_id:
            raise Refused([problem("idempotency_key_reused", run_id=resumed.run_id)])
        if resumed.state is RunState.RECEIVED:
            _publish(services, "run-commands", command, resumed)
    return resumed


def _publish(services: Services, topic: str, message: Message, run: Run) -> None:
    """For the function that does the work. The run is there: where this fails, the reconciler goes on with it."""
    try:
        services.bus.publish(topic, message)
    except (GoogleAPICallError, RetryError, TimeoutError) as error:
        log.warning(
            "run %s is left to the reconciler: %s", run.run_id, type(error).__name__, extra={"run_id": run.run_id}
        )
