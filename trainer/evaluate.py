"""Evaluation: held-out loss, and answers with and without the adapter."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from adaptml.dataset.shapes import content_of
from adaptml.tokens.chat import ChatTokenizer
from trainer.loss import completion_loss
from trainer.packing import Tokens, pack

EVALUATION_ROW_TOKENS = 2048
SAMPLES = 3
NEW_TOKENS = 80


@dataclass(frozen=True)
class Sample:
    """A held-out question, the answer in the data, and the model's answers without and with the adapter."""

    question: str
    expected: str
    before: str
    after: str

    def to_dict(self) -> dict[str, str]:
        """As samples.jsonl holds it."""
        return asdict(self)


@dataclass
class Patience:
    """Counts measurements of a loss that brought no improvement; used up after `patience` of them in a row."""

    patience: int
    best: float = math.inf
    without: int = 0

    def is_used_up(self, measured: float) -> bool:
        """Takes the next measurement."""
        self.without = 0 if measured < self.best else self.without + 1
        self.best = min(self.best, measured)
        return self.without >= self.patience


@torch.no_grad()
def loss(model: Any, examples: Sequence[Tokens], device: torch.device, alive: Callable[[], None]) -> float | None:
    """Mean cross entropy over the trained tokens of the examples, in nats; None without examples."""
    model.eval()
    tokens = sum(example.trained_tokens for example in examples)
    if not tokens:
        return None
    total = 0.0
    for packed in pack(examples, EVALUATION_ROW_TOKENS):
        total += completion_loss(model, packed, device).item()
        alive()
    return total / tokens


@torch.no_grad()
def samples(
    model: Any,
    tokenizer: Any,
    chat: ChatTokenizer,
    examples: Sequence[Tokens],
    device: torch.device,
    alive: Callable[[], None],
) -> list[Sample]:
    """Greedy answers to the first held-out conversations, base and adapter side by side."""
    model.eval()
    conversations = [found.example for found in examples if found.example is not None and found.example.messages]
    result = []
    for conversation in conversations[:SAMPLES]:
        messages = conversation.messages
        last = max(i for i, message in enumerate(messages) if message["role"] == "assistant")
        prompt = chat.render(messages[:last], conversation.tools, answer_next=True)
        answers = []
        for with_adapter in (False, True):
            with contextlib.nullcontext() if with_adapter else model.disable_adapter():
                answers.append(_answer(model, tokenizer, prompt, device))
            alive()
        question = content_of(messages[last - 1]) if last else ""
        result.append(Sample(question, content_of(messages[last]), *answers))
    return result


def _answer(model: Any, tokenizer: Any, prompt: str, device: torch.device) -> str:
    inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        output = model.generate(
            **inputs, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=tokenizer.pad_token_id
        )
    text: str = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return text.strip()
