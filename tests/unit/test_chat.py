"""Conversations as tokens, over a small tokenizer and one template of each kind that base models have."""

from __future__ import annotations

import json
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptml.dataset.shapes import Example, Finding, Message
from adaptml.tokens.chat import SPECIAL_TOKENS, TEMPLATE, ChatTokenizer, Untemplatable
from adaptml.tokens.store import in_folder
from schemas.catalogue import CATALOGUE
from schemas.errors import problem
from tests.unit import tiny
from tests.unit.tiny import PAIRS, TEXTS, chat, conversation, text_of, trained_text, turn, unhurried

TWO_ANSWERS = [
    turn("system", "You sell kettles."),
    turn("user", "Does it whistle?"),
    turn("assistant", "Yes, at 100 °C."),
    turn("user", "Loudly?"),
    turn("assistant", "Rather 👋🏽."),
]
TOOLS = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]
CALL = {"type": "function", "function": {"name": "find", "arguments": {"n": 1}}}
WITH_CALL = [
    turn("user", "Find it."),
    turn("assistant", None, tool_calls=[CALL]),
    turn("tool", "It is here."),
    turn("assistant", "Found."),
]
SECRET = "hunter2"


def refusal(template: str, conversation: list[Message], **more: Any) -> Finding:
    """What encoding the conversation fails with."""
    (found,) = chat(template).encode_batch([Example(conversation, **more)])
    assert isinstance(found, Finding)
    return found


# What is trained on


@pytest.mark.parametrize("template", [tiny.CHATML, tiny.MARKED], ids=["found by rendering", "marked by the template"])
class TestMask:
    def test_every_answer_with_its_end_of_turn_is_trained_on_and_nothing_else(self, template: str) -> None:
        encoded = chat(template).encode(Example(TWO_ANSWERS))
        assert trained_text(encoded) == "Yes, at 100 °C.<|im_end|>Rather 👋🏽.<|im_end|>"
        assert text_of(encoded) == encoded.rendered

    def test_a_turn_of_weight_0_is_read_but_not_trained_on(self, template: str) -> None:
        weighted = [TWO_ANSWERS[2] | {"weight": 0}, TWO_ANSWERS[4] | {"weight": 1}]
        conversation = [TWO_ANSWERS[1], weighted[0], TWO_ANSWERS[3], weighted[1]]
        encoded = chat(template).encode(Example(conversation))
        assert trained_text(encoded) == "Rather 👋🏽.<|im_end|>"
        assert encoded.ids == chat(template).encode(Example([*TWO_ANSWERS[1:]])).ids

    def test_the_line_break_after_the_end_of_turn_is_not_trained_on(self, template: str) -> None:
        encoded = chat(template).encode(Example(TWO_ANSWERS))
        assert encoded.rendered.endswith("<|im_end|>\n")
        assert encoded.trained[-2:] == [True, False]

    def test_all_trains_on_every_token(self, template: str) -> None:
        encoded = chat(template).encode(Example(TWO_ANSWERS), "all")
        assert all(encoded.trained)
        assert encoded.trained_tokens == len(encoded) - 1  # the first token is never predicted

    @unhurried
    @given(PAIRS)
    def test_it_is_the_answers_whatever_the_texts_are(self, template: str, pairs: list[tuple[str, str, int]]) -> None:
        encoded = chat(template).encode(conversation(pairs))
        trained = "".join(f"{answer}<|im_end|>" for _, answer, weight in pairs if weight)
        assert trained_text(encoded) == trained

    @unhurried
    @given(PAIRS)
    def test_offsets_cut_the_rendered_text_into_its_tokens(
        self, template: str, pairs: list[tuple[str, str, int]]
    ) -> None:
        encoded = chat(template).encode(conversation(pairs))
        assert encoded.offsets[0][0] == 0
        assert encoded.offsets[-1][1] == len(encoded.rendered)
        assert len(encoded.ids) == len(encoded.trained) == len(encoded.offsets)
        for (_, end), (start, next_end) in zip(encoded.offsets, encoded.offsets[1:], strict=False):
            assert start <= end <= next_end  # without a gap


def test_a_tool_call_is_trained_on_and_its_result_is_not() -> None:
    encoded = chat(tiny.TOOLS).encode(Example(WITH_CALL, tools=TOOLS))
    written = json.dumps(CALL["function"])
    assert trained_text(encoded) == f"call {written}<|im_end|>Found.<|im_end|>"
    assert json.dumps(TOOLS) in encoded.rendered


def test_with_tools_the_template_for_tools_is_used() -> None:
    both = chat({"default": tiny.CHATML, "tool_use": tiny.TOOLS})
    assert json.dumps(TOOLS) in both.render(WITH_CALL, TOOLS)
    assert both.render(TWO_ANSWERS) == chat().render(TWO_ANSWERS)


def test_marks_that_do_not_fit_the_turns_are_not_trusted() -> None:
    """The template marks only its last answer: which mark belongs to which turn is then found by rendering."""
    marks_last = tiny.MARKED.replace("== 'assistant' %}", "== 'assistant' and loop.last %}", 1)
    first, second = TWO_ANSWERS[2], TWO_ANSWERS[4]
    conversation = [TWO_ANSWERS[1], first | {"weight": 0}, TWO_ANSWERS[3], second]
    assert trained_text(chat(marks_last).encode(Example(conversation))) == "Rather 👋🏽.<|im_end|>"


MARKS_THOUGHTS = tiny.MARKED.replace("message['content'] + '<|im_end|>'", "message['thoughts']").replace(
    "{% endgeneration %}", "{% endgeneration %}{{ message['content'] + '<|im_end|>' }}"
)
"""It marks something else than the answers."""


def test_a_conversation_of_which_the_template_marks_nothing_is_refused_unless_all_of_it_is_learned() -> None:
    assert refusal(MARKS_THOUGHTS, TWO_ANSWERS).code == "template_marks_no_answer"
    weighted = [TWO_ANSWERS[1], TWO_ANSWERS[2] | {"weight": 0}, TWO_ANSWERS[3], TWO_ANSWERS[4]]
    assert refusal(MARKS_THOUGHTS, weighted).code == "template_marks_no_answer"
    assert chat(MARKS_THOUGHTS).count([Example(TWO_ANSWERS)], "all") == [len(chat().encode(Example(TWO_ANSWERS)))]


def test_earlier_answers_that_the_template_rewrites_cannot_be_told_apart() -> None:
    assert refusal(tiny.REWRITING, TWO_ANSWERS).code == "template_not_maskable"
    with pytest.raises(Untemplatable) as caught:
        chat(tiny.REWRITING).encode(Example(TWO_ANSWERS))
    assert caught.value.finding.code == "template_not_maskable"


def test_a_template_that_rewrites_can_train_on_last_answers_and_on_everything() -> None:
    rewriting = chat(tiny.REWRITING)
    weighted = [*TWO_ANSWERS[:2], TWO_ANSWERS[2] | {"weight": 0}, *TWO_ANSWERS[3:]]
    assert trained_text(rewriting.encode(Example(weighted))) == "Rather 👋🏽.<|im_end|>"
    assert trained_text(rewriting.encode(Example(TWO_ANSWERS[:3]))) == "Yes, at 100 °C.<|im_end|>"
    assert all(rewriting.encode(Example(TWO_ANSWERS), "all").trained)


# Begin and end


def test_a_template_that_writes_bos_gives_exactly_one() -> None:
    encoded = chat(tiny.WITH_BOS, puts_bos=True).encode(Example(TWO_ANSWERS))
    bos = tiny.bare().token_to_id("<s>")
    assert encoded.ids[0] == bos
    assert encoded.ids.count(bos) == 1


def test_a_template_without_bos_gets_none() -> None:
    assert tiny.bare().token_to_id("<s>") not in chat(puts_bos=True).encode(Example(TWO_ANSWERS)).ids


@pytest.mark.parametrize("text", ["Once", "<s>Once", "Once</s>", "<s>Once</s>"])
@pytest.mark.parametrize("puts_bos", [True, False])
def test_a_plain_text_is_closed_once_and_begun_as_the_tokenizer_does(text: str, *, puts_bos: bool) -> None:
    encoded = chat(puts_bos=puts_bos).encode(Example([], text))
    begins = puts_bos or text.startswith("<s>")
    assert encoded.rendered == text_of(encoded) == ("<s>" if begins else "") + "Once</s>"
    assert [encoded.rendered[start:end] for start, end in encoded.offsets if end - start > 2][-1] == "</s>"
    assert all(encoded.trained)


def test_a_model_without_an_end_token_closes_nothing() -> None:
    bare = ChatTokenizer(tiny.bare(), {}, {})
    assert bare.encode(Example([], "Once")).rendered == "Once"


# Batches and counts

examples = st.lists(st.one_of(PAIRS.map(conversation), TEXTS.map(lambda text: Example([], text))))


@unhurried
@given(examples, st.sampled_from(["completions", "all"]), st.booleans())
def test_a_batch_gives_what_one_by_one_gives_and_counting_its_lengths(
    batch: list[Example], train_on: Any, puts_bos: bool
) -> None:
    made = chat(puts_bos=puts_bos)
    one_by_one = [made.encode(example, train_on) for example in batch]
    assert made.encode_batch(batch, train_on) == one_by_one
    assert made.count(batch, train_on) == [len(encoded) for encoded in one_by_one]


def test_what_cannot_be_encoded_keeps_its_place_in_a_batch() -> None:
    made = chat(tiny.NO_SYSTEM)
    batch = [Example(TWO_ANSWERS[1:3]), Example(TWO_ANSWERS), Example([], "plain")]
    first, refused, last = made.encode_batch(batch)
    assert (first, last) == (made.encode(batch[0]), made.encode(batch[2]))
    assert isinstance(refused, Finding)
    assert made.count(batch) == [len(made.encode(batch[0])), refused, len(made.encode(batch[2]))]


def test_counting_finds_what_encoding_would_not_mask() -> None:
    rewriting = chat(tiny.REWRITING)
    (found,) = rewriting.count([Example(TWO_ANSWERS)], "completions")
    assert isinstance(found, Finding)
    assert found.code == "template_not_maskable"
    (length,) = rewriting.count([Example(TWO_ANSWERS)], "all")
    assert length == len(rewriting.encode(Example(TWO_ANSWERS), "all"))


def test_threads_may_share_a_tokenizer() -> None:
    made = chat(tiny.MARKED)
    batches = [[conversation([("question " * n, f"answer {n}", 1)] * 5)] for n in range(1, 40)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(made.encode_batch, batches))
    assert together == [made.encode_batch(batch) for batch in batches]


# What templates refuse


def test_a_refused_system_turn_is_told_in_the_words_of_the_template() -> None:
    found = refusal(tiny.NO_SYSTEM, TWO_ANSWERS)
    assert (found.code, found.values) == ("template_refuses", {"detail": "System role not supported"})


@pytest.mark.parametrize(
    ("template", "detail"),
    [
        ("{{ raise_exception('Too rude: ' + messages[0]['content']) }}", "Too rude:"),
        ("{{ raise_exception(messages[0]['content']) }}", "it cannot render a message of this form"),
        ("{{ messages[0]['content'].missing.more }}", "it needs `missing`, which a message lacks"),
        ("{{ messages[0]['nothing'] + 'x' }}", "it needs `nothing`, which a message lacks"),
        ("{{ messages[0][messages[0]['content']].more }}", "it needs a missing field"),
        ("{{ '%d' % messages[0]['content'] }}", "it cannot render a message of this form"),
        ("{{ 1 / (messages[0]['content'] | int) }}", "it cannot render a message of this form"),
        ("{{ messages.index(messages[0]['content']) }}", "it cannot render a message of this form"),
        ("{% include messages[0]['content'] %}", "it cannot render a message of this form"),
    ],
)
def test_no_failure_of_a_template_tells_what_a_message_says(template: str, detail: str) -> None:
    conversation = [turn("user", SECRET), turn("assistant", SECRET)]
    with pytest.raises(Untemplatable) as caught:
        chat(template).encode(Example(conversation))
    finding = caught.value.finding
    assert (finding.code, finding.values) == ("template_refuses", {"detail": detail})
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert SECRET not in str(problem(finding.code, **finding.values))


def test_a_model_without_a_template_takes_plain_texts_only() -> None:
    bare = ChatTokenizer(tiny.bare(), {}, tiny.SPECIAL)
    assert text_of(bare.encode(Example([], "Once"))) == "Once</s>"
    with pytest.raises(Untemplatable) as caught:
        bare.encode(Example(TWO_ANSWERS))
    assert caught.value.finding.values == {"detail": "the model has no chat template"}


@pytest.mark.parametrize(
    "template",
    [
        "{{ ().__class__.__mro__ }}",
        "{{ ().__class__.__base__.__subclasses__() }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ dict.__call__.__globals__ }}",
        "{{ '{0.__class__.__mro__}'.format(messages) }}",
        "{{ namespace(__init__=1) }}",
        "{% set x = namespace() %}{% set x.__class__ = 1 %}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='assistant') }}",
        "{{ range(10 ** 9) | list }}",
    ],
)
def test_a_template_does_not_get_out_of_its_sandbox(template: str) -> None:
    assert refusal(template, TWO_ANSWERS[1:3]).code == "template_refuses"


@pytest.mark.parametrize("template", ["{{ ().__class__ }}", "{{ tools | attr('__class__') }}", "{{ self.__init__ }}"])
def test_a_template_sees_nothing_of_python(template: str) -> None:
    assert chat(template).render(TWO_ANSWERS) == ""


# Tools that a template leaves out


@pytest.mark.parametrize(
    ("template", "conversation", "tools", "what"),
    [
        (tiny.TOOLS, WITH_CALL, TOOLS, None),
        (tiny.TOOLS, WITH_CALL, None, None),
        (tiny.CHATML, TWO_ANSWERS, None, None),
        (tiny.CHATML, TWO_ANSWERS, TOOLS, "the tools"),
        (tiny.CALLS_LEFT_OUT, WITH_CALL, TOOLS, "the tool calls"),
        (tiny.BOTH_LEFT_OUT, WITH_CALL, TOOLS, "the tools and the tool calls"),
    ],
)
def test_left_out_tools_are_told(
    template: str, conversation: list[Message], tools: list[dict[str, Any]] | None, what: str | None
) -> None:
    found = chat(template).ignored_tools(Example(conversation, tools=tools))
    assert (found and (found.code, found.values)) == (what and ("template_ignores_tools", {"what": what}))


# Control tokens and files


def test_control_tokens_are_those_that_the_template_writes_and_the_ends() -> None:
    assert set(chat().control_tokens) == {*tiny.TURNS, "<s>", "</s>"}
    assert chat().control_tokens == tuple(sorted(chat().control_tokens))
    assert ChatTokenizer(tiny.bare(), {}, tiny.SPECIAL).control_tokens == ("</s>", "<s>")


WRITTEN_OUT = {name: {"content": token, "special": True} for name, token in tiny.SPECIAL.items()}


@pytest.mark.parametrize(
    "found",
    [
        tiny.files(tiny.SPECIAL | {"chat_template": tiny.WITH_BOS}),
        tiny.files(WRITTEN_OUT | {"chat_template": [{"name": "default", "template": tiny.WITH_BOS}]}),
        tiny.files(tiny.SPECIAL | {"chat_template": {"default": tiny.WITH_BOS}, "pad_token": None}),
        tiny.files(tiny.SPECIAL | {"chat_template": "{{ 'older' }}"}, **{TEMPLATE: tiny.WITH_BOS.encode()}),
        tiny.files({"chat_template": tiny.WITH_BOS}, **{SPECIAL_TOKENS: json.dumps(WRITTEN_OUT).encode()}),
    ],
    ids=["a text", "by name in a list", "by name", "a file of its own", "tokens in a file of their own"],
)
def test_a_model_is_read_from_its_files_however_they_were_written(found: dict[str, bytes]) -> None:
    made = ChatTokenizer.from_files(found)
    assert made.special == tiny.SPECIAL
    assert made.encode(Example(TWO_ANSWERS)) == chat(tiny.WITH_BOS).encode(Example(TWO_ANSWERS))


def test_an_end_token_that_only_the_configuration_names_is_one_token() -> None:
    made = ChatTokenizer.from_files(tiny.files({"eos_token": "<|stop|>"}))
    encoded = made.encode(Example([], "Once<|stop|>"))
    assert encoded.rendered[slice(*encoded.offsets[-1])] == "<|stop|>"
    assert "<|stop|>" in made.control_tokens


def test_a_folder_holds_the_tokenizer_or_none(tmp_path: Path) -> None:
    row = next(iter(CATALOGUE.values()))
    folder = tmp_path / row.folder
    assert in_folder(tmp_path)(row) is None
    folder.mkdir()
    for name, content in tiny.files().items():
        assert in_folder(tmp_path)(row) is None
        (folder / name).write_bytes(content)
    found = in_folder(tmp_path)(row)
    assert found is not None
    assert found.encode(Example(TWO_ANSWERS)) == chat().encode(Example(TWO_ANSWERS))
