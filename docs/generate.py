"""The documents that are made from the code, so that they cannot say anything else than it does.

`python -m docs.generate` writes them; with `--check` it fails when one is stale.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from schemas.errors import CODES
from schemas.manifest import Manifest
from schemas.messages import TOPIC_MESSAGES, avro_schema
from schemas.run_states import TRANSITIONS
from schemas.topology import TOPOLOGY, dead_letter_topic

FOLDER = Path(__file__).resolve().parent
_NOTE = "<!-- Made by `make docs`; changes here are lost. -->\n\n"
_AREAS = {
    "manifest": "The manifest",
    "request": "Requests from other systems",
    "data": "The data",
    "plan": "The plan: memory, time, cost",
    "run": "The run",
}


def documents() -> dict[str, str]:
    """Name → text of every generated document."""
    return {"errors.md": errors(), "manifest.md": manifest(), "messages.md": messages(), "states.md": states()}


def errors() -> str:
    """Every error code."""
    parts = [
        "# Error codes\n\nA code is stable: match on it. It stands in `error.code` of the run document, in "
        "`STATUS.json` and in `REJECTED.md`, with file, line and field where there are any. `{…}` is filled in.\n"
    ]
    for area, codes in groupby(CODES.items(), key=lambda item: item[1].area):
        parts.append(f"\n## {_AREAS[area]}\n\n| code | what it says | what to do |\n| --- | --- | --- |\n")
        for name, code in codes:
            mark = "" if code.severity == "error" else " (warning)"
            parts.append(f"| `{name}`{mark} | {_cell(code.message)} | {_cell(code.hint)} |\n")
    return _NOTE + "".join(parts)


def manifest() -> str:
    """Every field of the manifest."""
    schema = Manifest.model_json_schema()
    text = (
        "# The manifest\n\n`manifest.yaml`, `manifest.yml` or `manifest.json` in the drop's folder, 64 KiB at most. "
        "Only `base_model` and `dataset.train` are required. Unknown fields, anchors, aliases, tags and duplicate keys "
        "are refused.\n\n| field | type | default | |\n| --- | --- | --- | --- |\n"
    )
    rows = (f"| `{name}` | {kind} | {default} | {_cell(about)} |\n" for name, kind, default, about in _fields(schema))
    return _NOTE + text + "".join(rows)


def messages() -> str:
    """Topics and the schemas that Pub/Sub enforces on them."""
    limit = TOPOLOGY.delivery.max_delivery_attempts
    parts = [
        "# Topics and messages\n\nBodies are JSON. A topic with a schema refuses everything else when it is published. "
        f"A message that a function refuses {limit} times goes to the topic's dead-letter topic.\n"
    ]
    for name, topic in TOPOLOGY.topics.items():
        parts.append(f"\n## `{name}`\n\nPublished by {topic.publisher}; dead letters: `{dead_letter_topic(name)}`.\n")
        if topic.schema_name is not None:
            parts.append(f"\n```json\n{avro_schema(TOPIC_MESSAGES[topic.schema_name])}\n```\n")
    return _NOTE + "".join(parts)


def states() -> str:
    """The states of a run and every change between them."""
    rows = (
        f"| `{state}` | {', '.join(f'`{after}`' for after in sorted(afters)) or 'final'} |\n"
        for state, afters in TRANSITIONS.items()
    )
    return (
        f"{_NOTE}# Run states\n\nEverything that is not in this table is refused.\n\n| from | to |\n| --- | --- |\n"
        + "".join(rows)
    )


def _fields(schema: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """(name, type, default, description) of each field, those of parts with their part's name."""

    def walk(part: dict[str, Any], prefix: str) -> Iterator[tuple[str, str, str, str]]:
        for name, field in part["properties"].items():
            reference = field.get("$ref") or next((o["$ref"] for o in field.get("anyOf", []) if "$ref" in o), None)
            if reference is None:
                default = f"`{json.dumps(field['default'])}`" if field.get("default") is not None else "–"
                required = name in part.get("required", []) and prefix + name != "name"
                yield prefix + name, _kind(field), "required" if required else default, field.get("description", "")
            else:
                yield from walk(schema["$defs"][reference.rsplit("/", 1)[-1]], f"{prefix}{name}.")

    return walk(schema, "")


def _kind(field: dict[str, Any]) -> str:
    """A JSON Schema type in words, with its bounds."""
    if "anyOf" in field:
        return " or ".join(_kind(option) for option in field["anyOf"] if option.get("type") != "null")
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field.get("type") == "array":
        return f"list of {_kind(field['items'])}"
    if field.get("type") == "object":
        return f"text → {_kind(field['additionalProperties'])}"
    kind = {"string": "text", "boolean": "true or false"}.get(field["type"], field["type"])
    bounds = [
        f"{sign} {field[key]}"
        for key, sign in (("exclusiveMinimum", ">"), ("minimum", "≥"), ("exclusiveMaximum", "<"), ("maximum", "≤"))
        if key in field
    ]
    return " ".join([kind, ", ".join(bounds)]).strip()


def _cell(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|").replace("{{", "{").replace("}}", "}")


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m docs.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a document is stale")
    check = parser.parse_args().check
    stale = []
    for name, text in documents().items():
        path = FOLDER / name
        if not path.is_file() or path.read_text("utf-8") != text:
            stale.append(name)
            if not check:
                path.write_text(text, encoding="utf-8")
    if check and stale:
        print(f"stale: {', '.join(f'docs/{name}' for name in stale)}; run: make docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
