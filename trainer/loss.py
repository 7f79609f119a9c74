"""The loss: cross entropy at the labels, and logits nowhere else."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from adaptml.planning.memory import LOGITS_AT_ONCE
from schemas.errors import Refused, problem
from trainer.attention import no_mask
from trainer.packing import IGNORED, Packed
from trainer.precision import autocast


def completion_loss(model: Any, packed: Packed, device: torch.device) -> Tensor:
    """Sum of the cross entropies of the trained tokens of one packed row; a scalar in fp32.

    The sum, not the mean: the caller divides by the tokens of the whole optimizer step, so that a step's loss does
    not depend on how it is cut into rows (a mean of means would weigh short rows more).
    """
    hidden, labels = _hidden_at_labels(model, packed, device)
    total: Tensor = _HeadLoss.apply(hidden, model.get_output_embeddings().weight, labels)
    return total


@torch.no_grad()
def loss_and_hits(model: Any, packed: Packed, device: torch.device) -> tuple[float, Tensor]:
    """The same sum, and [trained tokens] of each of them whether the model holds no other for more likely.

    Logits are rounded to bf16, in which the first two are equal at a few tokens of a hundred: which of them is "the"
    most likely would be chance.
    """
    hidden, labels = _hidden_at_labels(model, packed, device)
    head = model.get_output_embeddings().weight
    total, hits = 0.0, []
    for at in _chunks(labels):
        logits = torch.nn.functional.linear(hidden[at], head)
        total += torch.nn.functional.cross_entropy(logits.float(), labels[at], reduction="sum").item()
        rounded = logits.to(torch.bfloat16)
        hits.append(rounded.gather(-1, labels[at, None])[:, 0] == rounded.amax(-1))
    return total, torch.cat(hits).cpu() if hits else torch.zeros(0, dtype=torch.bool)


class _HeadLoss(torch.autograd.Function):
    """Sum of cross entropies behind an output layer that is not trained, whose logits exist chunk by chunk.

    Each chunk's gradient is made while its logits are there, softmax less one at the label. Autograd would keep the
    logits of all chunks until the backward pass, or compute them twice. (PyTorch's `linear_cross_entropy` does the
    same and gives the sum in bf16, three digits of it.)
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, labels: Tensor) -> Tensor:
        total = torch.zeros((), device=hidden.device)
        gradient = torch.empty_like(hidden)
        for at in _chunks(labels):
            logits = torch.nn.functional.linear(hidden[at], head)
            logarithms = logits.log_softmax(-1, dtype=torch.float32)
            total -= logarithms.gather(-1, labels[at, None]).sum()
            softmax = logarithms.exp_()
            softmax.scatter_add_(-1, labels[at, None], -torch.ones_like(softmax[:, :1]))
            gradient[at] = softmax.to(head.dtype) @ head
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *of_total: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * of_total[0], None, None


def _chunks(labels: Tensor) -> Iterator[slice]:
    return (slice(start, start + LOGITS_AT_ONCE) for start in range(0, labels.numel(), LOGITS_AT_ONCE))


def _hidden_at_labels(model: Any, packed: Packed, device: torch.device) -> tuple[Tensor, Tensor]:
    """Last hidden states [labels, hidden] where the next token is trained on, and those next tokens [labels]."""
    labels = packed.next_tokens.to(device)
    head = model.get_output_embeddings().weight
    with autocast(device):
        output = model.get_base_model().model(
            input_ids=packed.input_ids[None].to(device),
            position_ids=packed.position_ids[None].to(device),
            attention_mask=no_mask(device),
            cu_seq_lens_q=packed.begins.to(device),
            max_length_q=packed.longest,
            use_cache=False,
        )
    at = labels != IGNORED
    return output.last_hidden_state[0][at].to(head.dtype), labels[at]


def refuse_divergence(loss: float, step: int) -> None:
    """Raises Refused for a loss that is no number any more: what follows could only be noise."""
    if not math.isfinite(loss):
        raise Refused([problem("training_diverged", loss=loss, step=step)])
