"""The trainer's parts on the real model and its tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from adaptml.dataset.shapes import Example
from schemas.catalogue import CATALOGUE
from schemas.manifest import Manifest
from tests import models
from tests.cloud import MODEL
from trainer import evaluate
from trainer.data import encode
from trainer.loss import completion_loss
from trainer.model import load_base, lora_parameters, with_lora
from trainer.packing import IGNORED, Tokens, pack

CPU = torch.device("cpu")
CHAT = [
    {"role": "system", "content": "You sell kettles."},
    {"role": "user", "content": "Does it whistle?"},
    {"role": "assistant", "content": "Yes, at 100 °C."},
    {"role": "user", "content": "Loudly?"},
    {"role": "assistant", "content": "Rather."},
]


@pytest.fixture(scope="module")
def base() -> Iterator[tuple[Any, Any]]:
    models.prepare()
    return load_base(CATALOGUE[MODEL], quantise=True, device=CPU)


@pytest.fixture(scope="module")
def tokenizer(base: tuple[Any, Any]) -> Any:
    return base[1]


def trained_text(tokenizer: Any, tokens: Tokens) -> str:
    return tokenizer.decode([label for label in tokens.labels if label != IGNORED])


def test_every_answer_and_its_end_of_turn_are_trained_on_and_nothing_else(tokenizer: Any) -> None:
    tokens = encode(Example(CHAT), tokenizer, "completions")
    assert trained_text(tokenizer, tokens) == "Yes, at 100 °C.<|im_end|>Rather.<|im_end|>"


def test_the_conversation_is_in_the_models_own_template(tokenizer: Any) -> None:
    tokens = encode(Example(CHAT), tokenizer, "completions")
    assert tokens.ids == tokenizer.apply_chat_template(CHAT, tokenize=True, return_dict=False)
    starts = tokens.ids.count(tokenizer.convert_tokens_to_ids("<|im_start|>"))
    assert starts == len(CHAT)  # the template's own: the tokenizer added no second BOS


def test_all_trains_on_every_token(tokenizer: Any) -> None:
    tokens = encode(Example(CHAT), tokenizer, "all")
    assert tokens.labels == tokens.ids


def test_a_plain_text_ends_with_the_end_token(tokenizer: Any) -> None:
    tokens = encode(Example([], "Once upon a time"), tokenizer, "completions")
    assert tokens.ids[-1] == tokenizer.eos_token_id
    assert tokens.labels == tokens.ids


def test_the_question_that_is_sampled_is_the_last_one(tokenizer: Any) -> None:
    asked = encode(Example(CHAT), tokenizer, "completions").asked
    assert asked is not None
    assert (asked.question, asked.answer) == ("Loudly?", "Rather.")
    assert asked.prompt.endswith("<|im_start|>assistant\n")
    assert "Rather." not in asked.prompt


def test_gradients_are_the_same_after_an_evaluation(base: tuple[Any, Any]) -> None:
    """bitsandbytes repacks NF4 weights for inference on some CPUs, and gradients are then silently wrong."""
    model, tokenizer = base
    manifest = Manifest.model_validate(
        {"name": "t", "base_model": MODEL, "dataset": {"train": ["t.jsonl"]}, "lora": {"dropout": 0.0}}
    )
    torch.manual_seed(0)
    model = with_lora(model, manifest, CATALOGUE[MODEL])
    tokens = encode(Example(CHAT), tokenizer, "completions")
    before = _gradients(model, tokens)
    evaluate.loss(model, [tokens], CPU, lambda: None)
    assert torch.equal(before, _gradients(model, tokens))
    assert before.abs().sum() > 0


def _gradients(model: Any, tokens: Tokens) -> torch.Tensor:
    model.train()
    model.zero_grad()
    completion_loss(model, pack([tokens], 0)[0], CPU).backward()
    return torch.cat([p.grad.flatten() for p in lora_parameters(model)])
