"""The transcript in docs/api.md is what curl gets. With WRITE_TRANSCRIPT=1 in the environment it is written anew."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from schemas.run_states import RunState
from tests.cloud import MODEL, ROOT, TestCloud, chat_rows

DOCUMENT = ROOT / "docs" / "api.md"
BEGIN, END = "<!-- transcript -->\n", "<!-- end of transcript -->\n"
HEADER = '-H "Authorization: Bearer $ADAPTML_API_TOKEN"'

STEPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("$ADAPTML_API_URL/v1/files -F purpose=fine-tune -F file=@train.jsonl", ("id", "bytes", "filename", "uri")),
    (
        "$ADAPTML_API_URL/v1/runs -H 'Idempotency-Key: first-run' --data-binary @manifest.yaml",
        ("id", "state", "name"),
    ),
    ("$ADAPTML_API_URL/v1/runs/$RUN", ("state", "state_reason", "dataset.train_examples", "artifacts.version")),
    ("$ADAPTML_API_URL/v1/runs/$RUN/events?limit=1", ("data", "has_more", "last_id")),
    ("$ADAPTML_API_URL/v1/adapters/api-doc/aliases/prod --json '{}'", ("name", "last_version", "aliases")),
    ("$ADAPTML_API_URL/v1/adapters/api-doc/versions/prod", ("id", "promotable", "uri")),
    ("$ADAPTML_API_URL/v1/runs -d '{\"base_model\": \"gpt-4o\", \"dataset\": {\"train\": \"x.jsonl\"}}'", ("error",)),
)  # fmt: skip
"""What curl is called with, and what of the answer is shown."""


def test_the_transcript_is_what_curl_gets(cloud: TestCloud, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(chat_rows(12), "utf-8")
    said, seen = "", cloud.environment | {"RUN": ""}
    for arguments, shown in STEPS:
        command = f"curl -s {HEADER} {arguments}"
        if seen["RUN"]:
            cloud.wait(seen["RUN"], RunState.SUCCEEDED)
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=seen, check=True, capture_output=True, text=True, timeout=60
        )
        answer = json.loads(done.stdout)
        said += f"$ {command}\n"
        said += _told(answer, shown)
        if answer.get("object") == "file":
            text = f"name: api-doc\nbase_model: {MODEL}\ndataset: {{train: [{answer['id']}]}}\n"
            (tmp_path / "manifest.yaml").write_text(text, "utf-8")
            said += f"$ cat manifest.yaml\n{text.replace(answer['id'], 'file-…')}\n"
        if answer.get("object") == "run":
            seen["RUN"] = answer["id"]
    transcript = f"{BEGIN}```\n{said}```\n{END}"
    text = DOCUMENT.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    current = before + transcript + rest.partition(END)[2]
    if os.environ.get("WRITE_TRANSCRIPT"):
        DOCUMENT.write_text(current, "utf-8")
    assert DOCUMENT.read_text("utf-8") == current


def _told(answer: dict[str, Any], shown: tuple[str, ...]) -> str:
    """What is shown of an answer, with what differs from time to time masked."""
    kept = {name: _at(answer, name) for name in shown}
    assert None not in kept.values(), answer
    text = json.dumps(kept, indent=2, ensure_ascii=False)
    text = re.sub(r"file-[0-9a-f]{23}", "file-…", text)
    text = re.sub(r'"created_at": \d+', '"created_at": …', text)
    return text + "\n\n"


def _at(answer: Any, path: str) -> Any:
    for name in path.split("."):
        answer = answer.get(name) if isinstance(answer, dict) else None
    if path == "error":
        return {name: answer[name] for name in ("message", "type", "param", "code", "hint")}
    return answer
