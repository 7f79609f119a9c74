from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from schemas.catalogue import CATALOGUE
from schemas.manifest import Manifest
from schemas.run import Metrics
from tests import tiny_model
from tests.cloud import MODEL
from trainer import evaluate, loss
from trainer.evaluate import ANSWER_TOKENS, Measured, Patience, measure, short_answers
from trainer.model import MODELS_DIR, load_base, with_lora
from trainer.packing import IGNORED, Tokens, pack
from trainer.precision import autocast

CPU = torch.device("cpu")
TRAINED = Measured(loss=0.5, token_accuracy=0.75, exact_match=0.5, examples=4, tokens=40, short_answers=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Of random weights, with an adapter that does something."""
    manifest = Manifest.model_validate({"name": "t", "base_model": MODEL, "dataset": {"train": ["t.jsonl"]}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MODELS_DIR, str(tiny_model.lay(tmp_path_factory.mktemp("models"))))
        base, _ = load_base(CATALOGUE[MODEL], quantise=False, device=CPU)
    torch.manual_seed(5)
    made = with_lora(base, manifest, CATALOGUE[MODEL]).eval()
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return made


def answered(prompt: list[int], answer: list[int], after: int = 0) -> Tokens:
    """A question and its answer, and so many tokens of the template after it."""
    rest = [3] * after
    return Tokens([*prompt, *answer, *rest], [*[IGNORED] * len(prompt), *answer, *[IGNORED] * after])


def greedy(model: Any, prompt: list[int], length: int) -> list[int]:
    with autocast(CPU):
        output = model.generate(
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=length,
            min_new_tokens=length,
            do_sample=False,
            pad_token_id=0,
        )
    return [int(token) for token in output[0, len(prompt) :]]


PROMPTS = [[5 + i, 20 + 3 * i, 9, 40 + i, 7][: 2 + i % 4] for i in range(12)]


def test_exact_match_is_what_generation_gives(model: Any) -> None:
    """Half of the expected answers are what the model generates; the others differ in one token, at any place."""
    expected = [greedy(model, prompt, 6) for prompt in PROMPTS]
    for number, answer in enumerate(expected[::2]):
        answer[number] = (answer[number] + 1) % 50
    examples = [answered(prompt, answer, 1) for prompt, answer in zip(PROMPTS, expected, strict=True)]
    generated = [greedy(model, prompt, 6) == answer for prompt, answer in zip(PROMPTS, expected, strict=True)]
    assert generated == [False, True] * 6
    for example, is_generated in zip(examples, generated, strict=True):
        alone = measure(model, [example], CPU, lambda: None)
        assert alone is not None
        assert alone.exact_match == float(is_generated)
    together = measure(model, examples, CPU, lambda: None)
    assert together is not None
    assert (together.exact_match, together.short_answers, together.examples) == (0.5, 12, 12)


@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_loss_and_accuracy_are_those_of_all_logits(model: Any, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", chunk)
    examples = [answered([5, 6, 7], [8, 9]), answered([11], [12, 13, 14, 15], 2), Tokens([4, 5, 6], [4, 5, 6])]
    total, right, count = 0.0, 0, 0
    for example in examples:
        with torch.no_grad(), autocast(CPU):
            logits = model(input_ids=torch.tensor([example.ids])).logits[0, :-1].float()
        labels = torch.tensor(example.labels[1:])
        total += torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum").item()
        for row, label in zip(logits, labels, strict=True):
            rounded = row.to(torch.bfloat16)
            right += bool(label != IGNORED) and not bool((rounded > rounded[label]).any())
        count += int((labels != IGNORED).sum())
    measured = measure(model, examples, CPU, lambda: None)
    assert measured is not None
    assert (measured.tokens, measured.examples) == (count, 3) == (8, 3)
    assert measured.loss == pytest.approx(total / count, rel=5e-3)
    assert measured.token_accuracy == right / count
    assert measured.figures["perplexity"] == math.exp(measured.loss)
    assert evaluate.loss(model, examples, CPU, lambda: None) == measured.loss


def test_equally_likely_tokens_are_all_right() -> None:
    """Which of them `argmax` takes is chance, on a GPU even between two calls."""
    logits = torch.tensor([[1.0, 1.0, 0.5], [1.0, 1.0, 0.5], [1.0, 1.0, 0.5], [float("nan")] * 3, [0.0] * 3])
    head = torch.eye(3)
    stub = Mock(get_output_embeddings=lambda: Mock(weight=head))
    stub.get_base_model.return_value.model.return_value = Mock(last_hidden_state=logits[None])
    (packed,) = pack([Tokens([9, 0, 1, 2, 0], [IGNORED, 0, 1, 2, 0])], 9)
    _, hits = loss.loss_and_hits(stub, packed, CPU)
    assert hits.tolist() == [True, True, False, False]


def test_measuring_changes_nothing_and_says_that_it_goes_on(model: Any) -> None:
    random, beats = torch.get_rng_state(), []
    rows = [answered([5] * 1500, [6, 7]), answered([5] * 1500, [6, 7])]
    once = measure(model, rows, CPU, lambda: beats.append(1))
    assert len(beats) == len(pack(rows, evaluate.EVALUATION_ROW_TOKENS)) == 2
    assert torch.equal(random, torch.get_rng_state())
    assert measure(model, rows, CPU, lambda: None) == once


def test_nothing_held_out_is_not_measured(model: Any) -> None:
    assert measure(model, [], CPU, lambda: None) is None
    assert evaluate.loss(model, [], CPU, lambda: None) is None


def matched(*examples: Tokens, missed: int | None = None) -> list[bool]:
    """Of all in one row, in which one trained token, counted from 0, was not the most likely."""
    (packed,) = pack(examples, 1000)
    hits = torch.ones(int((packed.next_tokens != IGNORED).sum()), dtype=torch.bool)
    if missed is not None:
        hits[missed] = False
    return list(short_answers(packed, hits))


X = IGNORED
TWO_TURNS = Tokens([1, 2, 3, 4, 5, 6, 7, 8], [X, X, 3, 4, X, X, 7, 8])


def test_the_last_answer_counts() -> None:
    assert matched(TWO_TURNS) == [True]
    assert matched(TWO_TURNS, missed=1) == [True]
    assert matched(TWO_TURNS, missed=2) == [False]
    assert matched(TWO_TURNS, missed=3) == [False]


def test_each_example_of_a_row_counts_for_itself() -> None:
    first, second = answered([1, 2, 3, 4], [5, 6]), answered([1, 2], [5, 6, 7])
    assert matched(first, second) == [True, True]
    assert matched(first, second, missed=1) == [False, True]  # the row begins with the longer one
    assert matched(first, second, missed=4) == [True, False]


def test_what_is_long_or_answers_nothing_is_not_asked_for() -> None:
    text = Tokens([1, 2, 3], [1, 2, 3])
    after_its_first_token = Tokens([1, 2, 3], [X, 2, 3])
    long, longest = answered([1, 2], [5] * (ANSWER_TOKENS + 1)), answered([1, 2], [5] * ANSWER_TOKENS)
    assert matched(text) == matched(after_its_first_token) == matched(long) == []
    assert matched(long, text, longest) == [True]


def test_where_no_answer_is_short_there_is_no_exact_match(model: Any) -> None:
    measured = measure(model, [Tokens([4, 5, 6], [4, 5, 6])], CPU, lambda: None)
    assert measured is not None
    assert (measured.exact_match, measured.short_answers) == (None, 0)
    assert "exact_match" not in measured.figures


def test_a_loss_beyond_all_bounds_has_a_perplexity_still() -> None:
    figures = Measured(1e5, 0.0, None, 1, 1, 0).figures
    assert math.isfinite(figures["perplexity"])


def test_patience_counts_what_brings_no_improvement_and_knows_the_best() -> None:
    patience = Patience(2)
    taken = [(patience.takes(measured), patience.is_used_up) for measured in (3.0, 2.0, 2.0, 1.5, float("nan"), 1.6)]
    assert taken == [(True, False), (True, False), (False, False), (True, False), (False, False), (False, True)]
    assert patience.best == 1.5


def test_the_run_holds_both_measurements() -> None:
    before = Measured(loss=2.0, token_accuracy=0.25, exact_match=0.0, examples=4, tokens=40, short_answers=2)
    assert evaluate.metrics(before, TRAINED, train_loss=0.4, saved_step=7) == Metrics(
        train_loss=0.4, saved_step=7, eval_loss_before=2.0, eval_loss_after=0.5,
        eval_perplexity_before=math.exp(2.0), eval_perplexity_after=math.exp(0.5),
        eval_token_accuracy_before=0.25, eval_token_accuracy_after=0.75,
        eval_exact_match_before=0.0, eval_exact_match_after=0.5,
        eval_examples=4, eval_tokens=40, eval_exact_match_examples=2,
    )  # fmt: skip
    assert evaluate.metrics(before).eval_examples == 4
    assert evaluate.metrics(before).eval_loss_after is None
    assert evaluate.metrics(None, None, train_loss=0.4, saved_step=7) == Metrics(train_loss=0.4, saved_step=7)


@pytest.mark.parametrize(
    ("settled", "end_of_turn", "stops"),
    [(1, "<end_of_turn>", [1, 107]), ([1, 107], "<end_of_turn>", [1, 107]), (None, "", []), (2, "unknown", [2])],
)
def test_an_answer_ends_with_its_turn(settled: object, end_of_turn: str, stops: list[int]) -> None:
    tokenizer = Mock(get_vocab=lambda: {"<eos>": 1, "<end_of_turn>": 107})
    assert evaluate.stop_tokens(Mock(generation_config=Mock(eos_token_id=settled)), tokenizer, end_of_turn) == stops
