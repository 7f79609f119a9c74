"""What the commands share: the deployment that the environment names, a tenant, exit statuses, JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from schemas.errors import Problem, Refused
from schemas.manifest import is_drop_name
from schemas.text import printable

if TYPE_CHECKING:
    from adaptml.services import Services
    from schemas.run import Run

DONE, FAILED, USAGE, UNDER_WAY = 0, 1, 2, 3
"""Exit statuses. FAILED: refused, failed, or a service that did not answer. UNDER_WAY: it takes longer than was waited
for."""

_SETTINGS = ("GOOGLE_CLOUD_PROJECT", "ADAPTML_DROPS_BUCKET", "ADAPTML_ARTIFACTS_BUCKET")

out = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def _named(tenant: str) -> str:
    if not is_drop_name(tenant):
        raise typer.BadParameter("a tenant is the name of a folder of the drops bucket")
    return tenant


TenantOption = Annotated[
    str,
    typer.Option(
        "--tenant", "-t", envvar="ADAPTML_TENANT", callback=_named, help="Whose: the first folder in the drops bucket."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON for programs, and nothing else.")]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, or a folder's or adapter's name: then its newest run.")
]


@contextmanager
def connected() -> Iterator[Services]:
    """The services that the environment names; what is missing is said in a line."""
    try:
        from google.api_core.exceptions import GoogleAPICallError, RetryError
        from google.auth.exceptions import GoogleAuthError

        from adaptml.services import Services
    except ImportError as missing:
        _say(f"{missing.name} is missing; install it: pip install 'adaptml[cloud]'")
        raise typer.Exit(USAGE) from None
    try:
        services = Services.from_env()
    except KeyError:
        unset = ", ".join(name for name in _SETTINGS if name not in os.environ)
        _say(f"not set: {unset}; which deployment? The local cloud's settings: . .local/env")
        raise typer.Exit(USAGE) from None
    except GoogleAuthError as refused:
        _say(f"no credentials: {type(refused).__name__}; try: gcloud auth application-default login")
        raise typer.Exit(USAGE) from None
    try:
        yield services
    except Refused as refused:
        for found in refused.problems:
            explain(found)
        raise typer.Exit(FAILED) from None
    except (GoogleAPICallError, RetryError, GoogleAuthError, TimeoutError) as error:
        _say(f"a service did not answer as it should: {type(error).__name__}")
        raise typer.Exit(FAILED) from None


def explain(found: Problem) -> None:
    """A problem, with what to do, on standard error."""
    errors.print(Text.assemble((f"{found.message} [{found.code}]", "red"), f"\n{found.hint}"), soft_wrap=True)


def run_named(services: Services, tenant: str, name: str) -> Run:
    """The tenant's run of that id, or the newest of the folder or adapter of that name. Ends the command where there
    is none."""
    from schemas.layout import is_run_id

    run = services.runs.find(name) if is_run_id(name) else None
    if run is None:
        run = services.runs.queries.last_of_folder(tenant, name, before=services.now())
    if run is None or run.tenant != tenant:
        _say(f"{printable(tenant)} has no run {printable(name)}; `adaptml runs` lists them")
        raise typer.Exit(FAILED)
    return run


def print_json(value: Any) -> None:
    """One document, its keys as they are."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_lines(values: Sequence[Any]) -> None:
    """A line of JSON for each."""
    sys.stdout.writelines(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


def _say(text: str) -> None:
    errors.print(text, markup=False, soft_wrap=True)
