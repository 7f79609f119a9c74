"""Every family of chat templates in the catalogue, on tokens: what begins, what is trained on, what ends.

Held together with packing and truncation, since it is their labels that the loss sees.
"""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from adaptml.dataset.shapes import Example, Finding, Message
from adaptml.tokens.chat import CONFIG, TOKENIZER, ChatTokenizer, Encoded
from adaptml.tokens.preview import segments
from schemas.catalogue import CATALOGUE, FAMILIES
from schemas.errors import CODES
from schemas.manifest import Training
from tests.unit import families
from tests.unit.tiny import turn, unhurried
from trainer.data import bound
from trainer.packing import IGNORED, Tokens, pack

every = pytest.mark.parametrize("family", sorted(FAMILIES))
with_tools = pytest.mark.parametrize("family", sorted(name for name, family in FAMILIES.items() if family.tools))

ASKED, ANSWERED, AGAIN, REPLIED = "Does it whistle?", "Yes, at 100 °C 👋🏽.", "Is it\nloud?", "Rather."
QUESTION, ANSWER = turn("user", ASKED), turn("assistant", ANSWERED)
TWO_ANSWERS = [QUESTION, ANSWER, turn("user", AGAIN), turn("assistant", REPLIED)]
SYSTEM = turn("system", "You sell kettles.")
TOOLS = [{"type": "function", "function": {"name": "find", "description": "Finds.", "parameters": {"type": "object"}}}]
CALL = {"type": "function", "id": "a1b2c3d4e", "function": {"name": "find", "arguments": {"n": 1}}}
WITH_CALL = [
    turn("user", "Find it."),
    turn("assistant", None, tool_calls=[CALL]),
    turn("tool", "It is here.", tool_call_id="a1b2c3d4e"),
    turn("assistant", "Found."),
]
CALLED = {
    "llama3": '{"name": "find", "parameters": {"n": 1}}<|eot_id|>',
    "mistral": ' [TOOL_CALLS] [{"name": "find", "arguments": {"n": 1}, "id": "a1b2c3d4e"}]</s>'.strip(),
    "qwen2.5": '<tool_call>\n{"name": "find", "arguments": {"n": 1}}\n</tool_call><|im_end|>',
    "qwen3": '<tool_call>\n{"name": "find", "arguments": {"n": 1}}\n</tool_call><|im_end|>',
}
NO_REASONING = "<think>\n\n</think>\n\n"
"""What Qwen 3 writes before a last answer that has no reasoning."""


def encoded(family: str, messages: list[Message], train_on: Any = "completions", **more: Any) -> Encoded:
    return families.chat(family).encode(Example(messages, **more), train_on)


def refusal(family: str, messages: list[Message], train_on: Any = "completions", **more: Any) -> Finding:
    (found,) = families.chat(family).encode_batch([Example(messages, **more)], train_on)
    assert isinstance(found, Finding)
    assert CODES[found.code].severity == "error"
    assert families.chat(family).count([Example(messages, **more)], train_on) == [found]
    return found


def trained(example: Encoded) -> list[str]:
    """The texts that are trained on, each with what ends it."""
    return [text for text, is_trained in segments(example) if is_trained]


def answer(family: str, text: str, *, is_last: bool) -> str:
    """What the model is to write."""
    before = {"mistral": " ", "qwen3": NO_REASONING if is_last else ""}.get(family, "")
    return f"{before}{text}{FAMILIES[family].end_of_turn}"


def number(family: str, token: str) -> int:
    found = families.bare(family).token_to_id(token)
    assert found is not None
    return found


# Begin and end


@every
@pytest.mark.parametrize("train_on", ["completions", "all"])
def test_a_conversation_begins_once(family: str, train_on: str) -> None:
    ids = encoded(family, TWO_ANSWERS, train_on).ids
    bos = FAMILIES[family].bos
    if bos is None:
        assert number(family, "<|im_start|>") == ids[0]  # which opens the first turn
        assert ids.count(number(family, "<|im_start|>")) == sum(t == "<|im_start|>" for t in tokens(family, ids))
    else:
        assert ids[0] == number(family, bos)
        assert ids.count(number(family, bos)) == 1


def tokens(family: str, ids: list[int]) -> list[str]:
    return [families.bare(family).id_to_token(i) for i in ids]


@every
def test_a_plain_text_begins_as_the_tokenizer_begins_it_and_ends_once(family: str) -> None:
    made = families.chat(family).encode(Example([], "Once upon a time"))
    bos, eos = FAMILIES[family].bos, families.EOS[family]
    assert made.ids.count(number(family, eos)) == 1
    assert made.ids[-1] == number(family, eos)
    assert (bos is None) or (made.ids[0] == number(family, bos) and made.ids.count(made.ids[0]) == 1)


@every
def test_each_answer_ends_with_the_end_of_turn_which_is_trained_on(family: str) -> None:
    made = encoded(family, TWO_ANSWERS)
    end = number(family, FAMILIES[family].end_of_turn)
    runs = [
        [i for i, _ in run]
        for is_trained, run in groupby(zip(made.ids, made.trained, strict=True), key=lambda t: t[1])
        if is_trained
    ]
    assert len(runs) == 2
    for run in runs:
        assert run[-1] == end
        assert run.count(end) == 1


# What is trained on


@every
def test_answers_are_trained_on_and_nothing_else(family: str) -> None:
    made = encoded(family, TWO_ANSWERS)
    assert trained(made) == [answer(family, ANSWERED, is_last=False), answer(family, REPLIED, is_last=True)]


@every
def test_a_turn_of_weight_0_is_not_trained_on(family: str) -> None:
    first, last = ({**message, "weight": 0} for message in (ANSWER, TWO_ANSWERS[3]))
    made = encoded(family, [QUESTION, first, *TWO_ANSWERS[2:]])
    assert made.ids == encoded(family, TWO_ANSWERS).ids
    assert trained(made) == [answer(family, REPLIED, is_last=True)]
    assert trained(encoded(family, [*TWO_ANSWERS[:3], last])) == [answer(family, ANSWERED, is_last=False)]


@every
def test_all_trains_on_every_token(family: str) -> None:
    made = encoded(family, TWO_ANSWERS, "all")
    assert all(made.trained)
    assert made.ids == encoded(family, TWO_ANSWERS).ids


@every
def test_what_is_asked_for_is_what_a_server_asks_the_model(family: str) -> None:
    """Up to each answer there stands what is rendered to ask for it."""
    made, asked = encoded(family, TWO_ANSWERS), families.chat(family)
    for i, text in ((1, answer(family, ANSWERED, is_last=False)), (3, answer(family, REPLIED, is_last=True))):
        assert made.rendered.startswith(asked.render(TWO_ANSWERS[:i], answer_next=True) + text)


WORDS = st.text(min_size=1).filter(str.strip)
PAIRS = st.lists(st.tuples(WORDS, WORDS, st.sampled_from([0, 1])), min_size=1, max_size=3)


def is_plain(family: str, pairs: list[tuple[str, str, int]]) -> bool:
    """Without control tokens, which the check of the data refuses, and without marks of reasoning."""
    texts = "".join(text for asked, answered, _ in pairs for text in (asked, answered))
    return not any(token in texts for token in (*FAMILIES[family].control_tokens, "think>"))


@every
@unhurried
@given(PAIRS)
def test_it_is_the_answers_whatever_the_texts_are(family: str, pairs: list[tuple[str, str, int]]) -> None:
    if not is_plain(family, pairs):
        return
    turns = [(turn("user", asked), turn("assistant", text, weight=weight)) for asked, text, weight in pairs]
    made = encoded(family, [message for pair in turns for message in pair])
    ends = made.ids.count(number(family, FAMILIES[family].end_of_turn))
    is_trained = [
        t for i, t in zip(made.ids, made.trained, strict=True) if i == number(family, FAMILIES[family].end_of_turn)
    ]
    assert sum(is_trained) == sum(weight for _, _, weight in pairs)
    assert ends >= len(pairs)
    expected = "".join(
        answer(family, shown(family, text, is_last=at == len(pairs) - 1), is_last=at == len(pairs) - 1)
        for at, (_, text, weight) in enumerate(pairs)
        if weight
    )
    # A token may reach over the border of prompt and answer; it is not trained on then.
    assert len(expected) - len("".join(trained(made))) <= 2 * len(pairs)
    assert is_subsequence("".join(trained(made)), expected)


def shown(family: str, text: str, *, is_last: bool) -> str:
    """An answer as the template writes it."""
    if family == "qwen3" and is_last:
        return text.lstrip("\n")
    return text if family in {"chatml", "qwen2.5", "qwen3"} else text.strip()


def is_subsequence(part: str, whole: str) -> bool:
    rest = iter(whole)
    return all(character in rest for character in part)


# The system turn


@every
def test_a_system_turn_stands_where_the_family_puts_it(family: str) -> None:
    conversation = [SYSTEM, QUESTION, ANSWER]
    if FAMILIES[family].system == "refused":
        found = refusal(family, conversation)
        assert (found.code, found.values) == ("template_refuses", {"detail": "there is no system role"})
        return
    for train_on in ("completions", "all"):
        made = encoded(family, conversation, train_on)
        assert made.rendered.count("You sell kettles.") == 1
        asked = families.chat(family).render(conversation[:2], answer_next=True)
        assert made.rendered == asked + made.rendered[len(asked) :]
        assert asked + answer(family, ANSWERED, is_last=True) == made.rendered.rstrip()
    assert trained(encoded(family, conversation)) == [answer(family, ANSWERED, is_last=True)]


@pytest.mark.parametrize("family", sorted(n for n, f in FAMILIES.items() if f.system in {"turn", "user"}))
def test_a_system_turn_before_several_answers(family: str) -> None:
    made = encoded(family, [SYSTEM, *TWO_ANSWERS])
    assert trained(made) == [answer(family, ANSWERED, is_last=False), answer(family, REPLIED, is_last=True)]


def test_a_system_turn_that_the_template_leaves_out_is_never_lost_silently() -> None:
    """Mistral's writes it into the user turn that is answered next, and so not before earlier answers."""
    left_out = "it leaves out the system turn where more than the last answer is trained on"
    for train_on in ("completions", "all"):
        found = refusal("mistral", [SYSTEM, *TWO_ANSWERS], train_on)
        assert (found.code, found.values) == ("template_refuses", {"detail": left_out})
    only_last = [SYSTEM, QUESTION, ANSWER | {"weight": 0}, *TWO_ANSWERS[2:]]
    made = encoded("mistral", only_last)
    assert made.rendered == (
        f"<s>[INST] {ASKED}[/INST] {ANSWERED}</s>[INST] You sell kettles.\n\n{AGAIN}[/INST] {REPLIED}</s>"
    )
    assert trained(made) == [answer("mistral", REPLIED, is_last=True)]


@every
def test_no_system_turn_is_found_missing_that_says_nothing(family: str) -> None:
    if FAMILIES[family].system != "refused":
        made = encoded(family, [turn("system", " "), QUESTION, ANSWER])
        assert trained(made) == [answer(family, ANSWERED, is_last=True)]


# Reasoning


def test_qwen_3_learns_reasoning_where_the_template_keeps_it() -> None:
    thought = turn("assistant", "<think>\nIt boils.\n</think>\n\nYes.")
    assert trained(encoded("qwen3", [QUESTION, thought])) == ["<think>\nIt boils.\n</think>\n\nYes.<|im_end|>"]
    made = encoded("qwen3", [*TWO_ANSWERS[:3], thought])
    assert trained(made) == [f"{ANSWERED}<|im_end|>", "<think>\nIt boils.\n</think>\n\nYes.<|im_end|>"]


def test_an_earlier_answer_is_found_whose_line_breaks_qwen_3_would_cut_from_a_last_one() -> None:
    made = encoded("qwen3", [QUESTION, turn("assistant", "\n\nYes."), *TWO_ANSWERS[2:]])
    assert "".join(trained(made)[:-1]).endswith("Yes.<|im_end|>")
    assert trained(made)[-1] == answer("qwen3", REPLIED, is_last=True)


def test_qwen_3_does_not_learn_an_earlier_answer_without_its_reasoning() -> None:
    thought = turn("assistant", "<think>\nIt boils.\n</think>\n\nYes.")
    assert refusal("qwen3", [QUESTION, thought, *TWO_ANSWERS[2:]]).code == "template_not_maskable"
    made = encoded("qwen3", [QUESTION, thought | {"weight": 0}, *TWO_ANSWERS[2:]])
    assert trained(made) == [answer("qwen3", REPLIED, is_last=True)]


# Tools


@with_tools
def test_calls_are_trained_on_and_their_results_are_not(family: str) -> None:
    made = encoded(family, WITH_CALL, tools=TOOLS)
    assert trained(made) == [CALLED[family], answer(family, "Found.", is_last=True)]
    assert '"description": "Finds."' in made.rendered
    assert families.chat(family).ignored_tools(Example(WITH_CALL, tools=TOOLS)) is None


@pytest.mark.parametrize("family", sorted(name for name, family in FAMILIES.items() if not family.tools))
def test_a_family_without_tools_says_so(family: str) -> None:
    found = families.chat(family).ignored_tools(Example(TWO_ANSWERS, tools=TOOLS))
    assert found is not None
    assert (found.code, found.values) == ("template_ignores_tools", {"what": "the tools"})


@pytest.mark.parametrize("family", ["gemma", "gemma3"])
def test_a_family_without_a_tool_role_refuses_results(family: str) -> None:
    assert refusal(family, WITH_CALL).code == "template_refuses"


@pytest.mark.parametrize("family", ["llama3", "mistral"])
def test_text_beside_a_call_that_the_template_leaves_out_is_told(family: str) -> None:
    said = [WITH_CALL[0], {**WITH_CALL[1], "content": "Let me look."}, *WITH_CALL[2:]]
    found = families.chat(family).ignored_tools(Example(said, tools=TOOLS))
    assert found is not None
    assert found.values == {"what": "the text beside tool calls"}


def test_calls_that_a_template_cannot_write_are_refused_in_its_words() -> None:
    twice = [WITH_CALL[0], {**WITH_CALL[1], "tool_calls": [CALL, CALL]}, *WITH_CALL[2:]]
    assert refusal("llama3", twice).values == {"detail": "one call at a time"}
    short = [WITH_CALL[0], {**WITH_CALL[1], "tool_calls": [CALL | {"id": "call_1"}]}, *WITH_CALL[2:]]
    told = {"detail": "Tool call IDs should be alphanumeric strings with length 9!"}
    assert refusal("mistral", short).values == told


# Truncated and packed


@every
def test_labels_survive_packing_and_no_example_predicts_the_next(family: str) -> None:
    """The loss sees each answer to its end of turn, and never a token of another example."""
    settings = Training(epochs=1.0, max_seq_length=4096)
    conversations = [TWO_ANSWERS, TWO_ANSWERS[:2], TWO_ANSWERS[2:]]
    examples = [made(bound(encoded(family, one), settings)) for one in conversations]
    (row,) = pack(examples, 4096)
    end = number(family, FAMILIES[family].end_of_turn)
    labels = row.next_tokens.tolist()
    assert labels.count(end) == 4
    starts = [i for i, position in enumerate(row.position_ids.tolist()) if position == 0]
    assert all(labels[start - 1] == IGNORED for start in [*starts[1:], len(labels)])
    ids = row.input_ids.tolist()
    assert all(label in (IGNORED, following) for label, following in zip(labels, ids[1:], strict=False))
    assert len(ids) == sum(len(example) for example in examples)  # no padding, so that pad is no label anywhere
    if (pad := families.PAD.get(family)) not in (None, FAMILIES[family].end_of_turn):
        assert number(family, pad) not in ids


def made(bounded: tuple[list[int], list[int]] | Finding | None) -> Tokens:
    assert isinstance(bounded, tuple)
    return Tokens(*bounded)


@every
def test_a_cut_answer_loses_its_end_of_turn_and_nothing_before_it_is_trained_on(family: str) -> None:
    whole = encoded(family, TWO_ANSWERS)
    end = number(family, FAMILIES[family].end_of_turn)
    for limit in range(32, len(whole)):
        cut = bound(whole, Training(epochs=1.0, max_seq_length=limit, overlong="truncate"))
        if isinstance(cut, Finding):
            assert cut.code == "nothing_left_after_truncation"
            assert not any(whole.trained[1:limit])
            continue
        ids, labels = made(cut).ids, made(cut).labels
        assert ids == whole.ids[:limit]
        assert [label != IGNORED for label in labels] == whole.trained[:limit]
        assert labels.count(end) == sum(t for i, t in zip(ids, whole.trained, strict=False) if i == end)


# The catalogue and others


@every
def test_no_text_may_hold_what_the_template_writes(family: str) -> None:
    assert set(families.chat(family).control_tokens) <= {*FAMILIES[family].control_tokens, families.EOS[family]}


@every
@pytest.mark.parametrize(
    ("messages", "tools"),
    [(TWO_ANSWERS, None), ([SYSTEM, *TWO_ANSWERS], None), (WITH_CALL, TOOLS), ([QUESTION, ANSWER], TOOLS)],
    ids=["two answers", "system", "calls", "tools"],
)
def test_tokens_are_those_of_transformers(family: str, messages: list[Message], tools: Any, tmp_path: Path) -> None:
    """Where the template takes the conversation, and but for the system turn that Mistral's leaves out."""
    (tmp_path / TOKENIZER).write_text(families.bare(family).to_str(), "utf-8")
    (tmp_path / CONFIG).write_text(json.dumps(families.config(family)), "utf-8")
    ours = ChatTokenizer.from_files({name: (tmp_path / name).read_bytes() for name in (TOKENIZER, CONFIG)})
    (found,) = ours.encode_batch([Example(messages, tools=tools)], "all")
    if isinstance(found, Finding):
        assert found.code == "template_refuses"
        return
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    present = [{key: value for key, value in message.items() if value is not None} for message in messages]
    if family == "llama3":
        assert "Today Date: 26 Jul 2024" in found.rendered  # theirs is today's
        found = ours.encode(Example(messages, tools=tools), "all")
        text = theirs.apply_chat_template(present, tools=tools, tokenize=False)
        assert found.rendered.split("Today Date: ")[1][11:] == text.split("Today Date: ")[1][11:]
    else:
        assert found.ids == theirs.apply_chat_template(present, tools=tools, return_dict=False)


def test_a_date_that_a_template_writes_is_the_same_on_every_day() -> None:
    """A run that goes on after midnight would not find its checkpoint otherwise: that is known by its tokens."""
    assert "Today Date: 26 Jul 2024\n" in encoded("llama3", TWO_ANSWERS).rendered


def test_every_chatting_model_has_a_family_that_is_held_here() -> None:
    for row in CATALOGUE.values():
        assert row.chat is None or (families.TEMPLATES / f"{row.chat}.jinja").is_file()
