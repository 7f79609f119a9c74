"""Row shapes: recognised from the columns, and turned into one canonical form.

The canonical form is a conversation in the terms of the OpenAI API, or a plain text. What cannot be turned is said
in findings; what a conversation must be like is in `rules`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import msgspec

from adaptml.dataset.depth import is_deep
from adaptml.dataset.names import column_names, name_or
from schemas.text import escape

Message = dict[str, Any]
"""role and content (text, or None beside tool_calls); tool_calls, tool_call_id, name and weight where there are any."""


@dataclass(frozen=True, slots=True)
class Example:
    """One training example: either a conversation or a plain text."""

    messages: list[Message]
    text: str | None = None
    tools: list[dict[str, Any]] | None = None
    """Functions that the conversation may call, as JSON Schema."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with a row; the reader adds file and line."""

    code: str
    field: str | None
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message of an example lies in its row, as JSON pointers."""

    turn: str
    text: str
    is_sound: bool = True
    """False where the message could not be read whole, which has been said."""
    calls: str = ""
    """Of its tool calls."""
    parts: tuple[tuple[str, str], ...] = ()
    """(JSON pointer, text) of each column that the text was put together from, if there are several."""


@dataclass(frozen=True, slots=True)
class ReadRow:
    """An example with the places of its messages. With findings it is not to be trained on."""

    example: Example
    places: list[Place]
    findings: list[Finding]
    pointer: str
    """Of the conversation, or of the text."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a row of one shape looks like."""

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()

    def columns(self) -> tuple[str, ...]:
        """All columns that the shape reads."""
        return self.required + self.optional


SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        shape.name: shape
        for shape in (
            Shape("messages", ("messages",), ("tools", "functions")),
            Shape("sharegpt", ("conversations",), ("system", "tools", "functions")),
            Shape("prompt_completion", ("prompt", "completion"), ("system", "tools", "functions")),
            Shape("alpaca", ("instruction", "output"), ("input", "system", "history")),
            Shape("text", ("text",)),
        )
    }
)
ROLES = MappingProxyType(
    {
        "system": "system", "developer": "system", "user": "user", "assistant": "assistant",
        "tool": "tool", "function": "tool",
    }
)  # fmt: skip
"""As the OpenAI API has them, with its newer name for system and its older one for tool."""
SHAREGPT_ROLES = MappingProxyType(
    {
        "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
        "bing": "assistant", "bard": "assistant", "model": "assistant", "bot": "assistant", "system": "system",
        "tool": "tool", "observation": "tool", "function_response": "tool",
        "function_call": "call", "tool_call": "call",
    }
)  # fmt: skip
"""`call`: an assistant turn whose text is a tool call."""
_MESSAGE_KEYS = ("role", "content", "name", "weight", "tool_calls", "tool_call_id", "function_call", "refusal")
_PREFERENCE = (("chosen", "rejected"), ("preferred_output", "non_preferred_output"))
_KTO = ("prompt", "completion", "label")


def content_of(message: Message) -> str:
    """The text of a message; of tool calls their JSON."""
    return (message["content"] or "") + calls_of(message)


def calls_of(message: Message) -> str:
    """The JSON of a message's tool calls, as chat templates print it; empty where there are none."""
    return json.dumps(message["tool_calls"], ensure_ascii=False) if message.get("tool_calls") else ""


def texts_of(message: Message, place: Place) -> Iterator[tuple[str, str]]:
    """(JSON pointer, text) of everything that a message says."""
    yield from place.parts or ((place.text, message["content"] or ""),)
    if message.get("tool_calls"):
        yield place.calls, calls_of(message)


def recognise(row: Mapping[str, Any], columns: Mapping[str, str], asked: str = "auto") -> str | Finding:
    """The row's shape, or why it has none. `columns` maps canonical names to those of the file."""
    given = {name for name, value in row.items() if value is not None}
    mapped = set(columns.values())
    if asked == "auto" or asked == "prompt_completion":
        for pair in _PREFERENCE:
            if given.issuperset(pair) and not mapped.intersection(pair):
                role = "completion" if "prompt" in given else "messages"
                return Finding("preference_data", None, {"found": ", ".join(pair), "role": role, "column": pair[0]})
    if asked != "auto":
        return asked
    if given.issuperset(_KTO) and _is_verdict(row["label"]):
        return Finding("kto_data", "/label", {})
    fitting = [
        name for name, shape in SHAPES.items() if all(columns.get(column, column) in given for column in shape.required)
    ]
    if len(fitting) > 1 and "text" in fitting:
        fitting.remove("text")  # often the same example once more, rendered for another tool
    if len(fitting) > 1:
        return Finding("ambiguous_row_shape", None, {"found": ", ".join(fitting)})
    if not fitting:
        return Finding("unknown_row_shape", None, {"found": _given_columns(row)})
    return fitting[0]


def _given_columns(row: Mapping[str, Any]) -> str:
    return f"the fields {column_names(row, row)}" if row else "no fields"


def _is_verdict(label: Any) -> bool:
    """True or false, as a table writes it as well."""
    return isinstance(label, bool | int) or (isinstance(label, str) and label.lower() in ("true", "false"))


def rivals(shape: str, seen: Set[str], columns: Mapping[str, str], asked: str = "auto") -> set[str]:
    """Columns among `seen` that could make a row of this shape one that `recognise` sees otherwise, unless empty."""
    required = {columns.get(name, name) for name in SHAPES[shape].required}
    others: list[set[str]] = []
    if asked in ("auto", "prompt_completion"):
        others += [set(pair) for pair in _PREFERENCE if not set(pair).intersection(columns.values())]
    if asked == "auto":
        others.append(set(_KTO))
        unlike = [other for other in SHAPES.values() if other.name not in (shape, "text")]
        others += [{columns.get(name, name) for name in other.required} for other in unlike]
    return {name for other in others if other <= seen for name in other - required}


def read_row(row: Mapping[str, Any], shape: str, columns: Mapping[str, str]) -> ReadRow:
    """The canonical form, and what could not be turned into it."""
    reader = _Reader(row, columns)
    match shape:
        case "messages":
            reader.turns("messages", "role", "content", ROLES)
            reader.read_tools()
        case "sharegpt":
            reader.system()
            reader.turns("conversations", "from", "value", SHAREGPT_ROLES)
            reader.read_tools()
        case "prompt_completion":
            reader.prompt_completion()
            reader.read_tools()
        case "alpaca":
            reader.alpaca()
        case _:
            text = reader.text("text")
            place = Place(reader.pointer("text"), reader.pointer("text"), not reader.findings)
            return ReadRow(Example([], text), [place], reader.findings, place.text)
    return ReadRow(
        Example(reader.messages, None, reader.tools or None),
        reader.places,
        reader.findings,
        reader.pointer(SHAPES[shape].required[0]),
    )


@dataclass
class _Reader:
    """Reads one row, and keeps what is wrong with it."""

    row: Mapping[str, Any]
    columns: Mapping[str, str]
    findings: list[Finding] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    tools: list[dict[str, Any]] = field(default_factory=list)

    def value(self, name: str) -> Any:
        return self.row.get(self.columns.get(name, name))

    def find(self, code: str, pointer: str | None, **values: Any) -> None:
        self.findings.append(Finding(code, pointer, values))

    def pointer(self, name: str) -> str:
        return "/" + escape(self.columns.get(name, name))

    def text(self, name: str) -> str:
        """A column that must hold a text."""
        value = self.value(name)
        if isinstance(value, str):
            return value
        self.find("missing_content", self.pointer(name), name=self.columns.get(name, name), found=kind_of(value))
        return ""

    def add(self, role: str, name: str) -> None:
        """A turn whose text is a column of its own."""
        before = len(self.findings)
        self.messages.append({"role": role, "content": self.text(name)})
        self.places.append(Place(self.pointer(name), self.pointer(name), len(self.findings) == before))

    def system(self) -> None:
        """The system prompt that some shapes keep in a column; an empty one is none."""
        if self.value("system") not in (None, ""):
            self.add("system", "system")

    def prompt_completion(self) -> None:
        """Texts, or lists of messages as TRL has them: then only the completion is learned."""
        self.system()
        if isinstance(self.value("prompt"), list):
            self.turns("prompt", "role", "content", ROLES)
            self.messages = [m | {"weight": 0} if m["role"] == "assistant" else m for m in self.messages]
        else:
            self.add("user", "prompt")
        if isinstance(self.value("completion"), list):
            self.turns("completion", "role", "content", ROLES)
        else:
            self.add("assistant", "completion")

    def alpaca(self) -> None:
        self.system()
        history = self.value("history")
        if history is not None and not isinstance(history, list):
            self.find("missing_content", self.pointer("history"), name="history", found=kind_of(history))
        for i, pair in enumerate(history if isinstance(history, list) else []):
            pointer = f"{self.pointer('history')}/{i}"
            if isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair):
                self.messages += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
                self.places += [Place(f"{pointer}/{n}", f"{pointer}/{n}") for n in (0, 1)]
            else:
                self.find("missing_content", pointer, name="history", found="no pair of question and answer")
        instruction = self.text("instruction")
        given = self.text("input") if self.value("input") is not None else ""
        self.messages.append({"role": "user", "content": "\n".join(part for part in (instruction, given) if part)})
        pointer = self.pointer("instruction")
        parts = ((pointer, instruction), (self.pointer("input"), given))
        self.places.append(Place(pointer, pointer, parts=parts))
        self.add("assistant", "output")

    def turns(self, name: str, role_key: str, text_key: str, roles: Mapping[str, str]) -> None:
        """The messages of a list."""
        role_key, text_key = self.columns.get(role_key, role_key), self.columns.get(text_key, text_key)
        items, pointer = self.value(name), self.pointer(name)
        keys = {"role": role_key, "content": text_key}
        if not isinstance(items, list) or not items:
            self.find("missing_messages_list", pointer, name=self.columns.get(name, name), **keys)
            self.messages.append(dict(_UNREADABLE))
            self.places.append(Place(pointer, pointer, is_sound=False))
            return
        for i, item in enumerate(items):
            at, before = f"{pointer}/{i}", len(self.findings)
            if isinstance(item, dict):
                self.messages.append(self.turn(item, at, role_key, text_key, roles))
            else:
                self.find("message_not_an_object", at, found=kind_of(item), **keys)
                self.messages.append(dict(_UNREADABLE))
            text = f"{at}/{escape(text_key)}"
            self.places.append(Place(at, text, len(self.findings) == before, _place_of_calls(item, at) or text))

    def turn(
        self, item: Mapping[str, Any], pointer: str, role_key: str, text_key: str, roles: Mapping[str, str]
    ) -> Message:
        """The message, as far as it can be read: its role is empty where it is not known."""
        known = [role_key, text_key, *_MESSAGE_KEYS[2:]]
        for key in item:
            if key not in known and item[key] is not None:
                values = {"key": _short(key), "known": ", ".join(known), "suggestion": f"known are {', '.join(known)}"}
                self.find("message_unrecognized_key", f"{pointer}/{escape(_short(key))}", **values)
        role = item.get(role_key)
        if role is None:
            self.find("message_missing_key", pointer, key=role_key)
        elif not isinstance(role, str) or role not in roles:
            known_roles = ", ".join(sorted(roles))
            self.find("unrecognized_role", f"{pointer}/{escape(role_key)}", role=_short(role), known=known_roles)
        name = roles.get(role, "") if isinstance(role, str) else ""
        calls = self.tool_calls(item, pointer)
        content = self.content(item, text_key, pointer, has_calls=bool(_place_of_calls(item, pointer)))
        if name == "call" and content is not None:
            calls, content = self.call_in_text(content, f"{pointer}/{escape(text_key)}"), None
        turn: Message = {"role": "assistant" if name == "call" else name, "content": content}
        turn |= {"tool_calls": calls} if calls else {}
        turn |= {key: item[key] for key in ("tool_call_id", "name") if item.get(key) is not None}
        weight = item.get("weight")
        if weight in (0, 1) and not isinstance(weight, bool) and name in ("assistant", "call"):
            turn["weight"] = weight
        elif weight is not None and name:
            self.find("bad_weight", f"{pointer}/weight", found=_number(weight))
        return turn

    def content(self, item: Mapping[str, Any], key: str, pointer: str, *, has_calls: bool) -> str | None:
        content = item.get(key)
        if isinstance(content, str):
            return content
        if isinstance(content, list) and all(_is_text_part(part) for part in content) and content:
            return "".join(part["text"] for part in content)
        if content is None and has_calls:
            return None
        if key not in item:
            self.find("message_missing_key", pointer, key=key)
        else:
            self.find("missing_content", f"{pointer}/{escape(key)}", name=key, found=kind_of(content))
        return None

    def read_tools(self) -> None:
        """The functions that may be called, as the OpenAI API has them now or had them before."""
        name = "tools" if self.value("tools") is not None else "functions"
        given = self.value(name)
        tools = _json_or_none(given) if isinstance(given, str) else given  # ShareGPT keeps them as a text
        if given in (None, ""):
            return
        if not isinstance(tools, list):
            self.find("invalid_tools", self.pointer(name), detail=f"{name} is {kind_of(given)}, not a list")
            return
        for i, tool in enumerate(tools):
            function = tool.get("function", tool if "name" in tool else None) if isinstance(tool, dict) else None
            if not isinstance(function, dict) or not isinstance(function.get("name"), str):
                self.find("invalid_tools", f"{self.pointer(name)}/{i}", detail="this tool names no function")
            elif not _is_json(function):
                self.find("invalid_tools", f"{self.pointer(name)}/{i}", detail=f"this tool holds {_NO_JSON}")
            else:
                self.tools.append({"type": "function", "function": function})

    def tool_calls(self, item: Mapping[str, Any], pointer: str) -> list[dict[str, Any]]:
        calls = item.get("tool_calls")
        if calls is None and item.get("function_call") is not None:
            call = self.tool_call({"function": item["function_call"]}, f"{pointer}/function_call")
            return [call] if call else []
        if calls is None:
            return []
        if not isinstance(calls, list) or not calls:
            self.find("invalid_tool_call", f"{pointer}/tool_calls", detail="tool_calls is not a list of calls")
            return []
        read = [self.tool_call(call, f"{pointer}/tool_calls/{i}") for i, call in enumerate(calls)]
        return [call for call in read if call]

    def tool_call(self, call: Any, pointer: str) -> dict[str, Any] | None:
        """One call, its arguments as an object: that is what chat templates print."""
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            self.find("invalid_tool_call", pointer, detail="the call names no function")
            return None
        given = function.get("arguments")
        arguments = _json_or_none(given) if isinstance(given, str) else given
        if given in (None, ""):
            arguments = {}
        if not isinstance(arguments, dict):
            self.find("invalid_tool_call", f"{pointer}/function/arguments", detail="arguments are not a JSON object")
            return None
        if not _is_json(arguments):
            self.find("invalid_tool_call", f"{pointer}/function/arguments", detail=f"arguments hold {_NO_JSON}")
            return None
        read = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
        return read | {"id": call["id"]} if isinstance(call.get("id"), str) else read

    def call_in_text(self, text: str, pointer: str) -> list[dict[str, Any]]:
        """ShareGPT's way: the turn's text is the call, or a list of them."""
        value = _json_or_none(text)
        given = value if isinstance(value, list) and value else [value]
        calls = [self.tool_call({"function": function}, pointer) for function in given]
        return [call for call in calls if call]


_UNREADABLE = MappingProxyType({"role": "", "content": None})
"""Stands for a message that could not be read."""


def _place_of_calls(item: Any, pointer: str) -> str:
    """Of the tool calls that a message holds or should; empty where there are none."""
    given = [key for key in ("tool_calls", "function_call") if isinstance(item, dict) and item.get(key) is not None]
    return f"{pointer}/{given[0]}" if given else ""


def _is_text_part(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _json_or_none(text: str) -> Any:
    try:
        raw = text.encode()
        return None if is_deep(raw) else msgspec.json.decode(raw)
    except (msgspec.DecodeError, ValueError):
        return None


def _is_json(value: Any) -> bool:
    """False for what only a Parquet file can hold."""
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True


_NO_JSON = "a value that JSON has not, such as bytes or a time"


def kind_of(value: Any) -> str:
    """What a value is, without saying it."""
    match value:
        case None:
            return "missing"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list():
            return "a list"
        case dict():
            return "an object"
        case _:
            return f"a {type(value).__name__}"


def _short(value: object) -> str:
    """A role or key as it may stand in a message, since a misplaced text is data."""
    return name_or(value, kind_of(value))


def _number(value: Any) -> str:
    return str(value) if isinstance(value, int | float) and abs(value) < 1e6 else kind_of(value)
