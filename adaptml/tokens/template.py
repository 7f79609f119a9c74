"""A model's chat template, rendered as transformers renders it, byte for byte.

The environment follows `transformers.utils.chat_template_utils`: what a template may use there it may use here, and
no more; only the clock stands still. Templates are programs that others wrote, so they run in Jinja's sandbox.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

Span = tuple[int, int]
"""[start, end) in characters."""

_TODAY = datetime(2024, 7, 26)  # noqa: DTZ001 - a day, nowhere in particular
"""What templates that write the date are told, where transformers tells today's: tokens must not depend on the day on
which they are made, or a run that goes on after midnight would train on others, and not find its checkpoint. It is the
date that Llama's templates write where they are told none."""
_ATTRIBUTE = re.compile(r"has no (?:attribute|element) '?([\w.-]{1,40})'?$")
_WORDS = re.compile(r"[A-Za-z]{3}")


class TemplateRefuses(Exception):  # noqa: N818 - says what happened
    """Raised where the template cannot or will not render a conversation; its text is never from the dataset."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as text."""

    text: str
    generated: list[Span]
    """What stands within `{% generation %}` tags."""


class ChatTemplate:
    """One compiled template. Safe to use from several threads."""

    def __init__(self, source: str) -> None:
        environment = _environment()
        tree = environment.parse(source)
        self.literals = frozenset(_literals(tree))
        """All texts that the template itself writes, compares or reads."""
        self.marks_answers = any(
            isinstance(block.call.node, nodes.ExtensionAttribute) for block in tree.find_all(nodes.CallBlock)
        )
        """True where it has `{% generation %}` tags."""
        self._template = environment.from_string(tree)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        variables: Mapping[str, str],
        *,
        answer_next: bool,
    ) -> Rendered:
        """The conversation as text. Raises TemplateRefuses."""
        # Templates cope with a missing key, but many print a null as "None".
        present = [{key: value for key, value in message.items() if value is not None} for message in messages]
        tracker = _Tracker()
        token = _TRACKER.set(tracker)
        try:
            for block in self._template.generate(
                variables, messages=present, tools=tools, documents=None, add_generation_prompt=answer_next
            ):
                tracker.blocks.append(block)
                tracker.length += len(block)
        except Exception as error:  # a template is a program, and fails on what it did not expect as programs do
            # The original error may quote the conversation, and so must not be chained.
            raise TemplateRefuses(self._reason(error)) from None
        finally:
            _TRACKER.reset(token)
        return Rendered("".join(tracker.blocks), tracker.spans)

    def _reason(self, error: Exception) -> str:
        """What the template says, cut to what stands in the template itself: the rest may be data."""
        said = str(error)
        if isinstance(error, jinja2.UndefinedError):
            found = _ATTRIBUTE.search(said)
            known = found is not None and found[1] in self.literals
            return f"it needs `{found[1]}`, which a message lacks" if found and known else "it needs a missing field"
        if isinstance(error, jinja2.TemplateError):
            own = [text.strip() for text in self.literals if text in said and _WORDS.search(text)]
            if own:
                return max(own, key=lambda text: (len(text), text))
        return "it cannot render a message of this form"


@dataclass
class _Tracker:
    """One rendering: what was written so far, and where answers lie in it."""

    blocks: list[str] = field(default_factory=list)
    length: int = 0
    spans: list[Span] = field(default_factory=list)


_TRACKER: ContextVar[_Tracker] = ContextVar("tracker")


class _Generation(Extension):
    """The tag around what the model itself writes."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_note"), [], [], body).set_lineno(line)

    def _note(self, caller: Callable[[], str]) -> str:
        text, tracker = caller(), _TRACKER.get()
        tracker.spans.append((tracker.length, tracker.length + len(text)))
        return text


class _Dict:
    """`dict` without the attributes of the class, as templates know it."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(Namespace):
    """Jinja's namespace without names that lead into Python's internals."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        # Without a named first parameter, so that a template may name an attribute `self`.
        self, given = args[0], dict(*args[1:], **kwargs)
        for name in given:
            _check_name(name)
        Namespace.__init__(self, given)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError("a namespace takes no name that begins with an underscore")


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {
        "raise_exception": _raise,
        "strftime_now": _now,
        "dict": _Dict(),
        "namespace": _Namespace,
    }
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own escapes what HTML would read, which models were not trained on."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return _TODAY.strftime(form)


def _literals(tree: nodes.Template) -> Iterator[str]:
    for node in tree.find_all((nodes.TemplateData, nodes.Const, nodes.Getattr)):
        text = node.attr if isinstance(node, nodes.Getattr) else getattr(node, "data", getattr(node, "value", None))
        if isinstance(text, str) and text:
            yield text
