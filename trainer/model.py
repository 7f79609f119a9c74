"""The base model in NF4 and the LoRA on it."""

from __future__ import annotations

import logging
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer
from transformers.utils import logging as transformers_logging

from adaptml.tokens.chat import ChatTokenizer
from adaptml.tokens.store import in_folder
from schemas.catalogue import BaseModelRow
from schemas.errors import Refused, problem
from schemas.manifest import Manifest
from trainer.precision import suit
from trainer.prepared import MODELS_DIR as MODELS_DIR
from trainer.prepared import choose, models_dir
from trainer.quantise import load, nf4

log = logging.getLogger(__name__)


def load_base(row: BaseModelRow, *, quantise: bool, device: torch.device) -> tuple[Any, Any]:
    """(model, tokenizer) of a row of the catalogue: frozen, in bf16, its linear layers in NF4 if `quantise`;
    in fp32 on CPUs that compute faster in it.

    NF4 weights that were prepared are read as they are; where there are none that this version can read, bf16 weights
    are quantised while they are loaded, which gives the same bits and takes longer. Raises Refused when the weights
    were not prepared.
    """
    folder = models_dir() / row.folder
    weights = choose(folder, quantise=quantise)
    if weights is None:
        raise Refused([problem("base_model_unavailable", model=row.id)])
    if weights.why_not is not None:
        log.warning("%s: quantising while loading, NF4 weights were not read: %s", row.id, weights.why_not)
    transformers_logging.disable_progress_bar()  # it would fill the execution's log
    model = load(weights.folder, device, nf4() if quantise and not weights.are_quantised else None)
    leave_out(model, row)
    keep_differentiable(model)
    suit(model, device)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return model, tokenizer


def chat_tokenizer(row: BaseModelRow) -> ChatTokenizer:
    """What makes tokens of conversations. Raises Refused when the model was not prepared."""
    found = in_folder(models_dir())(row)
    if found is None:
        raise Refused([problem("base_model_unavailable", model=row.id)])
    return found


def leave_out(model: Any, row: BaseModelRow) -> None:
    """Drops the parts that a training on text does not need: they would take memory, and LoRA layers of the same names.

    What is left keeps its names, so that the adapter fits the whole model.
    """
    for part in row.left_out:
        setattr(model.model, part, None)


def keep_differentiable(model: Any) -> None:
    """Keeps bitsandbytes from repacking NF4 weights for inference on the CPU.

    On CPUs with AVX512-BF16, the first evaluation repacks each layer for a kernel that has no gradient and never
    packs it back: training after an evaluation then goes on with wrong gradients and only a warning (0.50.2).
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def with_lora(model: Any, manifest: Manifest, row: BaseModelRow) -> Any:
    """The model with a fresh LoRA: fp32 weights, which the small steps of training need, on a frozen base."""
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=manifest.lora.r,
        lora_alpha=manifest.lora.alpha,
        lora_dropout=manifest.lora.dropout,
        target_modules=row.target_modules(manifest.lora.target_modules),
        # They are not here any more, but where the adapter is loaded.
        exclude_modules=rf".*\b({'|'.join(row.left_out)})\b.*" if row.left_out else None,
        base_model_name_or_path=row.id,
        revision=row.revision,
    )
    # PEFT notes where the weights were read from; whoever loads the adapter needs the model's name.
    model.name_or_path = row.id
    return get_peft_model(model, config)


def checkpoint_blocks(model: Any, enabled: bool) -> None:
    """Whether blocks keep only their inputs for the backward pass and are computed again in it."""
    if enabled:
        model.activation_checkpointing_enable({"use_reentrant": False})
    else:
        model.activation_checkpointing_disable()


def lora_parameters(model: Any) -> list[torch.nn.Parameter]:
    """What is trained."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


@torch.no_grad()
def round_adapter(model: Any) -> None:
    """Rounds the adapter to the bf16 values that are saved, so that what is measured is what is delivered."""
    for parameter in lora_parameters(model):
        parameter.copy_(parameter.to(torch.bfloat16).to(parameter.dtype))
