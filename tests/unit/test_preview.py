"""What preview.jsonl shows, held against the tokens that are trained on."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

from hypothesis import given

from adaptml.dataset.sample import Sampled
from adaptml.dataset.shapes import Example
from adaptml.tokens.chat import ChatTokenizer, Encoded
from adaptml.tokens.preview import SHOWN, preview, segments, to_lines
from schemas.manifest import Training
from tests.unit import rows, tiny
from tests.unit.rows import TERMS, checked, jsonl
from tests.unit.tiny import PAIRS, conversation, unhurried

CHAT = tiny.chat()


def shown(
    data: Sequence[dict[str, Any]], chat: ChatTokenizer = CHAT, **training: Any
) -> tuple[list[dict[str, Any]], list[Sampled]]:
    """The preview of training rows, and the first of them."""
    report = checked(jsonl(data))
    first = report.samples["train"].first
    return preview(first, report.shape or "", TERMS, Training.model_validate(training), chat), first


def encoded(chat: ChatTokenizer, row: dict[str, Any], train_on: Any = "completions") -> Encoded:
    example = rows.examined(row).example
    assert example is not None
    return chat.encode(example, train_on)


def assert_tells_of(found: Sequence[tuple[str, bool]], encoded: Encoded) -> None:
    """The stretches are the text, in order, and each token lies in one that says whether it is trained on."""
    assert "".join(text for text, _ in found) == encoded.rendered
    assert all(one != other for (_, one), (_, other) in itertools.pairwise(found))
    flags = [trained for text, trained in found for _ in text]
    for (start, end), trained in zip(encoded.offsets, encoded.trained, strict=True):
        assert set(flags[start:end]) <= {trained}


@unhurried
@given(PAIRS)
def test_segments_are_the_rendered_text_cut_where_training_begins_and_ends(pairs: list[tuple[str, str, int]]) -> None:
    made = CHAT.encode(conversation(pairs))
    assert_tells_of(list(segments(made)), made)


def test_characters_of_several_tokens_are_shown_whole() -> None:
    answer = "Ja, 100 °C 👋🏽 – 熱い!"
    made = CHAT.encode(conversation([("Ist es heiß 🔥?", answer, 1)]))
    assert len(made.ids) > len(set(made.offsets))  # some characters are several tokens
    found = list(segments(made))
    assert_tells_of(found, made)
    assert [text for text, trained in found if trained] == [f"{answer}<|im_end|>"]


def test_of_a_rendering_without_a_token_nothing_is_shown() -> None:
    silent = tiny.chat("{{ '' }}")
    assert list(segments(silent.encode(conversation([("Hello?", "Hi.", 1)])))) == []
    (entry,), _ = shown([rows.conversation("Hello?", "Hi.")], silent)
    assert (entry["tokens"], entry["segments"]) == (0, [])


def test_an_entry_says_where_the_row_stands_and_what_its_tokens_are() -> None:
    data = [rows.conversation("bad"), rows.conversation("Does it whistle?", "Yes.", "Loudly?", "Rather.")]
    (entry,), _ = shown(data)
    made = encoded(CHAT, data[1])
    assert (entry["file"], entry["line"]) == ("train.jsonl", 2)
    assert (entry["tokens"], entry["trained_tokens"]) == (len(made), made.trained_tokens)
    assert entry["exceeds_max_seq_length"] is False
    assert_tells_of([(part["text"], part["trained"]) for part in entry["segments"]], made)


def test_what_is_trained_on_is_what_the_manifest_asks_for() -> None:
    (entry,), _ = shown([rows.conversation("Hello?", "Hi.")], train_on="all")
    assert [part["trained"] for part in entry["segments"]] == [True]


def test_a_plain_text_is_shown_with_the_token_that_closes_it() -> None:
    (entry,), _ = shown([{"text": "Once upon a time"}])
    assert entry["segments"] == [{"text": "Once upon a time</s>", "trained": True}]


def test_an_overlong_row_is_marked() -> None:
    (short, long), _ = shown([rows.conversation("a", "b"), rows.conversation("a", "word " * 60)], max_seq_length=32)
    assert (short["exceeds_max_seq_length"], long["exceeds_max_seq_length"]) == (False, True)


def test_the_first_rows_are_shown_in_order_and_no_more() -> None:
    entries, first = shown([rows.conversation(f"question {i}", "answer") for i in range(SHOWN + 5)])
    assert [entry["line"] for entry in entries] == [item.line for item in first] == list(range(1, SHOWN + 1))


def test_huge_rows_are_not_shown() -> None:
    """A preview is for reading."""
    entries, _ = shown([rows.conversation("a", "b"), rows.conversation("a", "word " * 60_000)])
    assert [entry["line"] for entry in entries] == [1]


def test_a_row_that_the_template_refuses_is_left_out() -> None:
    with_system = {"messages": [rows.message("system", "Be kind."), *rows.conversation("a", "b")["messages"]]}
    entries, _ = shown([with_system, rows.conversation("c", "d")], tiny.chat(tiny.NO_SYSTEM))
    assert [entry["line"] for entry in entries] == [2]


def test_rows_of_a_table_are_shown_like_lines_of_json() -> None:
    data = rows.good_rows(count=3)
    by_suffix = {}
    for suffix in (".jsonl", ".csv", ".parquet"):
        report = checked(rows.file_of(suffix, data), f"train{suffix}")
        found = preview(report.samples["train"].first, report.shape or "", TERMS, Training.model_validate({}), CHAT)
        by_suffix[suffix] = [entry["segments"] for entry in found]
    assert by_suffix[".csv"] == by_suffix[".parquet"] == by_suffix[".jsonl"]
    assert len(by_suffix[".jsonl"]) == 3


def test_each_entry_is_one_line_of_json() -> None:
    entries, _ = shown([rows.conversation("two\nlines\u2028", "日本語 👋"), rows.conversation("c", "d")])
    text = to_lines(entries)
    assert text.endswith("\n")
    assert [json.loads(line) for line in text.removesuffix("\n").split("\n")] == entries
    assert "日本語 👋" in text  # readable as it is
    assert to_lines([]) == ""


def test_an_example_is_shown_as_it_was_read() -> None:
    """A row that was kept as an example, not as its line."""
    item = Sampled("t.csv", 2, 3, Example([tiny.turn("user", "a"), tiny.turn("assistant", "b")]))
    (entry,) = preview([item], "messages", TERMS, Training.model_validate({}), CHAT)
    assert entry["segments"][1] == {"text": "b<|im_end|>", "trained": True}
