"""The trainer's parts on the real model and its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from adaptml.dataset.shapes import Example
from adaptml.tokens.chat import ChatTokenizer, TrainOn
from schemas.catalogue import CATALOGUE
from schemas.errors import Refused
from schemas.manifest import Manifest
from tests import models
from tests.cloud import MODEL
from trainer import evaluate, quantise
from trainer.loss import completion_loss, refuse_divergence
from trainer.model import MODELS_DIR, chat_tokenizer, keep_differentiable, load_base, lora_parameters, with_lora
from trainer.packing import IGNORED, Tokens, pack
from trainer.precision import suit
from trainer.prepared import choose, models_dir

CPU = torch.device("cpu")
CHAT = [
    {"role": "system", "content": "You sell kettles."},
    {"role": "user", "content": "Does it whistle?"},
    {"role": "assistant", "content": "Yes, at 100 °C."},
    {"role": "user", "content": "Loudly?"},
    {"role": "assistant", "content": "Rather."},
]


@pytest.fixture(scope="module")
def base() -> tuple[Any, Any]:
    models.prepare()
    return load_base(CATALOGUE[MODEL], quantise=True, device=CPU)


@pytest.fixture(scope="module")
def tokenizer(base: tuple[Any, Any]) -> Any:
    return base[1]


@pytest.fixture(scope="module")
def chat(base: tuple[Any, Any]) -> ChatTokenizer:
    return chat_tokenizer(CATALOGUE[MODEL])


def encode(chat: ChatTokenizer, example: Example, train_on: TrainOn = "completions") -> Tokens:
    encoded = chat.encode(example, train_on)
    return Tokens(
        encoded.ids, [i if t else IGNORED for i, t in zip(encoded.ids, encoded.trained, strict=True)], example
    )


def trained_text(tokenizer: Any, tokens: Tokens) -> str:
    return tokenizer.decode([label for label in tokens.labels if label != IGNORED])


def test_every_answer_and_its_end_of_turn_are_trained_on_and_nothing_else(tokenizer: Any, chat: ChatTokenizer) -> None:
    tokens = encode(chat, Example(CHAT))
    assert trained_text(tokenizer, tokens) == "Yes, at 100 °C.<|im_end|>Rather.<|im_end|>"


def test_a_turn_of_weight_0_is_not_trained_on(tokenizer: Any, chat: ChatTokenizer) -> None:
    messages = [message | {"weight": 0} if message["content"].startswith("Yes") else message for message in CHAT]
    assert trained_text(tokenizer, encode(chat, Example(messages))) == "Rather.<|im_end|>"


@pytest.mark.parametrize("messages", [CHAT, CHAT[1:], CHAT[:3], [{**CHAT[1], "content": "héllo 👋 <b>\n\n "}, CHAT[2]]])
def test_tokens_are_those_that_transformers_makes(
    tokenizer: Any, chat: ChatTokenizer, messages: list[dict[str, Any]]
) -> None:
    tokens = encode(chat, Example(messages))
    assert tokens.ids == tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    assert chat.render(messages) == tokenizer.apply_chat_template(messages, tokenize=False)
    starts = tokens.ids.count(tokenizer.convert_tokens_to_ids("<|im_start|>"))
    assert starts == len(messages) + (messages[0]["role"] != "system")  # no second BOS; the template adds a system turn


def test_counting_gives_as_many_tokens_as_encoding(chat: ChatTokenizer) -> None:
    examples = [Example(CHAT), Example([], "Once upon a time"), Example(CHAT[1:3])]
    assert chat.count(examples) == [len(chat.encode(example)) for example in examples]


def test_the_catalogue_names_the_tokens_that_the_template_writes(chat: ChatTokenizer) -> None:
    assert sorted(CATALOGUE[MODEL].control_tokens) == list(chat.control_tokens)


def test_all_trains_on_every_token(chat: ChatTokenizer) -> None:
    tokens = encode(chat, Example(CHAT), "all")
    assert tokens.labels == tokens.ids


def test_a_plain_text_ends_with_the_end_token(tokenizer: Any, chat: ChatTokenizer) -> None:
    tokens = encode(chat, Example([], "Once upon a time"))
    assert tokens.ids == [*tokenizer("Once upon a time")["input_ids"], tokenizer.eos_token_id]
    assert tokens.labels == tokens.ids


def test_samples_answer_the_last_question(base: tuple[Any, Any], chat: ChatTokenizer) -> None:
    model, tokenizer = base
    manifest = Manifest.model_validate({"name": "t", "base_model": MODEL, "dataset": {"train": ["t.jsonl"]}})
    held_out = [encode(chat, Example([], "plain")), encode(chat, Example(CHAT))]
    lora = with_lora(model, manifest, CATALOGUE[MODEL])
    (sample,) = evaluate.samples(lora, tokenizer, chat, held_out, CPU, lambda: None)
    assert (sample.question, sample.expected) == ("Loudly?", "Rather.")
    assert sample.before == sample.after  # an untrained adapter changes nothing
    lora.unload()


def test_answers_given_together_are_those_given_alone(
    base: tuple[Any, Any], chat: ChatTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "NEW_TOKENS", 10)
    model, tokenizer = base
    manifest = Manifest.model_validate({"name": "t", "base_model": MODEL, "dataset": {"train": ["t.jsonl"]}})
    questions = ["What is the capital of France?", "Name a colour.", "Tell me, in one short sentence, what rain is."]
    held_out = [
        encode(chat, Example([{"role": "user", "content": text}, {"role": "assistant", "content": "-"}]))
        for text in questions
    ]
    lora = with_lora(model, manifest, CATALOGUE[MODEL])
    together = evaluate.samples(lora, tokenizer, chat, held_out, CPU, lambda: None)
    assert [sample.question for sample in together] == questions
    assert "Paris" in together[0].before
    alone = [evaluate.samples(lora, tokenizer, chat, [one], CPU, lambda: None)[0] for one in held_out]
    # Not to the last word: rounding decides between words that are as good as equally likely.
    assert [sample.after[:12] for sample in together] == [sample.after[:12] for sample in alone]
    assert evaluate.samples(lora, tokenizer, chat, [], CPU, lambda: None) == []
    lora.unload()


def test_gradients_are_the_same_after_an_evaluation(base: tuple[Any, Any], chat: ChatTokenizer) -> None:
    """bitsandbytes repacks NF4 weights for inference on some CPUs, and gradients are then silently wrong."""
    model, _ = base
    manifest = Manifest.model_validate(
        {"name": "t", "base_model": MODEL, "dataset": {"train": ["t.jsonl"]}, "lora": {"dropout": 0.0}}
    )
    torch.manual_seed(0)
    model = with_lora(model, manifest, CATALOGUE[MODEL])
    tokens = encode(chat, Example(CHAT))
    before = _gradients(model, tokens)
    evaluate.loss(model, [tokens], CPU, lambda: None)
    assert torch.equal(before, _gradients(model, tokens))
    assert before.abs().sum() > 0


def test_prepared_nf4_trains_as_what_is_quantised_while_loading(chat: ChatTokenizer) -> None:
    row = CATALOGUE[MODEL]
    weights = choose(models_dir() / row.folder, quantise=True)
    assert weights is not None
    assert weights.are_quantised
    there, _ = load_base(row, quantise=True, device=CPU)
    anew = quantise.load(models_dir() / row.folder, CPU, quantise.nf4())
    suit(anew, CPU)
    keep_differentiable(anew)
    left, right = there.state_dict(), anew.state_dict()
    assert left.keys() == right.keys()
    assert all(torch.equal(tensor, right[name]) for name, tensor in left.items())
    manifest = Manifest.model_validate(
        {"name": "t", "base_model": MODEL, "dataset": {"train": ["t.jsonl"]}, "lora": {"dropout": 0.0}}
    )
    losses = []
    for model in (there, anew):
        torch.manual_seed(0)
        lora = with_lora(model, manifest, row).train()
        optimizer = torch.optim.AdamW(lora_parameters(lora), lr=1e-3)
        for _ in range(2):
            loss = completion_loss(lora, pack([encode(chat, Example(CHAT))], 0)[0], CPU)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    assert losses[:2] == losses[2:]
    assert losses[1] < losses[0]


def _gradients(model: Any, tokens: Tokens) -> torch.Tensor:
    model.train()
    model.zero_grad()
    completion_loss(model, pack([tokens], 0)[0], CPU).backward()
    return torch.cat([p.grad.flatten() for p in lora_parameters(model) if p.grad is not None])


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_run(loss: float) -> None:
    with pytest.raises(Refused) as refused:
        refuse_divergence(loss, 7)
    (found,) = refused.value.problems
    assert (found.code, found.message) == ("training_diverged", f"the loss became {loss} at step 7")
    refuse_divergence(0.5, 7)


def test_weights_that_were_not_prepared_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(MODELS_DIR, str(tmp_path))
    for load in (chat_tokenizer, lambda row: load_base(row, quantise=True, device=CPU)):
        with pytest.raises(Refused) as refused:
            load(CATALOGUE[MODEL])
        assert [found.code for found in refused.value.problems] == ["base_model_unavailable"]
