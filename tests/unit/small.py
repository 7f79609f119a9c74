"""Training in small: a model of forty weights, with all that a checkpoint has to keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import get_scheduler

from trainer.evaluate import Measured, Patience
from trainer.snapshot import Position, Snapshot, restore, take

BEFORE = Measured(loss=2.5, token_accuracy=1 / 3, exact_match=None, examples=4, tokens=12, short_answers=0)


@dataclass
class Small:
    """A training that can be made twice, the same to the last bit."""

    model: torch.nn.Module
    optimizer: torch.optim.AdamW
    scheduler: Any
    position: Position

    @classmethod
    def made(cls, hidden: int = 4) -> Small:
        torch.manual_seed(3)
        frozen = torch.nn.Linear(6, 6).requires_grad_(False)
        model = torch.nn.Sequential(
            frozen, torch.nn.Linear(6, hidden), torch.nn.Dropout(0.3), torch.nn.Linear(hidden, 1)
        )
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.01)
        scheduler = get_scheduler("cosine", optimizer, 3, 20)
        return cls(model, optimizer, scheduler, Position(before=BEFORE, patience=Patience(2)))

    def go(self, steps: int) -> Small:
        """Takes so many steps."""
        for _ in range(steps):
            number = self.position.step + 1
            loss = self.model(torch.full((5, 6), float(number))).square().mean()
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.position.step, self.position.loss = number, loss.item()
            self.position.points.append({"step": number, "loss": loss.item()})
        return self

    def snapshot(self) -> Snapshot:
        return take(self.model, self.optimizer, self.scheduler, self.position)

    def going_on_from(self, saved: Snapshot) -> Small:
        self.position = restore(saved, self.model, self.optimizer, self.scheduler)
        return self

    def weights(self) -> Tensor:
        return torch.cat([p.detach().flatten().clone() for p in self.model.parameters()])
