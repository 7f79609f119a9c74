"""YAML 1.2 and JSON, read strictly and with the line of every value.

A manifest comes from outside: anchors, aliases, tags, duplicate keys and deep nesting are refused while the
document is still a stream of events, before anything is built from it (a "billion laughs" file never grows).
"""

from __future__ import annotations

import math
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, MappingEndEvent, NodeEvent, SequenceEndEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from schemas.errors import Refused, printable, problem

MAX_BYTES = 64 * 1024
MAX_DEPTH = 20

Lines = dict[str, int]


def load(data: bytes, *, file: str, max_bytes: int = MAX_BYTES) -> tuple[Any, Lines]:
    """The value of a YAML or JSON document and the 1-based line of each JSON pointer in it.

    Raises Refused with one problem that names the line.
    """
    if len(data) > max_bytes:
        raise Refused([problem("manifest_too_large", file=file, size=len(data), limit=max_bytes)])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refused([problem("manifest_not_text", file=file)]) from error
    try:
        _refuse_unsafe(text, file)
        node = _parser().compose(text)
        lines: Lines = {}
        value = _build(node, "", lines, file) if node is not None else None
    except ReaderError as error:
        raise Refused([problem("manifest_not_text", file=file)]) from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        detail = printable(error.problem or "syntax error")
        raise Refused([problem("manifest_syntax", file=file, line=line, detail=detail)]) from error
    except (YAMLError, ValueError) as error:
        raise Refused([problem("manifest_syntax", file=file, detail=type(error).__name__)]) from error
    return value, lines


def _parser() -> YAML:
    return YAML(typ="safe", pure=True)


def _refuse_unsafe(text: str, file: str) -> None:
    depth = 0
    for event in _parser().parse(text):
        line = event.start_mark.line + 1 if event.start_mark else None
        what = None
        if isinstance(event, AliasEvent):
            what = "an alias (*)"
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
            raise Refused([problem("manifest_unsafe_yaml", file=file, line=line, what=what)])


def _build(node: Node, pointer: str, lines: Lines, file: str) -> Any:
    """The value of a node. Only the scalar types that JSON knows are built; the rest stays text."""
    line = node.start_mark.line + 1
    lines[pointer] = line
    match node:
        case MappingNode():
            result: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key_line = key_node.start_mark.line + 1
                if not isinstance(key_node, ScalarNode):
                    raise Refused([problem("manifest_unsafe_yaml", file=file, line=key_line, what="a composed key")])
                key = _joined(str(key_node.value))
                if key in result:
                    raise Refused([problem("manifest_duplicate_key", file=file, line=key_line, key=printable(key))])
                result[key] = _build(value_node, f"{pointer}/{escape(key)}", lines, file)
                lines[f"{pointer}/{escape(key)}"] = key_line
            return result
        case SequenceNode():
            return [_build(item, f"{pointer}/{i}", lines, file) for i, item in enumerate(node.value)]
        case ScalarNode():
            return _scalar(node)
        case _:
            raise TypeError(type(node).__name__)


def _scalar(node: ScalarNode) -> Any:
    """A scalar by YAML 1.2's core schema (so `2e-4` is a number and `no` is a word)."""
    text: str = node.value
    match str(node.tag).rsplit(":", 1)[-1]:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            return int(text.replace("_", ""), 0) if not text.lstrip("+-").isdigit() else int(text)
        case "float":
            number = float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan").replace(".NaN", "nan"))
            return number if math.isfinite(number) else text
        case _:
            return _joined(text)


def _joined(text: str) -> str:
    """JSON writes characters beyond the 16-bit plane as two escapes; YAML leaves them as two halves. Joins them.

    Raises UnicodeError (a ValueError) for a half without its other.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16")


def escape(key: str) -> str:
    """A key as one part of a JSON pointer (RFC 6901, section 3)."""
    return key.replace("~", "~0").replace("/", "~1")
