"""Data: pinned files → examples → tokens with labels."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

from google.api_core.exceptions import NotFound

from adaptml.dataset.check import Report, examples
from adaptml.dataset.shapes import Example
from schemas.errors import Refused, problem
from schemas.manifest import Training
from trainer.attempt import Attempt
from trainer.packing import IGNORED, Asked, Tokens

DEFAULT_SPLIT = 0.05


def load(attempt: Attempt, tokenizer: Any) -> tuple[list[Tokens], list[Tokens]]:
    """(training, held-out) examples of the run's pinned files. Raises Refused."""
    manifest, run = attempt.manifest, attempt.run
    tokens: dict[str, list[Tokens]] = {"train": [], "validation": []}
    report = Report()
    for file in run.dataset.files:
        try:
            with attempt.services.objects.open(run.source.bucket, file.object, file.generation) as stream:
                found = examples(stream, name=file.name, role=file.role, dataset=manifest.dataset, report=report)
                for number, example in enumerate(found, start=1):
                    whole = encode(example, tokenizer, manifest.training.train_on)
                    encoded = _bounded(whole, manifest.training, file.name, number)
                    if encoded is not None and encoded.trained_tokens:
                        tokens[file.role].append(encoded)
        except NotFound as gone:
            raise Refused([problem("data_gone", file=file.name, generation=file.generation)]) from gone
        attempt.alive()
    if report.errors:
        raise Refused(report.shown)
    training, held_out = tokens["train"], tokens["validation"]
    if not manifest.dataset.validation:
        share = manifest.dataset.validation_split or DEFAULT_SPLIT
        training, held_out = split(training, share, manifest.training.seed)
    if not training:
        raise Refused([problem("nothing_to_train_on")])
    return training, held_out


def split(items: Sequence[Tokens], share: float, seed: int) -> tuple[list[Tokens], list[Tokens]]:
    """(kept, held out): a share of the items, at least one where there are two, drawn by the seed."""
    order = list(items)
    random.Random(seed).shuffle(order)  # noqa: S311 - reproducible, not secret
    held = min(max(1, round(len(order) * share)), len(order) - 1) if order else 0
    return order[held:], order[:held]


def batches(items: Sequence[Tokens], size: int, steps: int, seed: int) -> Iterator[list[Tokens]]:
    """`steps` batches of `size` items, shuffled anew each epoch; the last batch of an epoch may be smaller."""
    per_epoch = math.ceil(len(items) / size)
    for step in range(steps):
        epoch, position = divmod(step, per_epoch)
        if position == 0:
            order = list(items)
            random.Random(f"{seed}-{epoch}").shuffle(order)  # noqa: S311 - reproducible, not secret
        yield order[position * size : (position + 1) * size]


def encode(example: Example, tokenizer: Any, train_on: str) -> Tokens:
    """An example as tokens, its labels masked as `train_on` says.

    A plain text is trained on whole and closed by the end token, so that the model learns to stop.
    """
    if example.text is not None:
        ids = [*tokenizer(example.text)["input_ids"], tokenizer.eos_token_id]
        return Tokens(ids, list(ids))
    rendered = render(tokenizer, example.messages)
    # The template writes the special tokens itself: adding them again would give two BOS.
    encoded = tokenizer(rendered, add_special_tokens=False, return_offsets_mapping=True)
    ids = encoded["input_ids"]
    last = max(i for i, message in enumerate(example.messages) if message["role"] == "assistant")
    asked = Asked(
        question=example.messages[last - 1]["content"] if last else "",
        prompt=render(tokenizer, example.messages[:last], answer_next=True),
        answer=example.messages[last]["content"],
    )
    if train_on == "all":
        return Tokens(ids, list(ids), asked)
    spans = answer_spans(tokenizer, example.messages)
    labels = [
        token if any(start >= a and end <= b and end > start for a, b in spans) else IGNORED
        for token, (start, end) in zip(ids, encoded["offset_mapping"], strict=True)
    ]
    return Tokens(ids, labels, asked)


def answer_spans(tokenizer: Any, messages: list[dict[str, str]]) -> list[tuple[int, int]]:
    """[start, end) in characters of each assistant turn in the rendered conversation, its end-of-turn token included.

    The end of turn must be trained on, or the model never learns to stop; the line break that some templates put
    after it must not. Found by rendering the conversation up to each turn: what the template adds is the turn.
    """
    spans = []
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = render(tokenizer, messages[:i], answer_next=True)
        whole = render(tokenizer, messages[: i + 1])
        if not whole.startswith(before):
            raise Refused([problem("invalid_value", detail="the chat template cannot be masked turn by turn")])
        spans.append((len(before), len(whole.rstrip())))
    return spans


def render(tokenizer: Any, messages: list[dict[str, str]], *, answer_next: bool = False) -> str:
    """The conversation in the model's own chat template; `answer_next` opens the assistant's turn."""
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer_next)
    return text


def _bounded(tokens: Tokens, settings: Training, file: str, number: int) -> Tokens | None:
    """The example within max_seq_length, as `overlong` says: None is dropped, Refused is raised for reject."""
    limit = settings.max_seq_length
    if len(tokens) <= limit:
        return tokens
    match settings.overlong:
        case "truncate":
            return Tokens(tokens.ids[:limit], tokens.labels[:limit], tokens.asked)
        case "drop":
            return None
        case _:
            raise Refused([problem("overlong_example", file=file, line=number, tokens=len(tokens), limit=limit)])
