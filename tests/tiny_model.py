"""A base model of a few thousand random weights: real in every part, and trained in seconds."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from schemas.catalogue import CATALOGUE
from tests.cloud import MODEL
from tests.unit import tiny
from trainer.prepared import Origin, seal


def lay(models: Path) -> Path:
    """Prepares it below a folder of models, in the place of the local cloud's model, and returns that folder."""
    config = {
        **tiny.SPECIAL,
        "pad_token": tiny.SPECIAL["eos_token"],
        "chat_template": tiny.CHATML,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    tiny.lay(models, MODEL, config)
    random_state = torch.get_rng_state()
    torch.manual_seed(7)
    shape = LlamaConfig(
        vocab_size=tiny.bare().get_vocab_size(),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(shape).to(torch.bfloat16).save_pretrained(models / CATALOGUE[MODEL].folder)
    seal(models / CATALOGUE[MODEL].folder, Origin(model=MODEL, revision=CATALOGUE[MODEL].revision, source="test"))
    torch.set_rng_state(random_state)
    return models
