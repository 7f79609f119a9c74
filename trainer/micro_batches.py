"""A step's examples, as micro-batches that fit the device's memory."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch

from adaptml.planning.memory import MicroBatch
from adaptml.planning.micro_batch import choose, smaller
from schemas.errors import Refused, problem
from schemas.manifest import Manifest
from trainer.loss import completion_loss
from trainer.model import checkpoint_blocks
from trainer.packing import Tokens, pack

log = logging.getLogger(__name__)


def initial(manifest: Manifest, examples: Sequence[Tokens], per_step: int, device: torch.device) -> MicroBatch:
    """What to begin with. On the CPU the same everywhere, so that the same seed gives the same adapter."""
    settings = manifest.training
    if device.type == "cpu":
        return MicroBatch(settings.max_seq_length, checkpointing=False)
    longest = max(len(example) for example in examples)
    step_tokens = per_step * sum(len(example) for example in examples) // len(examples)
    _, memory_bytes = torch.cuda.mem_get_info(device)
    return choose(
        manifest, longest=longest, per_step=step_tokens if settings.packing else longest, memory_bytes=memory_bytes
    )


class MicroBatches:
    """Takes them as large as `current` says, and makes that smaller where the memory does not suffice."""

    def __init__(self, model: Any, manifest: Manifest, current: MicroBatch, device: torch.device) -> None:
        self.current = current
        self._model, self._manifest, self._device = model, manifest, device
        checkpoint_blocks(model, current.checkpointing)

    def backward(self, examples: Sequence[Tokens]) -> float:
        """Mean loss over the trained tokens of all the examples, whose gradient is added to the adapter's.

        One mean for the whole step, however it is cut. After an out-of-memory error the step's gradient is thrown away
        and computed anew with less at a time. Raises Refused when there is no less.
        """
        while True:
            try:
                return self._backward(examples)
            except torch.OutOfMemoryError:
                pass  # what the error's frames hold is free only after this
            self._shrink(max(len(example) for example in examples))

    def _backward(self, examples: Sequence[Tokens]) -> float:
        trained_tokens = sum(example.trained_tokens for example in examples)
        total = 0.0
        for packed in pack(examples, self.current.tokens if self._manifest.training.packing else 0):
            loss = completion_loss(self._model, packed, self._device) / trained_tokens
            loss.backward()
            total += loss.item()
        return total

    def _shrink(self, longest: int) -> None:
        self._model.zero_grad(set_to_none=True)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        before = self.current
        less = smaller(before, longest if self._manifest.training.packing else before.tokens)
        if less is None:
            raise out_of_memory(self._manifest, longest)
        log.warning("out of memory with %s; going on with %s", before, less)
        checkpoint_blocks(self._model, less.checkpointing)
        self.current = less


def out_of_memory(manifest: Manifest, longest: int | None = None) -> Refused:
    """What to raise when the device's memory does not suffice for the least that the run needs."""
    tokens = longest or manifest.training.max_seq_length
    return Refused([problem("out_of_gpu_memory", model=manifest.base_model, tokens=tokens)])
