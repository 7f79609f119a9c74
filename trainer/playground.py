"""`python -m trainer.playground`: answers of base model and adapter side by side, over HTTP, for the dashboard.

A service of its own in the trainer's image, as only that has torch; it scales to zero. Who may call it is Cloud Run's
affair: the dashboard's account alone. It keeps and logs nothing of what it is asked.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import tempfile
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from adaptml import logs
from adaptml.services import Services
from adaptml.tokens.chat import Untemplatable
from schemas.errors import Refused
from schemas.playground import Question

if TYPE_CHECKING:
    from trainer.side_by_side import SideBySide

log = logging.getLogger(__name__)

LONGEST_BODY = 64 * 1024
_one_at_a_time = threading.Lock()


@functools.cache
def _models() -> SideBySide:
    """torch comes with the first question: until then the service costs next to nothing."""
    from trainer.side_by_side import SideBySide

    services = Services.from_env()
    settings = services.settings
    return SideBySide(
        services.objects,
        settings.artifacts_bucket,
        settings.models_bucket,
        Path(tempfile.mkdtemp(prefix="adaptml-adapters-")),
    )


def answer(body: bytes) -> tuple[HTTPStatus, dict[str, Any]]:
    """(status, what to say) for a question."""
    try:
        asked = Question.model_validate_json(body)
    except ValidationError as error:
        wrong = ", ".join(sorted({".".join(map(str, e["loc"])) or "body" for e in error.errors()}))
        return HTTPStatus.BAD_REQUEST, {"error": f"The question is not as it should be: {wrong}."}
    with _one_at_a_time:
        try:
            return HTTPStatus.OK, _models().ask(asked).model_dump()
        except Refused as refused:
            first = refused.problems[0]
            return HTTPStatus.CONFLICT, {"error": f"{first.message}. {first.hint}"}
        except Untemplatable:
            return HTTPStatus.CONFLICT, {
                "error": "The model's chat template does not take this; leave the system prompt away."
            }


class Handler(BaseHTTPRequestHandler):
    """POST /answer; anything else says that the service is there."""

    def do_GET(self) -> None:
        """For whoever looks whether it lives."""
        self._say(HTTPStatus.OK, {"ok": True})

    def do_POST(self) -> None:
        """A question."""
        size = int(self.headers.get("Content-Length") or 0)
        if self.path != "/answer" or not 0 < size <= LONGEST_BODY:
            self._say(HTTPStatus.BAD_REQUEST, {"error": "Questions go to /answer and have 64 kB at most."})
            return
        try:
            self._say(*answer(self.rfile.read(size)))
        except Exception as error:  # whatever it was, the next question is answered
            log.exception("a question was not answered: %s", type(error).__name__)
            self._say(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "The models could not answer; the log says more."})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Requests are in Cloud Run's own log."""

    def _say(self, status: HTTPStatus, said: dict[str, Any]) -> None:
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serves until it is told to stop."""
    logs.configure()
    address = (os.environ.get("ADAPTML_PLAYGROUND_ADDRESS", "127.0.0.1"), int(os.environ.get("PORT", "8080")))
    ThreadingHTTPServer(address, Handler).serve_forever()


if __name__ == "__main__":
    main()
