"""A tokenizer as GGUF holds it, and the tokens that llama.cpp makes with it.

llama.cpp knows two kinds that the catalogue has: byte-level BPE ("gpt2"), whose way of cutting a text into words is
told by a name, and SentencePiece's ("llama"), which joins the pair with the highest score. Both are computed here
from nothing but what the file says, so that a file's tokens can be compared with the model's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf
from gguf import TokenType
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from adaptml.tokens.chat import TOKENIZER

_SPACE = "\u2581"
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_NEVER = -1e6
"""Score of a piece that no merge makes: all others come first."""
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
WORDS: Mapping[str, list[tuple[str, Any]]] = {
    "gpt-2": [("ByteLevel", True)],
    "smollm": [("Digits", True), ("ByteLevel", True)],
    "llama-bpe": [("Split", _LLAMA3), ("ByteLevel", False)],
    "qwen2": [("Split", _QWEN2), ("ByteLevel", False)],
}
"""llama.cpp's name of a way to cut a text into words → its steps in tokenizer.json."""
PROBES = (
    "Hello, world! It's 2026-11-25; does it whistle at 100 °C?",
    "  two  spaces,\ttabs\n\n\nand lines \r\n  indented: x = [1, 22, 333, 4444]",
    "Grüße, 你好, привет, नमस्ते 👋🏽 — “quoted” …",
    "SELECT * FROM t WHERE a<>b; <html><b>don't</b></html> I'LL WE'VE",
    "a",
)
"""Texts on which both tokenizers must agree. None holds a control token."""


class NotAlike(Exception):  # noqa: N818 - says what is wrong with the vocabulary
    """GGUF cannot hold this tokenizer, or what it holds makes other tokens."""


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file says of a tokenizer."""

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    scores: list[float]
    """Empty for byte-level BPE."""
    merges: list[str]
    """Empty for SentencePiece's."""
    ids: dict[str, int]
    """bos, eos, eot, unk, pad → token."""
    adds_bos: bool
    adds_space: bool
    """Whether a space is put before each stretch of text."""
    template: str | None

    def write(self, writer: gguf.GGUFWriter) -> None:
        """Adds it to a file's metadata."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.scores:
            writer.add_token_scores(self.scores)
        if self.merges:
            writer.add_token_merges(self.merges)
        for name, token in self.ids.items():
            getattr(writer, f"add_{name}_token_id")(token)
        writer.add_add_bos_token(self.adds_bos)
        writer.add_add_eos_token(False)
        writer.add_add_space_prefix(self.adds_space)
        if self.template is not None:
            writer.add_chat_template(self.template)

    @classmethod
    def read(cls, file: gguf.GGUFReader) -> Vocabulary:
        """From a file's metadata, and from nothing else."""
        keys = gguf.Keys.Tokenizer

        def get(key: str, default: Any = None) -> Any:
            found = file.get_field(key)
            return default if found is None else found.contents()

        ids = {"bos": keys.BOS_ID, "eos": keys.EOS_ID, "eot": keys.EOT_ID, "unk": keys.UNK_ID, "pad": keys.PAD_ID}
        return cls(
            model=get(keys.MODEL),
            pre=get(keys.PRE),
            tokens=get(keys.LIST),
            types=get(keys.TOKEN_TYPE),
            scores=get(keys.SCORES, []),
            merges=get(keys.MERGES, []),
            ids={name: get(key) for name, key in ids.items() if get(key) is not None},
            adds_bos=get(keys.ADD_BOS),
            adds_space=get(keys.ADD_PREFIX),
            template=get(keys.CHAT_TEMPLATE),
        )


def vocabulary(folder: Path, tokenizer: Any, *, rows: int, end_of_turn: str | None) -> Vocabulary:
    """Of the tokenizer in a model's folder. `rows` are those of the embedding. Raises NotAlike."""
    written = json.loads((folder / TOKENIZER).read_text("utf-8"))
    model = written["model"]
    if model["type"] != "BPE":
        raise NotAlike(f"the tokenizer is of type {model['type']}")
    pieces: dict[int, str] = {i: token for token, i in model["vocab"].items()}
    added = {token["id"]: token for token in written["added_tokens"]}
    is_pieces = bool(model.get("byte_fallback"))
    unknown = model.get("unk_token") or tokenizer.unk_token
    if max([*pieces, *added]) >= rows:
        raise NotAlike(f"the tokenizer has more tokens than the embedding's {rows}")

    tokens, types = [], []
    for i in range(rows):
        if i in added:
            token, kind = _added(added[i], is_pieces=is_pieces, unknown=unknown)
        elif i in pieces:
            token = pieces[i]
            kind = TokenType.BYTE if is_pieces and _BYTE.fullmatch(token) else TokenType.NORMAL
            kind = TokenType.UNKNOWN if is_pieces and token == unknown else kind
        else:
            token, kind = f"[PAD{i}]", TokenType.UNUSED
        tokens.append(token)
        types.append(int(kind))

    named = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "unk": tokenizer.unk_token_id}
    named |= {"pad": tokenizer.pad_token_id}
    if end_of_turn is not None and (eot := tokenizer.convert_tokens_to_ids(end_of_turn)) != named["eos"]:
        named["eot"] = eot
    merges = [pair if isinstance(pair, list) else pair.split(" ") for pair in model["merges"]]
    begins = tokenizer("a")["input_ids"][:1]
    made = Vocabulary(
        model="llama" if is_pieces else "gpt2",
        pre="default" if is_pieces else _words(written["pre_tokenizer"]),
        tokens=tokens,
        types=types,
        scores=_scores(tokens, merges) if is_pieces else [],
        merges=[] if is_pieces else [" ".join(pair) for pair in merges],
        ids={name: token for name, token in named.items() if token is not None},
        adds_bos=named["bos"] is not None and begins == [named["bos"]],
        adds_space=is_pieces and _adds_space(written),
        template=_template(tokenizer),
    )
    require_alike(made, Tokenizer.from_file(str(folder / TOKENIZER)))
    return made


def require_alike(made: Vocabulary, own: Tokenizer) -> None:
    """Raises NotAlike where the file's tokens of a text are not the model's own."""
    encode = Encoder(made)
    for text in PROBES:
        if encode(text) != own.encode(text, add_special_tokens=False).ids:
            raise NotAlike(f"the file's tokenizer ({made.model}, {made.pre}) makes other tokens than the model's own")


class Encoder:
    """llama.cpp's way from text to tokens."""

    def __init__(self, made: Vocabulary) -> None:
        self._made = made
        self._id_of = {token: i for i, token in reversed(list(enumerate(made.tokens)))}
        apart = [
            token
            for token, kind in zip(made.tokens, made.types, strict=True)
            if kind in (TokenType.CONTROL, TokenType.USER_DEFINED) and token
        ]
        # The longest first, as llama.cpp looks for them.
        longest_first = sorted(apart, key=len, reverse=True)
        self._apart = re.compile("|".join(map(re.escape, longest_first))) if apart else None
        self._byte_level = _byte_level(made) if made.model == "gpt2" else None

    def __call__(self, text: str) -> list[int]:
        """The tokens, without those that are put before and after each text."""
        ids: list[int] = []
        end = 0
        for match in self._apart.finditer(text) if self._apart else ():
            ids += [*self._stretch(text[end : match.start()]), self._id_of[match[0]]]
            end = match.end()
        return ids + self._stretch(text[end:])

    def _stretch(self, text: str) -> list[int]:
        if not text:
            return []
        if self._byte_level is not None:
            return list(self._byte_level.encode(text).ids)
        before = " " if self._made.adds_space else ""
        return list(self._joined((before + text).replace(" ", _SPACE)))

    def _joined(self, text: str) -> Iterator[int]:
        """SentencePiece's BPE: of all neighbours that make a token, those with the highest score are joined, the left
        ones first."""
        symbols = list(text)
        while True:
            pairs = ((self._id_of.get(a + b), i) for i, (a, b) in enumerate(pairwise(symbols)))
            found = [(-self._made.scores[token], i) for token, i in pairs if token is not None]
            if not found:
                break
            _, i = min(found)
            symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
        for symbol in symbols:
            if (token := self._id_of.get(symbol)) is not None:
                yield token
            else:
                yield from (self._id_of[f"<0x{byte:02X}>"] for byte in symbol.encode())


def _byte_level(made: Vocabulary) -> Tokenizer:
    normal = {token: i for i, (token, kind) in enumerate(zip(made.tokens, made.types, strict=True)) if kind == 1}
    halves = [pair.partition(" ") for pair in made.merges]
    pairs = [(a, b) for a, _, b in halves if {a, b, a + b} <= normal.keys()]
    ignore = made.pre == "llama-bpe"  # llama.cpp takes a word that is a token as it is
    encoder = Tokenizer(models.BPE(normal, pairs, ignore_merges=ignore))
    encoder.pre_tokenizer = pre_tokenizers.Sequence([_step(*step) for step in WORDS[made.pre]])
    return encoder


def _step(kind: str, how: Any) -> Any:
    match kind:
        case "Digits":
            return pre_tokenizers.Digits(individual_digits=how)
        case "Split":
            return pre_tokenizers.Split(Regex(how), "isolated")
        case _:
            return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=how)


def _words(written: Mapping[str, Any] | None) -> str:
    """llama.cpp's name for how tokenizer.json cuts a text into words. A way without a name cannot be told."""
    steps = [] if written is None else written.get("pretokenizers", [written])
    found: list[tuple[str, Any]] = []
    for step in steps:
        match step:
            case {"type": "Digits", "individual_digits": how}:
                found.append(("Digits", how))
            case {"type": "Split", "pattern": {"Regex": how}, "behavior": "Isolated", "invert": False}:
                found.append(("Split", how))
            case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": how}:
                found.append(("ByteLevel", how))
            case _:
                raise NotAlike(f"llama.cpp has no name for words cut by {step['type']}")
    for name, known in WORDS.items():
        if found == known:
            return name
    raise NotAlike("llama.cpp has no name for the tokenizer's way of cutting words")


def _added(token: Mapping[str, Any], *, is_pieces: bool, unknown: str | None) -> tuple[str, TokenType]:
    """An added token's text and kind. Some of Gemma's are control tokens in all but name."""
    text: str = token["content"]
    if is_pieces and text == unknown:
        return text, TokenType.UNKNOWN
    looks_special = text in {"<pad>", "<mask>", "<2mass>", "[@BOS@]"} or re.fullmatch(r"<\|.*\|>|<unused\d+>", text)
    if token["special"] or looks_special:
        return text, TokenType.CONTROL
    return (text.replace(_SPACE, " ") if is_pieces else text), TokenType.USER_DEFINED


def _scores(tokens: list[str], merges: list[list[str]]) -> list[float]:
    """SentencePiece's scores fall in the order in which its pieces were learned; tokenizer.json keeps the order
    alone, as that of its merges."""
    order: dict[str, float] = {}
    for pair in merges:
        order.setdefault("".join(pair), -float(len(order)))
    return [order.get(token, _NEVER) for token in tokens]


def _adds_space(written: Mapping[str, Any]) -> bool:
    """Whether a space is put before each stretch of text, as Llama 2's and Mistral's tokenizers do."""
    normalizer = written.get("normalizer") or {}
    steps = [*normalizer.get("normalizers", [normalizer]), written.get("pre_tokenizer") or {}]
    return any(
        step.get("type") == "Prepend"
        or (step.get("type") == "Metaspace" and step.get("prepend_scheme") in {"always", "first"})
        for step in steps
    )


def _template(tokenizer: Any) -> str | None:
    template = tokenizer.chat_template
    return template.get("default") if isinstance(template, dict) else template
