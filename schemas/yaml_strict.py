"""YAML 1.2 and JSON, read strictly and with the line of every value.

A manifest comes from outside: anchors, aliases, tags, duplicate keys and deep nesting are refused while the
document is still a stream of events, before anything is built from it (a "billion laughs" file never grows).
"""

from __future__ import annotations

import math
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, DocumentStartEvent, MappingEndEvent, NodeEvent, SequenceEndEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from schemas.errors import Refused, problem
from schemas.text import escape, printable

MAX_BYTES = 64 * 1024
MAX_DEPTH = 20
MAX_DIGITS = 100

Lines = dict[str, int]


def load(data: bytes, *, file: str, max_bytes: int = MAX_BYTES) -> tuple[Any, Lines]:
    """The value of a YAML or JSON document and the 1-based line of each JSON pointer in it.

    Raises Refused with one problem that names the line.
    """
    if len(data) > max_bytes:
        raise _refused("manifest_too_large", file, limit=max_bytes)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refused("manifest_not_text", file, data[: error.start].count(b"\n") + 1) from error
    try:
        _refuse_unsafe(text, file)
        node = _parser().compose(text)
        lines: Lines = {}
        value = _build(node, "", lines, file) if node is not None else None
    except ReaderError as error:
        raise _refused("manifest_not_text", file, text[: error.position].count("\n") + 1) from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise _refused("manifest_syntax", file, line, detail=printable(error.problem or "syntax error")) from error
    except (YAMLError, ValueError, ArithmeticError, AssertionError, AttributeError, LookupError, TypeError) as error:
        # The parser trips in more ways than it documents; `%YAML 1.3` is an assertion to it.
        raise _refused("manifest_syntax", file, detail=type(error).__name__) from error
    return value, lines


def _refused(code: str, file: str, line: int | None = None, **values: Any) -> Refused:
    return Refused([problem(code, file=file, line=line, **values)])


def _parser() -> YAML:
    return YAML(typ="safe", pure=True)


def _refuse_unsafe(text: str, file: str) -> None:
    depth = documents = 0
    for event in _parser().parse(text):
        line = event.start_mark.line + 1 if event.start_mark else None
        what = None
        if isinstance(event, AliasEvent):
            what = "an alias (*)"
        elif isinstance(event, DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise _refused("manifest_second_document", file, line)
            # YAML 1.1 would read `no` as false and 1:30 as 90.
            what = "a directive (%)" if event.tags or event.version not in {None, (1, 2)} else None
        elif isinstance(event, MappingEndEvent | SequenceEndEvent):
            depth -= 1
        elif isinstance(event, NodeEvent):
            if event.anchor is not None:
                what = "an anchor (&)"
            elif getattr(event, "ctag", None) is not None:
                what = "a tag (!)"
            elif hasattr(event, "flow_style"):
                depth += 1
                what = f"nesting deeper than {MAX_DEPTH}" if depth > MAX_DEPTH else None
        if what:
            raise _refused("manifest_unsafe_yaml", file, line, what=what)


def _build(node: Node, pointer: str, lines: Lines, file: str) -> Any:
    """The value of a node. Only the scalar types that JSON knows are built; the rest stays text."""
    lines[pointer] = node.start_mark.line + 1
    match node:
        case MappingNode():
            result: dict[str, Any] = {}
            for key_node, value_node in node.value:
                line, key = key_node.start_mark.line + 1, _key(key_node, file)
                if key in result:
                    raise _refused("manifest_duplicate_key", file, line, key=printable(key))
                result[key] = _build(value_node, f"{pointer}/{escape(key)}", lines, file)
                lines[f"{pointer}/{escape(key)}"] = line
            return result
        case SequenceNode():
            return [_build(item, f"{pointer}/{i}", lines, file) for i, item in enumerate(node.value)]
        case ScalarNode():
            return _scalar(node, file)
        case _:
            raise TypeError(type(node).__name__)


def _key(node: Node, file: str) -> str:
    line = node.start_mark.line + 1
    if not isinstance(node, ScalarNode):
        raise _refused("manifest_unsafe_yaml", file, line, what="a composed key")
    match _kind(node):
        case "merge":
            raise _refused("manifest_unsafe_yaml", file, line, what="a merge (<<)")
        case "int" | "float" | "bool" | "null":
            raise _refused("manifest_key_not_text", file, line, key=printable(node.value))
        case _:
            return _text(node, file)


def _scalar(node: ScalarNode, file: str) -> Any:
    """A scalar by YAML 1.2's core schema (so `2e-4` is a number and `no` is a word)."""
    text: str = node.value
    match _kind(node):
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int" | "float" as kind:
            number = _number(text, kind)
            if number is None:
                raise _refused("manifest_bad_number", file, node.start_mark.line + 1, value=printable(text))
            return number
        case _:
            return _text(node, file)


def _number(text: str, kind: str) -> int | float | None:
    """None for .nan, .inf, 1e999 and thousands of digits."""
    digits = text.replace("_", "")
    if len(digits) > MAX_DIGITS:
        return None
    try:
        if kind == "int":
            return int(digits) if digits.lstrip("+-").isdigit() else int(digits, 0)
        number = float(digits)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _kind(node: ScalarNode) -> str:
    """What YAML takes a scalar for: str, int, float, bool, null, timestamp, …"""
    return str(node.tag).rsplit(":", 1)[-1]


def _text(node: ScalarNode, file: str) -> str:
    """JSON writes characters beyond the 16-bit plane as two escapes; YAML leaves them as two halves. Joins them."""
    try:
        return str(node.value).encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeError as error:
        detail = "an escape that is half of a character (\\ud800 to \\udfff)"
        raise _refused("manifest_syntax", file, node.start_mark.line + 1, detail=detail) from error
