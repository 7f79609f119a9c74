"""`python -m tests.terraform.generate`: what terraform/ has of the code, and what the documents have of terraform/."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from schemas.messages import TOPIC_MESSAGES, Message, avro_schema
from tests.terraform.alerts import OPERATIONS, with_alerts
from tests.terraform.rights import SECURITY, with_table
from tests.terraform.sources import TERRAFORM


def _avro(message: type[Message]) -> str:
    return avro_schema(message) + "\n"


GENERATED: dict[Path, Callable[[], str]] = {
    **{TERRAFORM / "avro" / f"{name}.avsc": partial(_avro, message) for name, message in TOPIC_MESSAGES.items()},
    SECURITY: with_table,
    OPERATIONS: with_alerts,
}
"""File → what it should hold."""


def main() -> int:
    """Returns the exit status."""
    for path, text in GENERATED.items():
        path.write_text(text(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
