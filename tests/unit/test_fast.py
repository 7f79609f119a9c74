from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from adaptml.dataset import examine, native
from adaptml.dataset.check import DataSource
from adaptml.dataset.chunk import Chunk
from adaptml.dataset.depth import MAX_DEPTH
from adaptml.dataset.examine import Examined, Examiner
from adaptml.dataset.fast import FastPath
from adaptml.dataset.fingerprints import PRINT, Prints
from adaptml.dataset.report import Report
from adaptml.dataset.shapes import SHAPES
from adaptml.dataset.terms import Terms
from adaptml.dataset.usual import UNKNOWN, Setup
from tests.unit.rows import (
    CONTROL,
    TERMS,
    checked,
    chunks_of,
    conversation,
    good_row,
    good_rows,
    jsonl,
    message,
    odd_text,
    source,
)

TOKENS = (*CONTROL, "</s>", "<｜end▁of▁turn｜>")
WAYS = ("typed", "native") if native.certify is not None else ("typed",)
"""To read rows of the usual form. Where nothing could be compiled there is one, and test_native says so."""


@contextmanager
def reading(way: str) -> Iterator[None]:
    """Rows of the usual form are read in one of WAYS."""
    with pytest.MonkeyPatch.context() as patch:
        if way == "typed":
            patch.setattr(native, "certify", None)
        yield


@contextmanager
def one_by_one() -> Iterator[None]:
    """Every row is examined."""

    def nothing(_: FastPath, chunk: Chunk) -> Prints:
        prints = np.zeros(len(chunk), PRINT)
        prints["characters"] = UNKNOWN
        return prints

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FastPath, "certify", nothing)
        yield


def findings(report: Report) -> dict[str, Any]:
    """Everything that a report says."""
    return {
        "shape": report.shape,
        "rows": report.rows,
        "examples": report.examples,
        "characters": report.characters,
        "blank lines": report.blank_lines,
        "counts": report.counts,
        "errors": (report.row_errors, report.other_errors),
        "shown": report.shown,
        "samples": {
            role: [sorted((*item.place, item.characters) for item in kept) for kept in (s.first, s.longest, s.every)]
            for role, s in report.samples.items()
        },
    }


def examined_count(data: bytes, size: int, terms: Terms) -> tuple[int, Report]:
    """(how many rows were examined one by one, the report)"""
    count = 0
    whole = Examiner.examine

    def counting(self: Examiner, row: Any, file: str) -> Examined:
        nonlocal count
        count += 1
        return whole(self, row, file)

    with pytest.MonkeyPatch.context() as patch, chunks_of(size):
        patch.setattr(examine.Examiner, "examine", counting)
        report = checked(data, terms=terms)
    return count, report


# The fast way is taken


AWKWARD = json.dumps('ä "quoted"\n😀 and \\')[1:-1]
"""It ends in a backslash."""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("is_ascii", [True, False])
@pytest.mark.parametrize("more", [{}, {"id": 7, "source": {"url": "x", "tags": ["a"]}}])
def test_rows_of_the_usual_form_are_not_examined_but_for_the_first_ones(
    shape: str, is_ascii: bool, more: dict[str, Any], way: str
) -> None:
    texts = [json.dumps(good_row(shape, i) | more).replace(f"question {i}", f"{i} {AWKWARD}") for i in range(200)]
    lines = [json.dumps(json.loads(text), ensure_ascii=is_ascii).encode() for text in texts]
    with reading(way):
        count, report = examined_count(jsonl(lines), len(lines[0]) + 1, Terms(control_tokens=TOKENS))
    assert count < 10
    assert report.examples["train"] == 200
    assert report.errors == 0


@pytest.mark.parametrize(
    "row",
    [
        conversation('He said "yes."', 'A quote at the end: "so"'),
        conversation("C:\\temp\\", 'back\\slashes \\\\ and "quotes\\"'),
        {"messages": [message("system", "s"), *conversation("ä 😀 漢字", "é")["messages"]]},
        {"messages": [*conversation("a", "b")["messages"], *conversation("c", "d")["messages"]]},
    ],
    ids=["quotes", "backslashes", "beyond ASCII", "turns"],
)
@pytest.mark.parametrize("separators", [(", ", ": "), (",", ":")])
@pytest.mark.parametrize("ensure_ascii", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_what_is_common_in_chats_is_certified(
    row: Any, separators: tuple[str, str], ensure_ascii: bool, way: str
) -> None:
    text = json.dumps(row, separators=separators, ensure_ascii=ensure_ascii).encode() + b"\n"
    with reading(way):
        path = FastPath(Setup("messages", ("messages",), TERMS))
    assert (path.certify(Chunk(1, text * 50))["characters"] > 0).all()


@pytest.mark.parametrize("way", WAYS)
def test_one_odd_row_sends_only_its_neighbours_to_be_examined(way: str) -> None:
    rows: list[Any] = good_rows("messages", 400)
    rows[123] = {"messages": "x"}
    with reading(way):
        path = FastPath(Setup("messages", ("messages",), TERMS))
    certified = path.certify(Chunk(1, jsonl(rows)))["characters"] > 0
    assert not certified[123]
    assert certified.sum() >= 396


# It says the same as examining every row: files are drawn by chance, as Hypothesis would draw mostly small ones

by_chance = settings(max_examples=200, deadline=None, phases=[Phase.reuse, Phase.generate])
"""What is drawn from a generator of random numbers cannot be made smaller."""
PLAIN = ("x", "y", 'so-called "z"', "a\nb", "é", "back\\slash", "😀", "{}", "1")
TRICKY = (
    *("", " ", "\u2003", "\u00a0\n", '"', "\\", '\\"', '"\\', "{", "}", "}{", "null", "prompt", "role", '"role"'),
    *('": "', "größe", "a/b", "user", "text", "{{name}}", "ann@mail.org", "ann@example.com", "+49 30 1234567", "\x7f"),
    *TOKENS,
)
VALUES: tuple[Any, ...] = (
    *(None, None, "x", "", " ", "ann@mail.org", 5, 1.5, 0.1234567890123456789, 1e-7, True),
    *([], {}, ["x"], {"role": "x"}, {"text": "x", "": None}),
)
COLUMNS = (
    *("id", "label", "chosen", "rejected", "größe", "a/b", 'q"t', "b\\s", "t\tb", "", "role", "content", "name"),
    *("text", "tools", "functions", "system", "input", "history", "messages", "prompt", "completion", "output"),
    *("instruction", "conversations"),
)
ROLES = (
    *(("user", "assistant"), ("system", "user", "assistant"), ("user", "assistant", "user", "assistant")) * 10,
    *(("user",), ("assistant",), ("user", "user", "assistant"), ("user", "system", "assistant"), ("robot",)),
    *(("user", "tool", "assistant"), ("developer", "user", "assistant"), ()),
)
SPEAKERS = {"user": ("human", "user"), "assistant": ("gpt", "model"), "tool": ("observation",)}
BROKEN_LINES = (
    *(b"", b" ", b"\r", b"[]", b"null", b'"x"', b"{}", b"{", b"}", b'{"text": "x"', b'{"text": "x"} {"text": "y"}'),
    *(b'{"text": "caf\xe9"}', b'\xef\xbb\xbf{"text": "x"}', b'{"text": NaN}', b'{"prompt": "x}', b'{y", "output": 1}'),
    *(b'{"text": "\\ud800"}', b"{" * 3000 + b"}" * 3000, b'{"id": ' + b"9" * 400 + b', "text": "x"}'),
)
FILES = (("more.jsonl", "train"), ("held-out.jsonl", "validation"))


def a_text(rng: Random) -> str:
    return rng.choice(PLAIN) + rng.choice(PLAIN) if rng.random() < 0.9 else rng.choice(TRICKY)


@dataclass(frozen=True)
class Style:
    """How rows of one dataset differ from good ones, and how they are written."""

    rng: Random
    shape: str
    names: dict[str, str]
    extra: tuple[str, ...]
    oddness: float
    """Of what a row says."""
    sloppiness: float
    """Of how it is written."""
    shares: tuple[float, float]

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def row(self) -> dict[str, Any]:
        """Under the names of the file."""
        rng, required = self.rng, SHAPES[self.shape].required
        row: dict[str, Any] = {self.named(name): a_text(rng) for name in required}
        if self.shape in ("messages", "sharegpt"):
            row = {self.named(required[0]): self.turns()}
        for name in SHAPES[self.shape].optional:
            if self.chance(self.oddness):
                row[self.named(name)] = rng.choice(VALUES)
        for name in self.extra:
            if self.chance(0.7):
                row[name] = rng.choice(VALUES) if self.chance(0.5) else None
        if self.chance(self.oddness):
            row[rng.choice([*row])] = rng.choice(VALUES)
        if self.chance(self.oddness):
            del row[rng.choice([*row])]
        return row

    def turns(self) -> list[dict[str, Any]]:
        rng = self.rng
        keys = [self.named(key) for key in (("role", "content") if self.shape == "messages" else ("from", "value"))]
        roles: tuple[str, ...] = rng.choice(ROLES)
        if self.shape == "sharegpt":
            roles = tuple(rng.choice(SPEAKERS.get(role, (role,))) for role in roles)
        turns: list[dict[str, Any]] = [{keys[0]: role, keys[1]: a_text(rng)} for role in roles]
        if turns and self.chance(self.oddness):
            rng.choice(turns)[rng.choice(["name", "weight", *keys, "speaker"])] = rng.choice(VALUES)
        return turns

    def named(self, name: str) -> str:
        return self.names.get(name, name)

    def written(self, value: Any) -> str:
        """JSON with white space, escapes and keys that appear twice."""
        rng = self.rng
        match value:
            case dict():
                pairs = list(value.items())
                if self.chance(self.sloppiness):
                    rng.shuffle(pairs)
                if pairs and self.chance(self.sloppiness):
                    key, same = rng.choice(pairs)
                    pairs.insert(rng.randrange(len(pairs) + 1), (key, rng.choice([same, None, "x"])))
                members = [f"{self.written(key)}: {self.written(item)}" for key, item in pairs]
                return "{" + ",".join(f"{self.space()}{member}{self.space()}" for member in members) + "}"
            case list():
                return "[" + ",".join(f"{self.space()}{self.written(item)}{self.space()}" for item in value) + "]"
            case str():
                return odd_text(value, rng, self.shares if self.chance(self.sloppiness) else (0.0, 0.0))
            case _:
                return json.dumps(value)

    def space(self) -> str:
        return self.rng.choice([" ", "  ", "\t", "\r"]) if self.chance(self.sloppiness) else ""

    def file(self) -> bytes:
        rng = self.rng
        lines = [self.written(self.row()).encode() for _ in range(rng.randint(1, 20))]
        if self.chance(5 * self.oddness):
            lines.insert(rng.randrange(len(lines) + 1), rng.choice(BROKEN_LINES))
        if self.chance(5 * self.oddness):
            i = rng.randrange(len(lines))
            lines[i] = self.damaged(lines[i])
        end = rng.choice([b"\n", b"\n", b"\r\n"])
        return end.join(lines) + end * rng.randrange(2)

    def damaged(self, line: bytes) -> bytes:
        at, rng = self.rng.randrange(len(line) + 1), self.rng
        put = rng.choice([b"\xff", b"\\u0041", b"\\ud800", b"\t", b"\\/", b"\0", b'"', b"}", b"{", b"\\"])
        return rng.choice([line[:at], line[at:], line[:at] + put + line[at:], line + line, b" " + line, line + b" "])


def odd_files(rng: Random) -> tuple[list[DataSource], Terms]:
    """Files of rows that are alike, some broken, after one row that shows the form; terms under which to check them."""
    shape = rng.choice(sorted(SHAPES))
    own = [*SHAPES[shape].columns(), *{"messages": ("role", "content"), "sharegpt": ("from", "value")}.get(shape, ())]
    names = {rng.choice(own): rng.choice(COLUMNS) for _ in range(rng.choice([0, 0, 0, 1, 2]))}
    extra = tuple(rng.sample(COLUMNS, rng.choice([0, 0, 1, 2, 3])))
    terms = Terms(rng.choice(["auto", "auto", shape]), names, rng.choice([TOKENS, CONTROL, ()]), "tiny")
    shares = rng.choice([(0.0, 1.0), (0.0, 0.5), (0.05, 0.0), (1.0, 1.0)])
    style = Style(rng, shape, names, extra, rng.choice([0, 0.02, 0.1]), rng.choice([0, 0.02, 0.1]), shares)
    first = dict.fromkeys(extra) | {names.get(name, name): item for name, item in good_row(shape, 1).items()}
    sources = [source(jsonl([first]), "first.jsonl")]
    sources += [source(style.file(), name, role) for name, role in FILES[: rng.randint(1, 2)]]
    return sources, terms


def assert_both_ways_agree(sources: list[DataSource], terms: Terms, size: int = 100_000) -> None:
    with chunks_of(size):
        with one_by_one():
            slow = findings(checked(sources, terms=terms))
        for way in WAYS:
            with reading(way):
                assert findings(checked(sources, terms=terms)) == slow, way


@given(rng=st.randoms(use_true_random=True), size=st.integers(1, 2000))
@by_chance
def test_the_report_is_the_same_as_when_every_row_is_examined(rng: Random, size: int) -> None:
    sources, terms = odd_files(rng)
    assert_both_ways_agree(sources, terms, size)


@given(rng=st.randoms(use_true_random=True))
@by_chance
def test_keys_that_are_escaped_or_stand_twice_are_seen(rng: Random) -> None:
    names = rng.choice(["prompt", "größe", "größe", "a/b"]), "completion"
    keys = [*names, *rng.sample(["id", "frage", "größen", "a/c", "x\u2028"], rng.randrange(3))]
    odd = rng.choice(keys)
    lines = [odd_keys(rng, keys, odd) for _ in range(rng.randint(1, 8))]
    sources = [source(jsonl([dict.fromkeys(keys, "z")])), source(jsonl(lines), "more.jsonl")]
    assert_both_ways_agree(sources, Terms(columns=dict(zip(("prompt", "completion"), names, strict=True))))


def odd_keys(rng: Random, keys: list[str], odd: str) -> bytes:
    """An object with each of the keys once, but for the odd one, which may be escaped, stand twice or be missing."""

    def member(key: str, shares: tuple[float, float] = (0.0, 0.0)) -> str:
        return f"{odd_text(key, rng, shares)}: {json.dumps(key if rng.random() < 0.02 else rng.choice('xyz'))}"

    forms = rng.choices(["once", "escaped", "twice", "both", "none"], [6, 2, 2, 1, 1])[0]
    members = [member(key) for key in keys if key != odd]
    members += [member(odd)] * {"once": 1, "twice": 2, "both": 1}.get(forms, 0)
    members += [member(odd, rng.choice([(0.5, 0.5), (0.0, 1.0)]))] * (forms in ("escaped", "both"))
    rng.shuffle(members)
    return "{{{}}}".format(", ".join(members)).encode()


ROWS_AND_NOT = (
    *(b'{"text": "x"}', b'{"text": "y"}\r', b'{"text": "v"} {"text": "w"}', b"", b"{}"),
    *(b'{"text":', b'"z"}', b' {"text": "u"}'),
)


@pytest.mark.parametrize("levels", [98, 99, 100, 101, 500, 900, 950, 980, 5000])
@pytest.mark.parametrize("column", ["id", "text"])
@pytest.mark.parametrize("brackets", ["[]", ('{"a":', "}")], ids=["lists", "objects"])
def test_levels_are_counted_the_same(levels: int, column: str, brackets: tuple[str, str]) -> None:
    deep = brackets[0] * levels + ("1" if len(brackets[0]) > 1 else "") + brackets[1] * levels
    lines = [f'{{"text": "a [[ {i}", "id": [{{}}, "[{{"]}}' for i in range(20)]
    lines[7] = f'{{"text": "a", "{column}": {deep}}}'
    sources = [source(jsonl([{"text": "x", "id": 1}]), "first.jsonl"), source("\n".join(lines).encode(), "more.jsonl")]
    assert_both_ways_agree(sources, Terms())
    assert (checked(sources).counts["nested_too_deeply"] > 0) is (levels >= MAX_DEPTH)


@given(lines=st.lists(st.sampled_from(ROWS_AND_NOT), min_size=1, max_size=6))
@settings(max_examples=150, deadline=None)
def test_lines_that_are_not_one_row_each_are_seen(lines: list[bytes]) -> None:
    assert_both_ways_agree([source(ROWS_AND_NOT[0], "first.jsonl"), source(b"\n".join(lines), "more.jsonl")], Terms())


def test_a_column_that_is_read_may_make_a_row_another_shape() -> None:
    rows = [good_row("prompt_completion", i) | {"messages": "be brief" if i == 2 else None} for i in range(5)]
    sources = [source(jsonl(rows[:1]), "first.jsonl"), source(jsonl(rows[1:]), "more.jsonl")]
    assert_both_ways_agree(sources, Terms(columns={"system": "messages"}))


@given(rng=st.randoms(use_true_random=True), shape=st.sampled_from(sorted(SHAPES)), asked=st.booleans())
@by_chance
def test_columns_that_make_a_row_another_shape_are_seen(rng: Random, shape: str, asked: bool) -> None:
    others = rng.sample([name for name in COLUMNS if name not in SHAPES[shape].required], rng.randint(1, 5))
    rows = [
        {name: rng.choice([None, "x", True, 5, []]) for name in rng.sample(others, rng.randint(0, len(others)))}
        | good_row(shape, i)
        for i in range(rng.randint(1, 6))
    ]
    columns = rng.choice([{}, {"messages": "chosen"}, {"completion": "chosen"}])
    sources = [source(jsonl([dict.fromkeys(others) | good_row(shape, 99)])), source(jsonl(rows), "more.jsonl")]
    assert_both_ways_agree(sources, Terms(shape if asked else "auto", columns))
