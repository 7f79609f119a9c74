"""The API put together, with its description and the page that shows it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from starlette.types import Receive, Scope, Send

from functions.api import adapters, failures, files, jobs, models, runs
from schemas.api import Failure, JobAsked
from schemas.manifest import Manifest

DESCRIPTION = """\
Fine-tuning as a service. `/v1/files`, `/v1/fine_tuning/jobs` and `/v1/models` are OpenAI's: its clients work as they
are, with `base_url` set to this API. `/v1/runs`, `/v1/estimates` and `/v1/adapters` say what OpenAI has no words for.

A run that is asked for here is one like any other: what was dropped into the bucket or asked for by a message is listed
here, too, and what is wrong with it is said by the same codes.
"""
PARTS = (files.routes, jobs.routes, runs.routes, adapters.routes, models.routes)
_REFERENCE = "#/components/schemas/Asked{model}"


def build() -> FastAPI:
    """The application. Nothing is asked of any service yet."""
    app: FastAPI = FastAPIOffline(
        title="AdaptML",
        version="1",
        description=DESCRIPTION,
        redoc_url=None,
        separate_input_output_schemas=False,
        generate_unique_id_function=_operation,
        responses={
            "4XX": {"model": Failure, "description": "What is wrong with the request"},
            "5XX": {"model": Failure, "description": "What is wrong here"},
        },
    )
    for part in PARTS:
        app.include_router(part)
    failures.install(app, [route for part in PARTS for route in part.routes])
    _describe_manifests(app)
    return app


def _operation(route: APIRoute) -> str:
    return "_".join([*(str(tag).replace(" ", "_").replace("-", "_") for tag in route.tags), route.name])


def _describe_manifests(app: FastAPI) -> None:
    """Bodies that the manifest's reader reads are described by its own model."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schemas = described()["components"]["schemas"]
            for name, model in (("ManifestAsked", Manifest), ("JobAsked", JobAsked)):
                schema = model.model_json_schema(ref_template=_REFERENCE)
                schemas |= {f"Asked{part}": inner for part, inner in schema.pop("$defs", {}).items()}
                schemas[name] = schema
            schemas["ManifestAsked"]["required"].remove("name")
        return described()

    app.openapi = openapi  # type: ignore[method-assign]


class Quiet:
    """The application for a server. What broke it was logged and answered when it comes here; a server would log it
    once more, with texts that may quote what was in the data."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        try:
            await self.app(scope, receive, send)
        except Exception:
            if scope["type"] != "http":
                raise


APP = Quiet(build())
