"""The loss: cross entropy at the labels, and logits nowhere else."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from schemas.errors import Refused, problem
from trainer.packing import IGNORED, Packed

CHUNK = 1024
"""Positions whose logits exist at a time: with a vocabulary of 256 k words, 1 GB in fp32."""


def completion_loss(model: Any, packed: Packed, device: torch.device, hits: list[Tensor] | None = None) -> Tensor:
    """Sum of the cross entropies of the trained tokens of one packed row; a scalar in fp32.

    The sum, not the mean: the caller divides by the tokens of the whole optimizer step, so that a step's loss does
    not depend on how it is cut into rows (a mean of means would weigh short rows more). Into `hits` goes, piece by
    piece, of each of these tokens whether the model holds no other for more likely. Logits are bf16, in which the first
    two are equal at a few tokens of a hundred: which of them is "the" most likely would be chance.
    """
    hidden, labels = _hidden_at_labels(model, packed, device)
    head = model.get_output_embeddings()
    total = torch.zeros((), device=device)
    for start in range(0, labels.numel(), CHUNK):
        with torch.autocast(device.type, dtype=torch.bfloat16):
            logits = head(hidden[start : start + CHUNK])
        total = total + torch.nn.functional.cross_entropy(
            logits.float(), labels[start : start + CHUNK], reduction="sum"
        )
        if hits is not None:
            given = logits.gather(-1, labels[start : start + CHUNK, None])[:, 0]
            hits.append(given == logits.amax(-1))
    return total


def _hidden_at_labels(model: Any, packed: Packed, device: torch.device) -> tuple[Tensor, Tensor]:
    """Last hidden states [labels, hidden] where the next token is trained on, and those next tokens [labels]."""
    labels = packed.next_tokens.to(device)
    decoder = model.get_base_model().model
    with torch.autocast(device.type, dtype=torch.bfloat16):
        output = decoder(
            input_ids=packed.input_ids[None].to(device),
            position_ids=packed.position_ids[None].to(device),
            attention_mask=_attention_masks(packed, decoder.config.get_text_config(), device),
            use_cache=False,
        )
    at = labels != IGNORED
    return output.last_hidden_state[0][at], labels[at]


def _attention_masks(packed: Packed, config: Any, device: torch.device) -> Tensor | dict[str, Tensor]:
    """One mask; or, by kind of layer, two, where some layers look only at a window of tokens (Gemma 3).

    A model that is given one mask takes it for all layers, and trains its local ones on what they never see later.
    """
    mask = packed.attention_mask().to(device)
    if "sliding_attention" not in (getattr(config, "layer_types", None) or ()):
        return mask
    near = packed.attention_mask(config.sliding_window).to(device)
    return {"full_attention": mask, "sliding_attention": near}


def refuse_divergence(loss: float, step: int) -> None:
    """Raises Refused for a loss that is no number any more: what follows could only be noise."""
    if not math.isfinite(loss):
        raise Refused([problem("training_diverged", loss=loss, step=step)])
