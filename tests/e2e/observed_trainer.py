"""The real trainer, which also keeps the logits of the model it has trained: what its adapter is held against."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from safetensors.torch import save_file

from adaptml import logs
from adaptml.services import Services
from trainer import artifacts, evaluate
from trainer.attempt import Attempt
from trainer.train import train

LOGITS_FOLDER = "TEST_LOGITS_FOLDER"
PROMPT = "<|im_start|>user\nMy kettle leaks.<|im_end|>\n<|im_start|>assistant\n"


@torch.no_grad()
def logits(model: Any, tokenizer: Any) -> torch.Tensor:
    """[1, tokens, vocabulary] for a fixed prompt."""
    model.eval()
    return model(**tokenizer(PROMPT, add_special_tokens=False, return_tensors="pt")).logits


def observe(file: Path) -> None:
    """Keeps the logits at the moment in which the adapter is written."""
    write = artifacts.write

    def write_and_keep(to: Path, model: Any, tokenizer: Any) -> None:
        save_file({"logits": logits(model, tokenizer).contiguous()}, file)
        write(to, model, tokenizer)

    artifacts.write = write_and_keep  # type: ignore[assignment]


if __name__ == "__main__":
    logs.configure()
    evaluate.NEW_TOKENS = 16  # what the samples say is not what is tested
    attempt = Attempt.begin(Services.from_env(), os.environ)
    if attempt is not None:
        observe(Path(os.environ[LOGITS_FOLDER]) / f"{attempt.run.run_id}.safetensors")
    sys.exit(attempt.carry_out(train) if attempt is not None else 0)
