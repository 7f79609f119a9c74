"""`python -m tests.terraform.generate`: what terraform/ has of the code: the Avro schemas of messages."""

from __future__ import annotations

import sys

from schemas.messages import TOPIC_MESSAGES, avro_schema
from tests.terraform.sources import TERRAFORM

AVRO = {TERRAFORM / "avro" / f"{name}.avsc": avro_schema(message) for name, message in TOPIC_MESSAGES.items()}


def main() -> int:
    """Returns the exit status."""
    for path, text in AVRO.items():
        path.write_text(text + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
