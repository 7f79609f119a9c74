"""A small model of each family of the catalogue: its chat template over a tokenizer of its kind.

A tokenizer has the family's special tokens and works like the family's own: byte-level BPE (ChatML, Llama), the same
after NFC (Qwen), or SentencePiece's BPE with ▁ for spaces and single bytes for what it does not know, without (Gemma)
and with (Mistral) a ▁ put before each stretch of text.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from adaptml.tokens.chat import ChatTokenizer
from schemas.catalogue import FAMILIES

TEMPLATES = Path(__file__).parent / "templates"
EOS = {
    "chatml": "<|im_end|>",
    "qwen2.5": "<|im_end|>",
    "qwen3": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "gemma": "<eos>",
    "gemma3": "<eos>",
    "mistral": "</s>",
}
BOS = {"chatml": "<|im_start|>", "llama3": "<|begin_of_text|>", "gemma": "<bos>", "gemma3": "<bos>", "mistral": "<s>"}
PAD = {
    "chatml": "<|im_end|>",
    "qwen2.5": "<|endoftext|>",
    "qwen3": "<|endoftext|>",
    "gemma": "<pad>",
    "gemma3": "<pad>",
}
"""ChatML's is its end of turn; Llama and Mistral have none and are given one of the others by whoever pads."""
NOT_SPECIAL = {
    "qwen2.5": ["<tool_call>", "</tool_call>"],
    "qwen3": ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"],
}
"""Single tokens that are ordinary text."""
_BYTE_LEVEL = {"chatml", "llama3", "qwen2.5", "qwen3"}
_CORPUS = ["The quick brown fox jumps over the lazy dog, and the cat sat on the mat.", "user assistant system model"]


@functools.cache
def _written(family: str) -> str:
    special = sorted({*FAMILIES[family].control_tokens, EOS[family], *filter(None, [PAD.get(family)])})
    made = _byte_level(family) if family in _BYTE_LEVEL else _pieces(family)
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    made.add_tokens([AddedToken(token, special=False, normalized=False) for token in NOT_SPECIAL.get(family, [])])
    if family in {"llama3", "gemma", "gemma3", "mistral"}:  # which begin each text with <bos> themselves
        bos = (BOS[family], made.token_to_id(BOS[family]))
        made.post_processor = processors.TemplateProcessing(single=f"{bos[0]} $A", special_tokens=[bos])
    return made.to_str()


def _byte_level(family: str) -> Tokenizer:
    made = Tokenizer(models.BPE())
    if family.startswith("qwen"):
        made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator(_CORPUS, trainer)
    return made


def _pieces(family: str) -> Tokenizer:
    learned = Tokenizer(models.BPE())
    learned.normalizer = normalizers.Replace(" ", "▁")
    learned.train_from_iterator(_CORPUS, trainers.BpeTrainer(vocab_size=80, show_progress=False))
    written = json.loads(learned.to_str())["model"]
    vocab = dict(written["vocab"])
    for token in ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]:
        vocab.setdefault(token, len(vocab))
    merges = [tuple(pair) for pair in written["merges"]]
    made = Tokenizer(models.BPE(vocab, merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    spaces = normalizers.Replace(" ", "▁")
    if family == "mistral":
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces])
    else:
        made.normalizer = spaces
        made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return made


def template(family: str) -> str:
    return (TEMPLATES / f"{family}.jinja").read_text("utf-8")


def bare(family: str) -> Tokenizer:
    return Tokenizer.from_str(_written(family))


def named(family: str) -> dict[str, str]:
    """Special tokens as tokenizer_config.json names them."""
    tokens = {"bos_token": BOS.get(family), "eos_token": EOS[family], "pad_token": PAD.get(family)}
    return {name: token for name, token in tokens.items() if token is not None}


@functools.cache
def chat(family: str) -> ChatTokenizer:
    return ChatTokenizer(bare(family), {"default": template(family)}, named(family))


def config(family: str) -> dict[str, Any]:
    """As tokenizer_config.json holds it."""
    return {**named(family), "chat_template": template(family), "tokenizer_class": "PreTrainedTokenizerFast"}
