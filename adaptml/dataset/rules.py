"""What an example must be like to be learned from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from adaptml.dataset.shapes import Finding, Place, ReadRow

_MAY_FOLLOW = {"user": {"nothing", "assistant"}, "assistant": {"user", "tool"}, "tool": {"assistant", "tool"}}
"""Role → what it may follow; a system turn before counts as nothing."""


def check(read: ReadRow) -> Iterator[Finding]:
    """Everything that is wrong with an example, apart from what reading it has said."""
    if read.example.text is not None:
        if read.places[0].is_sound and not read.example.text.strip():
            yield Finding("empty_assistant_content", read.places[0].text, {})
        return
    messages, places = read.example.messages, read.places
    roles = tuple(message["role"] for message in messages)
    if roles and all(roles):
        yield from order(roles, places, read.pointer)
        yield from _tool_results(read)
    for message, place in zip(messages, places, strict=True):
        is_blank = place.is_sound and not (message["content"] or "").strip()
        if is_blank and message["role"] == "assistant" and not message.get("tool_calls"):
            yield Finding("empty_assistant_content", place.text, {})
        if is_blank and message["role"] == "system":
            yield Finding("empty_system", place.text, {})
    weights = [message.get("weight", 1) for message in messages if message["role"] == "assistant"]
    if weights and not any(weights):
        yield Finding("nothing_to_learn", read.pointer, {})


def order(roles: Sequence[str], places: Sequence[Place], pointer: str) -> Iterator[Finding]:
    """Who may speak after whom: [system] then user, assistant, user, assistant …, the assistant last.

    Between two assistant turns stand the results of the tools that the first one called.
    """
    if "assistant" not in roles:
        yield Finding("example_missing_assistant_message", pointer, {})
    if "user" not in roles:
        yield Finding("no_user_message", pointer, {})
    before = "nothing"
    for i, (role, place) in enumerate(zip(roles, places, strict=True)):
        if role == "system":
            if i > 0:
                yield Finding("system_not_first", place.turn, {})
            continue
        if before not in _MAY_FOLLOW[role] and "user" in roles:
            yield Finding("bad_turn_order", place.turn, {"role": role, "before": before})
        before = role
    if "assistant" in roles and roles[-1] != "assistant":
        yield Finding("last_turn_not_assistant", places[-1].turn, {"role": roles[-1]})


def _tool_results(read: ReadRow) -> Iterator[Finding]:
    """A tool's result answers a call of the assistant turn before it."""
    asked: list[str | None] = []
    for message, place in zip(read.example.messages, read.places, strict=True):
        if message["role"] == "assistant":
            asked = [call.get("id") for call in message.get("tool_calls", [])] if place.is_sound else [None]
        elif message["role"] == "tool":
            answers = message.get("tool_call_id")
            if not asked or (answers is not None and None not in asked and answers not in asked):
                yield Finding("tool_result_without_call", place.turn, {})
