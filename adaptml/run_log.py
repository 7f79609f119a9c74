"""What functions and trainer logged of a run: from Cloud Logging, or from a local cloud's files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.run import Run
from schemas.text import printable

LOCAL_LOGS = "ADAPTML_LOCAL_LOGS"
"""The folder of a local cloud's logs; without it Cloud Logging is asked."""
LOG_VIEW = "ADAPTML_LOG_VIEW"
"""The view of Cloud Logging that may be read; without it the project, as whoever may read all of its logs does."""
CLOUD_LOGGING = "https://logging.googleapis.com/v2/entries:list"
ENTRIES_AT_ONCE = 1000
READ_WITHIN_S = 30.0
_MAY_READ = "; it takes roles/logging.viewer on the project, or roles/logging.viewAccessor on the view"


class Unread(Exception):  # noqa: N818 - says what happened
    """Raised where the log could not be read; says why."""


@dataclass(frozen=True)
class Line:
    """One line of a log, or one change of state."""

    time: str
    """As ISO 8601 writes it; "" where the line has none."""
    severity: str
    where: str
    message: str


def read(project: str, run: Run, at_most: int) -> list[Line]:
    """The last lines, `at_most` of Cloud Logging's, oldest first.

    Raises Unread, and google.auth.exceptions.GoogleAuthError without credentials.
    """
    folder = os.environ.get(LOCAL_LOGS)
    found = _local(Path(folder), run) if folder else _of_cloud_logging(project, run, at_most)
    return sorted(found, key=lambda line: line.time)


def _local(folder: Path, run: Run) -> Iterator[Line]:
    for path in sorted(folder.glob("*.log")):
        with path.open(encoding="utf-8", errors="replace") as written:
            yield from of_run(written, path.stem, run.run_id)
    if run.execution is not None and (path := folder / "executions" / f"{run.execution}.log").is_file():
        with path.open(encoding="utf-8", errors="replace") as written:
            yield from whole(written, "trainer")


def of_run(lines: Iterable[str], where: str, run_id: str) -> Iterator[Line]:
    """Those lines of a function's log that are about the run. Pure."""
    for text in lines:
        if run_id in text and (line := _parsed(text, where)) is not None:
            yield line


def whole(lines: Iterable[str], where: str) -> Iterator[Line]:
    """All of an execution's log; what is not in our form follows the line before it. Pure."""
    time = ""
    for text in lines:
        line = _parsed(text, where)
        if line is not None:
            time = line.time
        yield line or Line(time, "DEFAULT", where, text.rstrip("\n"))


def _parsed(text: str, where: str) -> Line | None:
    try:
        entry = json.loads(text)
    except ValueError:
        return None
    if not isinstance(entry, dict) or "message" not in entry:
        return None
    message = "\n".join(str(entry[key]) for key in ("message", "exception") if key in entry)
    return Line(str(entry.get("time", "")), str(entry.get("severity", "DEFAULT")), where, message)


def _of_cloud_logging(project: str, run: Run, at_most: int) -> Iterator[Line]:
    """One method of one API: by the session that Google's clients use, without a client for it."""
    import google.auth
    from google.auth.transport.requests import AuthorizedSession
    from requests.exceptions import RequestException

    credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/logging.read"])
    asked: dict[str, Any] = {
        "resourceNames": [os.environ.get(LOG_VIEW) or f"projects/{project}"],
        "filter": filter_of(run),
        "orderBy": "timestamp desc",
    }
    left, token = at_most, ""
    with AuthorizedSession(credentials) as session:
        while left > 0:
            page = asked | {"pageSize": min(left, ENTRIES_AT_ONCE), "pageToken": token}
            try:
                answer = session.post(CLOUD_LOGGING, json=page, timeout=READ_WITHIN_S)
                said = answer.json()
            except (RequestException, ValueError) as error:
                raise Unread(f"Cloud Logging did not answer as it should: {type(error).__name__}") from error
            if answer.status_code != 200:
                why = printable(str(said.get("error", {}).get("message", said)), 400)
                raise Unread(f"Cloud Logging: {why}{_MAY_READ if answer.status_code == 403 else ''}")
            entries = said.get("entries", [])
            yield from map(of_entry, entries[:left])
            left, token = left - len(entries), said.get("nextPageToken", "")
            if not token:
                return


def filter_of(run: Run) -> str:
    """What Cloud Logging is asked for: lines since the run began that name it, and all of its last execution. Pure."""
    of_it = f'jsonPayload.run_id="{run.run_id}" OR jsonPayload.message:"{run.run_id}"'
    if run.execution is not None:
        of_it += f' OR labels."run.googleapis.com/execution_name"="{run.execution}"'
    return f'timestamp>="{run.created_at.isoformat()}" AND ({of_it})'


def of_entry(entry: dict[str, Any]) -> Line:
    """A log entry as Cloud Logging returns it. Pure."""
    payload, resource = entry.get("jsonPayload") or {}, (entry.get("resource") or {}).get("labels") or {}
    message = "\n".join(str(payload[key]) for key in ("message", "exception") if key in payload)
    where = resource.get("service_name") or ("trainer" if "job_name" in resource else "")
    said = message or str(entry.get("textPayload", ""))
    return Line(str(entry.get("timestamp", "")), str(entry.get("severity", "DEFAULT")), str(where), said)
