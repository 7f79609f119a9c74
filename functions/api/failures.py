"""From the project's own problems to answers in OpenAI's form."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from google.api_core.exceptions import GoogleAPICallError, RetryError
from google.auth.exceptions import TransportError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute

from adaptml.lifecycle import Lost
from schemas.api import Error, Failure
from schemas.errors import Problem, Refused, problem

log = logging.getLogger(__name__)

STATUS: dict[str, int] = {
    "unauthenticated": 401,
    "not_a_member": 403,
    "read_only": 403,
    "unknown_path": 404,
    "unknown_run": 404,
    "unknown_file": 404,
    "unknown_model": 404,
    "unknown_adapter": 404,
    "unknown_version": 404,
    "method_not_allowed": 405,
    "idempotency_key_reused": 409,
    "already_ended": 409,
    "nothing_to_resume": 409,
    "checkpoint_gone": 409,
    "version_not_ready": 409,
    "not_promotable": 409,
    "nothing_to_roll_back": 409,
    "file_too_large": 413,
    "manifest_too_large": 413,
    "internal_error": 500,
    "unavailable": 503,
}
"""Code → HTTP status; all others are 400."""

TYPES: dict[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    500: "api_error",
    503: "api_error",
}
"""HTTP status → OpenAI's type; all others are invalid_request_error."""


def failure(problems: Sequence[Problem]) -> JSONResponse:
    """The answer that says what is wrong: the first problem, and all of them in `details`."""
    first = problems[0]
    status = STATUS.get(first.code, 400)
    error = Error(
        message=str(first).split("\n")[0].removesuffix(f" [{first.code}]"),
        type=TYPES.get(status, "invalid_request_error"),
        param=first.field.removeprefix("/").replace("/", ".") if first.field else None,
        code=first.code,
        hint=first.hint,
        details=list(problems),
    )
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return JSONResponse(Failure(error=error).model_dump(mode="json"), status, headers)


def install(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Makes every failure of the app, whose routes these are, one of these."""

    @app.exception_handler(Refused)
    def refused(_: Request, error: Refused) -> JSONResponse:
        return failure(error.problems)

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return failure([_of_parameter(one) for one in error.errors()])

    @app.exception_handler(HTTPException)
    def of_http(request: Request, error: HTTPException) -> JSONResponse:
        answer = failure([_of_status(request, error)])
        answer.headers.update(error.headers or {})
        if error.status_code == 405:
            answer.headers["Allow"] = ", ".join(_methods(routes, request.url.path))
        return answer

    @app.exception_handler(GoogleAPICallError)
    @app.exception_handler(RetryError)
    @app.exception_handler(TransportError)
    @app.exception_handler(Lost)
    def unanswered(_: Request, error: Exception) -> JSONResponse:
        log.error("a service did not answer the API: %s", type(error).__name__)
        return failure([problem("unavailable", what="a service that is needed")])

    @app.exception_handler(Exception)
    def broken(_: Request, error: Exception) -> JSONResponse:
        log.error("the API failed", exc_info=error)
        return failure([problem("internal_error")])


def _methods(routes: Sequence[BaseRoute], path: str) -> list[str]:
    """All that are possible there; the router names those of one of its routes alone."""
    there = [route for route in routes if isinstance(route, APIRoute) and route.path_regex.match(path)]
    return sorted({method for route in there for method in route.methods or ()})


def _of_parameter(error: Any) -> Problem:
    """Where and why, never what was sent."""
    place = [str(part) for part in error["loc"]]
    name = ".".join(place[1:]) or place[0]
    return problem("invalid_parameter", field="/" + "/".join(place[1:]), detail=f"{name}: {error['msg']}")


def _of_status(request: Request, error: HTTPException) -> Problem:
    path = request.url.path
    if error.status_code == 404:
        return problem("unknown_path", path=path)
    if error.status_code == 405:
        return problem("method_not_allowed", method=request.method, path=path)
    return problem("invalid_parameter", detail=str(error.detail))
