"""Row shapes: recognised from the fields, checked, and turned into one canonical form.

The canonical form is a conversation of {role, content} messages, or a plain text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

ROLES = frozenset({"system", "user", "assistant", "tool"})
_SHAREGPT_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
    "system": "system", "tool": "tool",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Example:
    """One training example: either a conversation or a plain text."""

    messages: list[dict[str, str]]
    text: str | None = None

    @property
    def characters(self) -> int:
        """Length of all texts together."""
        return len(self.text) if self.text is not None else sum(len(m["content"]) for m in self.messages)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with a row; the reader adds file and line."""

    code: str
    field: str | None
    values: dict[str, Any]


def shape_of(row: dict[str, Any]) -> str | None:
    """The shape that the row's fields show, or None."""
    match row:
        case {"messages": _}:
            return "messages"
        case {"conversations": _}:
            return "sharegpt"
        case {"prompt": _, "completion": _}:
            return "prompt_completion"
        case {"instruction": _, "output": _}:
            return "alpaca"
        case {"text": _}:
            return "text"
        case _:
            return None


def check(row: dict[str, Any], shape: str) -> Iterator[Finding]:
    """Everything that is wrong with a row of this shape."""
    match shape:
        case "messages":
            yield from _check_turns(row.get("messages"), "messages", "role", "content", {r: r for r in ROLES})
        case "sharegpt":
            yield from _check_turns(row.get("conversations"), "conversations", "from", "value", _SHAREGPT_ROLES)
        case "prompt_completion":
            yield from _check_texts(row, required=("prompt", "completion"), answer="completion")
        case "alpaca":
            yield from _check_texts(row, required=("instruction", "output"), answer="output")
        case _:
            yield from _check_texts(row, required=("text",), answer="text")


def to_example(row: dict[str, Any], shape: str) -> Example:
    """The canonical form of a row that `check` found nothing wrong with."""
    match shape:
        case "messages":
            return Example([{"role": m["role"], "content": m["content"]} for m in row["messages"]])
        case "sharegpt":
            turns = [{"role": _SHAREGPT_ROLES[m["from"]], "content": m["value"]} for m in row["conversations"]]
            return Example([*_system(row), *turns])
        case "prompt_completion":
            return Example([{"role": "user", "content": row["prompt"]}, _assistant(row["completion"])])
        case "alpaca":
            asked = "\n".join(part for part in (row["instruction"], row.get("input") or "") if part)
            return Example([*_system(row), {"role": "user", "content": asked}, _assistant(row["output"])])
        case _:
            return Example([], row["text"])


def _assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def _system(row: dict[str, Any]) -> list[dict[str, str]]:
    return [{"role": "system", "content": row["system"]}] if row.get("system") else []


def _check_turns(turns: Any, name: str, role_key: str, text_key: str, roles: dict[str, str]) -> Iterator[Finding]:
    if not isinstance(turns, list) or not turns:
        yield Finding("missing_messages_list", f"/{name}", {"name": name})
        return
    has_answer = False
    for i, turn in enumerate(turns):
        pointer = f"/{name}/{i}"
        if not isinstance(turn, dict):
            yield Finding("message_missing_key", pointer, {"key": role_key})
            continue
        role = turn.get(role_key)
        if role is None:
            yield Finding("message_missing_key", pointer, {"key": role_key})
        elif not isinstance(role, str) or role not in roles:
            yield Finding("unrecognized_role", f"{pointer}/{role_key}", {"role": role_name(role)})
        content = turn.get(text_key)
        if text_key not in turn:
            yield Finding("message_missing_key", pointer, {"key": text_key})
        elif not isinstance(content, str):
            yield Finding("missing_content", f"{pointer}/{text_key}", {"name": text_key})
        elif isinstance(role, str) and roles.get(role) == "assistant":
            has_answer = True
            if not content.strip():
                yield Finding("empty_assistant_content", f"{pointer}/{text_key}", {})
    if not has_answer:
        yield Finding("example_missing_assistant_message", f"/{name}", {})


def role_name(role: object) -> str:
    """A role as it may stand in a message: short words only, since a misplaced text is data."""
    return role if isinstance(role, str) and len(role) <= 20 and role.isidentifier() else f"({type(role).__name__})"


def _check_texts(row: dict[str, Any], required: tuple[str, ...], answer: str) -> Iterator[Finding]:
    for name in required:
        if not isinstance(row.get(name), str):
            yield Finding("missing_content", f"/{name}", {"name": name})
        elif name == answer and not row[name].strip():
            yield Finding("empty_assistant_content", f"/{name}", {})
    for name in ("input", "system"):
        if name in row and row[name] is not None and not isinstance(row[name], str):
            yield Finding("missing_content", f"/{name}", {"name": name})
