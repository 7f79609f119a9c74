"""A base model's tokenizer and chat template: examples as text, as tokens, and which tokens are learned.

The one place where an example becomes tokens: what is counted and shown before a run is what the trainer trains on.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tokenizers import AddedToken, Tokenizer

from adaptml.dataset.shapes import Example, Finding, Message
from adaptml.tokens.template import ChatTemplate, Rendered, Span, TemplateRefuses

# Batches are encoded on all cores. Said outright, or the library turns itself off, with a warning, after a fork.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

TOKENIZER, CONFIG = "tokenizer.json", "tokenizer_config.json"
SPECIAL_TOKENS, TEMPLATE = "special_tokens_map.json", "chat_template.jinja"
REQUIRED, OPTIONAL = (TOKENIZER, CONFIG), (SPECIAL_TOKENS, TEMPLATE)
"""Files of a model that make up its tokenizer."""

TrainOn = Literal["completions", "all"]

_PROBE = "an answer"

_Numbered = tuple[str, int]
"""A token and its id."""
_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class Untemplatable(Exception):  # noqa: N818 - says what is the matter
    """Raised where an example cannot become tokens. The finding has no place; the caller knows it."""

    def __init__(self, code: str, **values: Any) -> None:
        super().__init__(code)
        self.finding = Finding(code, None, values)


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as tokens. All lists have one entry a token."""

    ids: list[int]
    trained: list[bool]
    """Whether the token counts in the loss."""
    rendered: str
    offsets: list[Span]
    """[start, end) of the token in `rendered`; the bytes of one character can be several tokens."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def trained_tokens(self) -> int:
        """Tokens that the loss counts: the first token of an example is never predicted."""
        return sum(self.trained[1:])


class ChatTokenizer:
    """The tokenizer of one base model. Immutable once made: threads may share it."""

    def __init__(self, tokenizer: Tokenizer, templates: Mapping[str, str], special: Mapping[str, str]) -> None:
        """`templates` by name, of which `default` and `tool_use` are known; `special` as bos_token: <s>."""
        self.special = dict(special)
        self._templates = {name: ChatTemplate(source) for name, source in templates.items()}
        self._prefaces: dict[ChatTemplate | None, str] = {
            template: _preface(template, self.special) for template in self._templates.values()
        }
        self._tokenizer = tokenizer
        tokenizer.no_truncation()
        tokenizer.no_padding()
        known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
        tokenizer.add_special_tokens(
            [AddedToken(token, special=True, normalized=False) for token in special.values() if token not in known]
        )
        self._eos = _numbered(tokenizer, special.get("eos_token"))
        bos = _numbered(tokenizer, special.get("bos_token"))
        self._bos = bos if bos is not None and tokenizer.encode("").ids[:1] == [bos[1]] else None
        """None where the tokenizer puts no token before a text, even if it has a name for one."""
        # It would add the tokens that templates write themselves, and some cut white space out of the offsets.
        tokenizer.post_processor = None

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> ChatTokenizer:
        """Made from the contents of REQUIRED and those of OPTIONAL that there are. Raises KeyError, ValueError."""
        config = json.loads(files[CONFIG])
        named = config
        if SPECIAL_TOKENS in files and "added_tokens_decoder" not in config:
            named = config | json.loads(files[SPECIAL_TOKENS])  # older models keep them apart
        found = {name: named[name] for name in _NAMED_TOKENS if named.get(name) is not None}
        special = {name: token["content"] if isinstance(token, dict) else token for name, token in found.items()}
        return cls(Tokenizer.from_buffer(files[TOKENIZER]), _templates(files, config), special)

    @property
    def control_tokens(self) -> tuple[str, ...]:
        """Tokens that would forge the structure of a conversation if a text held them, sorted.

        Those that begin and end a text, and the special ones that a template writes.
        """
        added = self._tokenizer.get_added_tokens_decoder().values()
        written = "\0".join(text for template in self._templates.values() for text in template.literals)
        ends = {self.special.get("bos_token"), self.special.get("eos_token")} - {None}
        return tuple(sorted(t.content for t in added if t.content in ends or (t.special and t.content in written)))

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        answer_next: bool = False,
    ) -> str:
        """The conversation in the model's own form; `answer_next` opens the assistant's turn. Raises Untemplatable."""
        return self._render(messages, tools, answer_next=answer_next).text

    def encode(self, example: Example, train_on: TrainOn = "completions") -> Encoded:
        """The example as tokens, and which of them `train_on` trains. Raises Untemplatable."""
        (encoded,) = self.encode_batch([example], train_on)
        if isinstance(encoded, Finding):
            raise Untemplatable(encoded.code, **encoded.values)
        return encoded

    def encode_batch(self, examples: Sequence[Example], train_on: TrainOn = "completions") -> list[Encoded | Finding]:
        """Each example as tokens, or why it cannot be: faster than one by one."""
        prepared = [self._prepared(example, train_on) for example in examples]
        texts = [found.text for found in prepared if isinstance(found, _Prepared)]
        encodings = iter(self._tokenizer.encode_batch(texts, add_special_tokens=False))
        return [found if isinstance(found, Finding) else self._encoded(found, next(encodings)) for found in prepared]

    def count(self, examples: Sequence[Example], train_on: TrainOn = "completions") -> list[int | Finding]:
        """How many tokens each example has, or why it has none: faster than encoding them."""
        prepared = [self._prepared(example, train_on) for example in examples]
        texts = [found.text for found in prepared if isinstance(found, _Prepared)]
        encodings = iter(self._tokenizer.encode_batch_fast(texts, add_special_tokens=False))
        return [found if isinstance(found, Finding) else self._length(found, next(encodings)) for found in prepared]

    def ignored_tools(self, example: Example) -> Finding | None:
        """A warning where the template leaves out the example's tools or its tool calls. Raises Untemplatable."""
        calls = any(message.get("tool_calls") for message in example.messages)
        if not example.tools and not calls:
            return None
        rendered = self.render(example.messages, example.tools)
        what = []
        if example.tools and self._renders_to(rendered, example.messages, None):
            what.append("the tools")
        without_calls = [{k: v for k, v in message.items() if k != "tool_calls"} for message in example.messages]
        if calls and self._renders_to(rendered, without_calls, example.tools):
            what.append("the tool calls")
        if not all(_says(rendered, message) for message in example.messages if message.get("tool_calls")):
            what.append("the text beside tool calls")
        return Finding("template_ignores_tools", None, {"what": " and ".join(what)}) if what else None

    def _renders_to(self, text: str, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None) -> bool:
        try:
            return self.render(messages, tools) == text
        except Untemplatable:
            return False

    def _render(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None, *, answer_next: bool = False
    ) -> Rendered:
        template = self._template(tools)
        if template is None:
            raise Untemplatable("template_refuses", detail="the model has no chat template")
        try:
            return template.render(messages, tools, self.special, answer_next=answer_next)
        except TemplateRefuses as refused:
            raise Untemplatable("template_refuses", detail=str(refused)) from None

    def _template(self, tools: Sequence[Mapping[str, Any]] | None) -> ChatTemplate | None:
        with_tools = self._templates.get("tool_use") if tools is not None else None
        return with_tools or self._templates.get("default")

    def _prepared(self, example: Example, train_on: TrainOn) -> _Prepared | Finding:
        if example.text is not None:
            return _Prepared(example.text, None, is_plain=True)
        try:
            whole = self._render(example.messages, example.tools)
            if self._leaves_out_system(example, whole.text):
                return self._with_system(example, train_on, whole.text)
            return _Prepared(whole.text, None if train_on == "all" else self._answers(example, whole))
        except Untemplatable as error:
            return error.finding

    def _leaves_out_system(self, example: Example, whole: str) -> bool:
        """True where the text would be the same without the system turn."""
        first = example.messages[0]
        if first["role"] != "system" or (_text(first) and _says(whole, first)):
            return False
        return self._renders_to(whole, example.messages[1:], example.tools)

    def _with_system(self, example: Example, train_on: TrainOn, whole: str) -> _Prepared:
        """The conversation as a model is asked its last turn, and that turn.

        Some templates (Mistral's) write the system turn only into the user turn that is to be answered next. So it
        stands before the last answer when the model is asked for it, but in no conversation that is answered, and
        before earlier answers nowhere.
        """
        messages, tools = example.messages, example.tools
        turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        learned = turns if train_on == "all" else [i for i in turns if _is_learned(messages[i])]
        asked = self.render(messages[:-1], tools, answer_next=True)
        without = self.render(messages[1:-1], tools, answer_next=True)
        if learned != [len(messages) - 1] or not _says(asked, messages[0]) or not whole.startswith(without):
            detail = "it leaves out the system turn where more than the last answer is trained on"
            raise Untemplatable("template_refuses", detail=detail)
        text = asked + whole[len(without) :]
        return _Prepared(text, None if train_on == "all" else [(len(asked), len(text.rstrip()))])

    def _answers(self, example: Example, whole: Rendered) -> list[Span]:
        """[start, end) of each assistant turn to be learned, its end-of-turn token included.

        The end of turn must be trained on, or the model never learns to stop; the line break that some templates put
        after it must not.
        """
        turns = [i for i, message in enumerate(example.messages) if message["role"] == "assistant"]
        learned = [i for i in turns if _is_learned(example.messages[i])]
        template = self._template(example.tools)
        if template is not None and template.marks_answers:
            marked = _marked(turns, learned, whole.generated)
            if marked is not None:
                if learned and not any(start < end for start, end in marked):
                    raise Untemplatable("template_marks_no_answer")
                return marked
        return [self._turn(example, i, whole.text) for i in learned]

    def _turn(self, example: Example, i: int, whole: str) -> Span:
        """Found by rendering the conversation up to the turn and through it: what the template adds is the turn."""
        try:
            before = self.render(example.messages[:i], example.tools, answer_next=True)
            is_last = i == len(example.messages) - 1
            through = whole if is_last else self.render(example.messages[: i + 1], example.tools)
        except Untemplatable:
            raise Untemplatable("template_not_maskable") from None
        through = through.rstrip()
        if whole.startswith(before):
            if whole.startswith(through):
                return len(before), len(through)
            last = before + self._prefaces[self._template(example.tools)]
            answer = through.removeprefix(last).lstrip()
            start = len(whole) - len(whole[len(before) :].lstrip())  # of a last answer it may cut leading line breaks
            if through.startswith(last) and whole.startswith(answer, start):
                return len(before), start + len(answer)
        raise Untemplatable("template_not_maskable")

    def _encoded(self, prepared: _Prepared, encoding: Any) -> Encoded:
        if prepared.is_plain:
            return self._plain(prepared.text, encoding)
        offsets = encoding.offsets
        trained = [True] * len(offsets) if prepared.spans is None else _within(offsets, prepared.spans)
        return Encoded(encoding.ids, trained, prepared.text, offsets)

    def _plain(self, text: str, encoding: Any) -> Encoded:
        """A plain text is trained on whole and closed by the end token, so that the model learns to stop."""
        ids, offsets = encoding.ids, encoding.offsets
        opening, closing = self._around(ids)
        if opening is not None:
            token, number = opening
            ids, text = [number, *ids], token + text
            offsets = [(0, len(token)), *((start + len(token), end + len(token)) for start, end in offsets)]
        if closing is not None:
            token, number = closing
            ids, offsets, text = [*ids, number], [*offsets, (len(text), len(text + token))], text + token
        return Encoded(ids, [True] * len(ids), text, offsets)

    def _length(self, prepared: _Prepared, encoding: Any) -> int:
        around = self._around(encoding.ids) if prepared.is_plain else ()
        return len(encoding) + sum(token is not None for token in around)

    def _around(self, ids: list[int]) -> tuple[_Numbered | None, _Numbered | None]:
        """The begin and end token that a plain text lacks: it may have been written with them."""
        bos, eos = self._bos, self._eos
        return (
            bos if bos is not None and ids[:1] != [bos[1]] else None,
            eos if eos is not None and ids[-1:] != [eos[1]] else None,
        )


@dataclass(frozen=True, slots=True)
class _Prepared:
    """An example as text, before it is tokenised."""

    text: str
    spans: list[Span] | None
    """Where it is learned; None for everywhere."""
    is_plain: bool = False


def _numbered(tokenizer: Tokenizer, token: str | None) -> _Numbered | None:
    number = tokenizer.token_to_id(token) if token is not None else None
    return (token, number) if token is not None and number is not None else None


def _preface(template: ChatTemplate, special: Mapping[str, str]) -> str:
    """What the template itself writes between the opening of the last assistant turn and its text.

    Qwen 3 says there that no reasoning went before, and says it no more once other turns follow. Only this may an
    earlier answer lack and still be what the model is to say.
    """
    asked = [{"role": "user", "content": "?"}]
    answered = [*asked, {"role": "assistant", "content": _PROBE}]
    try:
        before = template.render(asked, None, special, answer_next=True).text
        through = template.render(answered, None, special, answer_next=False).text
    except TemplateRefuses:
        return ""
    preface, found, _ = through.removeprefix(before).partition(_PROBE)
    return preface if found and through.startswith(before) else ""


def _text(message: Message) -> str:
    return (message.get("content") or "").strip()


def _says(rendered: str, message: Message) -> bool:
    """Whether the message's text stands in what was rendered."""
    return _text(message) in rendered


def _is_learned(message: Message) -> bool:
    """True for an assistant turn, unless it has weight 0."""
    return bool(message["role"] == "assistant" and message.get("weight", 1) != 0)


def _marked(turns: list[int], learned: list[int], generated: list[Span]) -> list[Span] | None:
    """What the template marks of the learned ones among the assistant's turns; None where that cannot be known."""
    if len(learned) == len(turns):
        return generated
    if len(generated) == len(turns):
        return [span for i, span in zip(turns, generated, strict=True) if i in learned]
    return None


def _within(offsets: list[Span], spans: list[Span]) -> list[bool]:
    """Which tokens lie within one of the spans. Both run in order, so one pass is enough."""
    trained, ahead = [], itertools.chain(spans, itertools.repeat((1 << 62, 1 << 62)))
    start, end = next(ahead)
    for first, last in offsets:
        while first >= end:
            start, end = next(ahead)
        trained.append(start <= first < last <= end)
    return trained


def _templates(files: Mapping[str, bytes], config: Mapping[str, Any]) -> dict[str, str]:
    """By name. A file goes before what the configuration says."""
    if TEMPLATE in files:
        return {"default": files[TEMPLATE].decode()}
    match config.get("chat_template"):
        case str() as source:
            return {"default": source}
        case list() as named:
            return {entry["name"]: entry["template"] for entry in named}
        case dict() as named:
            return dict(named)
        case _:
            return {}
