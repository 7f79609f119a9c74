"""`adaptml doctor`: whether the deployment that the environment names can do what it is for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

import typer
from rich.text import Text

from adaptml.commands.deployment import DONE, FAILED, JsonOption, connected, out, print_lines
from schemas import layout
from schemas.text import printable
from schemas.topology import TOPOLOGY

if TYPE_CHECKING:
    from adaptml.services import Services

Verdict = Literal["good", "look", "bad"]
_SIGNS: dict[Verdict, tuple[str, str]] = {"good": ("✓", "green"), "look": ("!", "yellow"), "bad": ("✗", "bold red")}
BEHIND_S = 300
"""After this long an announcement should have been made by the reconciler, which ticks each minute."""


@dataclass(frozen=True)
class Finding:
    """What came of one check."""

    what: str
    verdict: Verdict
    said: str
    hint: str = ""


def doctor(as_json: JsonOption = False) -> None:
    """Check a deployment: services, buckets, topics, job, base models, and whether anything is stuck.

    Reads only. Exit status: 0 nothing is broken; 1 something is, and what to do is said; 2 wrong use.
    """
    findings: list[Finding] = []
    with connected() as services:
        for finding in examined(services):
            findings.append(finding)
            if not as_json:
                _show(finding)
    if as_json:
        print_lines([asdict(finding) for finding in findings])
    raise typer.Exit(FAILED if any(finding.verdict == "bad" for finding in findings) else DONE)


def examined(services: Services) -> Iterator[Finding]:
    """One check after the other; none keeps the next from being made."""
    from google.api_core.exceptions import GoogleAPICallError, RetryError

    for what, check, hint in _CHECKS:
        try:
            yield check(services)
        except (GoogleAPICallError, RetryError, TimeoutError) as error:
            said = f"{type(error).__name__}: {printable(getattr(error, 'message', ''), 200)}"
            yield Finding(what, "bad", said, hint)


def _database(services: Services) -> Finding:
    if not services.runs.is_empty():
        return Finding("Firestore", "good", "answers")
    if any(services.objects.list(services.settings.artifacts_bucket, layout.AUDIT)):
        said = "there are no runs, but an audit trail of some"
        return Finding("Firestore", "bad", said, "Runs were lost: docs/operations.md, `adaptml rebuild`.")
    return Finding("Firestore", "good", "answers; there are no runs yet")


def _drops(services: Services) -> Finding:
    bucket = services.settings.drops_bucket
    next(services.objects.list(bucket), None)
    return Finding("drops bucket", "good", f"gs://{bucket} can be listed")


def _artifacts(services: Services) -> Finding:
    bucket = services.settings.artifacts_bucket
    next(services.objects.list(bucket), None)
    return Finding("artifacts bucket", "good", f"gs://{bucket} can be listed")


def _models(services: Services) -> Finding:
    from adaptml.publishing import CHECKSUMS
    from schemas.catalogue import CATALOGUE

    bucket = services.settings.models_bucket
    if bucket is None:
        hint = "Set ADAPTML_MODELS_BUCKET: without it tokens are estimated from characters."
        return Finding("base models", "look", "no models bucket is named", hint)
    names = {item.name for item in services.objects.list(bucket)}
    rows = list(CATALOGUE.values())
    ready = [row.id for row in rows if f"{row.folder}/{CHECKSUMS}" in names]
    ready += [
        f"{row.id} (tokenizer only)" for row in rows if f"{row.folder}/tokenizer.json" in names and row.id not in ready
    ]
    if not ready:
        hint = "Prepare one: gcloud run jobs execute adaptml-prepare (docs/deploy.md)."
        return Finding("base models", "bad", f"gs://{bucket} holds none", hint)
    return Finding("base models", "good", ", ".join(ready))


def _topics(services: Services) -> Finding:
    missing = [topic for topic in TOPOLOGY.topics if not services.bus.has_topic(topic)]
    if missing:
        hint = "Apply terraform/ again; locally: make down, make up."
        return Finding("topics", "bad", f"missing: {', '.join(missing)}", hint)
    return Finding("topics", "good", ", ".join(TOPOLOGY.topics))


def _job(services: Services) -> Finding:
    count = sum(1 for _ in services.jobs.listed())
    return Finding("trainer's job", "good", f"{services.settings.trainer_job}, {count} executions are listed")


def _gpus(services: Services) -> Finding:
    from adaptml import quota

    said = []
    for accelerator in quota.ACCELERATORS:
        pool = services.runs.ledger.pool(accelerator)
        of = pool.quota if pool.quota is not None else services.settings.gpu_quota
        said.append(f"{len(pool.slots)} of {of} {accelerator} in use")
    waiting = len(services.runs.queries.waiting(at_most=50))
    return Finding("GPUs", "good", f"{', '.join(said)}; {waiting} tenants wait")


def _reconciler(services: Services) -> Finding:
    late = services.now() - timedelta(seconds=BEHIND_S)
    behind = [run.run_id for run in services.runs.queries.with_pending_outbox() if run.updated_at < late]
    hung = services.now() - timedelta(seconds=2 * services.settings.hung_after_s)
    silent = [run.run_id for run in services.runs.queries.attempts() if (run.heartbeat_at or run.state_since) < hung]
    if behind or silent:
        hint = "Is the function reconcile called each minute, and what does it log? docs/operations.md."
        return Finding("reconciler", "bad", f"left unfinished: {', '.join([*behind, *silent][:5])}", hint)
    return Finding("reconciler", "good", "nothing is left unfinished")


def _dead_letters(services: Services) -> Finding:
    open_ = [letter for letter in services.runs.dead_letters.all() if letter.replayed_at is None]
    if open_:
        hint = "`adaptml dead-letters` lists them with their reasons."
        return Finding("dead letters", "look", f"{len(open_)} were not published again", hint)
    return Finding("dead letters", "good", "none")


_RIGHTS = "Do you have the right to read it (docs/security.md), and is the setting that names it right?"
_CHECKS: list[tuple[str, Callable[[Services], Finding], str]] = [
    ("Firestore", _database, _RIGHTS),
    ("drops bucket", _drops, _RIGHTS),
    ("artifacts bucket", _artifacts, _RIGHTS),
    ("base models", _models, _RIGHTS),
    ("topics", _topics, _RIGHTS),
    ("trainer's job", _job, "ADAPTML_REGION and ADAPTML_TRAINER_JOB name it. " + _RIGHTS),
    ("GPUs", _gpus, _RIGHTS),
    ("reconciler", _reconciler, _RIGHTS),
    ("dead letters", _dead_letters, _RIGHTS),
]


def _show(finding: Finding) -> None:
    sign, style = _SIGNS[finding.verdict]
    said = Text.assemble((f"{sign} ", style), (f"{finding.what:<17}", "bold"), finding.said)
    if finding.hint:
        said.append(f"\n  {finding.hint}", style="dim")
    out.print(said, soft_wrap=True)
