"""Evaluation: what the model makes of held-out data, and answers with and without the adapter."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from adaptml.dataset.shapes import content_of
from adaptml.tokens.chat import ChatTokenizer
from schemas.run import Metrics
from trainer.loss import loss_and_hits
from trainer.packing import IGNORED, Packed, Tokens, pack
from trainer.precision import autocast
from trainer.unpacked import unpacked

EVALUATION_ROW_TOKENS = 2048
ANSWER_TOKENS = 32
"""A short answer: with its end of turn, at most so many tokens. Longer ones are hardly ever met token for token."""
SAMPLES = 3
NEW_TOKENS = 80


@dataclass(frozen=True)
class Measured:
    """What a model makes of held-out examples."""

    loss: float
    """Mean cross entropy over the trained tokens, in nats."""
    token_accuracy: float
    """Share of the trained tokens than which the model holds no other for more likely, given all before them."""
    exact_match: float | None
    """Share of the short answers of which that is true of every token; None where no answer is short."""
    examples: int
    tokens: int
    """That the loss counts."""
    short_answers: int

    @property
    def figures(self) -> dict[str, float]:
        """By the names of the curve and of `Run.metrics`."""
        perplexity = math.exp(min(self.loss, 700.0))  # more is no number that a float holds
        found = {"loss": self.loss, "perplexity": perplexity, "token_accuracy": self.token_accuracy}
        return found if self.exact_match is None else found | {"exact_match": self.exact_match}


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

    def takes(self, measured: float) -> bool:
        """Takes the next measurement; true when it is the best so far."""
        is_best = measured < self.best
        self.without = 0 if is_best else self.without + 1
        self.best = min(self.best, measured)
        return is_best

    @property
    def is_used_up(self) -> bool:
        """True when training should end."""
        return self.without >= self.patience


@torch.no_grad()
def measure(model: Any, examples: Sequence[Tokens], device: torch.device, alive: Callable[[], None]) -> Measured | None:
    """One pass over the examples; None without any.

    Exact match needs no generation. Greedy decoding answers with just the expected tokens when, and only when, at each
    of them the most likely token after all before it is the expected one; and that is what this pass sees, for all
    examples at once. (Between two tokens that are as good as equally likely rounding decides, in generation and here,
    and not always alike.)
    """
    model.eval()
    tokens = sum(example.trained_tokens for example in examples)
    if not tokens:
        return None
    total, right = 0.0, 0
    answers: list[bool] = []
    for packed in pack(examples, EVALUATION_ROW_TOKENS):
        row_loss, hits = loss_and_hits(model, packed, device)
        total += row_loss
        right += int(hits.sum())
        answers += short_answers(packed, hits)
        alive()
    matched = sum(answers) / len(answers) if answers else None
    return Measured(total / tokens, right / tokens, matched, len(examples), tokens, len(answers))


def loss(model: Any, examples: Sequence[Tokens], device: torch.device, alive: Callable[[], None]) -> float | None:
    """The loss alone."""
    measured = measure(model, examples, device, alive)
    return measured.loss if measured else None


def short_answers(packed: Packed, hits: Tensor) -> Iterator[bool]:
    """Of each example of the row whose last answer is short: whether all of it was met. `hits`: of its trained tokens.

    An answer is an unbroken piece of trained tokens. What is trained on from its beginning asks nothing and has none.
    """
    trained = packed.next_tokens != IGNORED
    example, place = packed.segments[trained], packed.position_ids[trained]
    for number in example.unique():
        mine = example == number
        places, met = place[mine], hits[mine]
        if places[0] == 0:
            continue
        breaks = (places.diff() > 1).nonzero()
        last = met[int(breaks[-1]) + 1 :] if len(breaks) else met
        if len(last) <= ANSWER_TOKENS:
            yield bool(last.all())


def metrics(
    before: Measured | None,
    after: Measured | None = None,
    *,
    train_loss: float | None = None,
    saved_step: int | None = None,
) -> Metrics:
    """As the run's document holds them."""
    figures = {
        f"eval_{name}_{when}": figure
        for when, measured in (("before", before), ("after", after))
        if measured is not None
        for name, figure in measured.figures.items()
    }
    trained: dict[str, Any] = {"train_loss": train_loss, "saved_step": saved_step}
    if (held_out := after or before) is not None:
        trained |= {
            "eval_examples": held_out.examples,
            "eval_tokens": held_out.tokens,
            "eval_exact_match_examples": held_out.short_answers,
        }
    return Metrics(**trained, **figures)


@torch.no_grad()
def samples(
    model: Any,
    tokenizer: Any,
    chat: ChatTokenizer,
    examples: Sequence[Tokens],
    device: torch.device,
    alive: Callable[[], None],
    end_of_turn: str = "",
) -> list[Sample]:
    """Greedy answers to the first held-out conversations, base and adapter side by side."""
    model.eval()
    stops = stop_tokens(model, tokenizer, end_of_turn)
    conversations = [found.example for found in examples if found.example is not None and found.example.messages]
    asked = [_asked(conversation.messages) for conversation in conversations[:SAMPLES]]
    prompts = [
        chat.render(conversation.messages[:last], conversation.tools, answer_next=True)
        for conversation, last in zip(conversations, asked, strict=False)
    ]
    answers: list[list[str]] = []
    for with_adapter in (False, True):
        with contextlib.nullcontext() if with_adapter else model.disable_adapter():
            answers.append(greedy(model, tokenizer, prompts, stops, device, NEW_TOKENS) if prompts else [])
        alive()
    return [
        Sample(content_of(messages[last - 1]) if last else "", content_of(messages[last]), before, after)
        for messages, last, before, after in zip(
            (conversation.messages for conversation in conversations), asked, *answers, strict=False
        )
    ]


def _asked(messages: Sequence[Mapping[str, Any]]) -> int:
    """Where the last answer of a conversation stands."""
    return max(i for i, message in enumerate(messages) if message["role"] == "assistant")


def stop_tokens(model: Any, tokenizer: Any, end_of_turn: str) -> list[int]:
    """Ids that end an answer: what the model's generation settings say, and the end of a turn, which some leave out."""
    settled = model.generation_config.eos_token_id
    known = set(settled if isinstance(settled, list) else [settled])
    if end_of_turn in tokenizer.get_vocab():
        known.add(tokenizer.get_vocab()[end_of_turn])
    return sorted(known - {None})


@torch.no_grad()
def greedy(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    stops: list[int],
    device: torch.device,
    at_most: int,
) -> list[str]:
    """Greedy answers of so many tokens to all prompts at once: for each token the whole model is read, for one prompt
    as for all."""
    rows = [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    longest = max(len(row) for row in rows)
    blank = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else stops[0]
    padded = [[blank] * (longest - len(row)) + row for row in rows]
    seen = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    with autocast(device), unpacked(model, device):
        output = model.generate(
            input_ids=torch.tensor(padded, device=device),
            attention_mask=torch.tensor(seen, device=device),
            max_new_tokens=at_most,
            do_sample=False,
            pad_token_id=blank,
            eos_token_id=stops or None,
        )
    return [text.strip() for text in tokenizer.batch_decode(output[:, longest:], skip_special_tokens=True)]
