"""A base model's tokenizer in small, and chat templates of every kind that base models have."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from adaptml.dataset.shapes import Example
from adaptml.tokens.chat import CONFIG, TOKENIZER, ChatTokenizer, Encoded
from schemas.catalogue import CATALOGUE

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
TURNS = ("<|im_start|>", "<|im_end|>")
UNWRITTEN = "<|reserved|>"
"""A special token that no template writes."""

CHATML = """\
{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}\
{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
WITH_BOS = "{{ bos_token }}" + CHATML
MARKED = """\
{% for message in messages %}{% if message['role'] == 'assistant' %}{{ '<|im_start|>assistant\n' }}{% generation %}\
{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}{% else %}\
{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
"""Says itself what the model writes."""
REWRITING = """\
{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}\
{% if message['role'] == 'assistant' and not loop.last %}{{ '(said)' }}{% else %}{{ message['content'] }}{% endif %}\
{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
"""As some reasoning models do it: earlier answers are shortened once more turns follow."""
NO_SYSTEM = (
    """\
{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"""
    + CHATML
)
TOOLS = """\
{% if tools %}{{ '<|im_start|>system\n' + tools | tojson + '<|im_end|>\n' }}{% endif %}\
{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}\
{% if message['content'] %}{{ message['content'] }}{% endif %}\
{% for call in message['tool_calls'] or [] %}{{ 'call ' + call['function'] | tojson }}{% endfor %}\
{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
CALLS_LEFT_OUT = TOOLS.replace("message['tool_calls'] or []", "[]")
BOTH_LEFT_OUT = CALLS_LEFT_OUT.replace("{% if tools %}", "{% if false %}")

_CORPUS = ["The quick brown fox jumps over the lazy dog, and the cat sat on the mat.", "user assistant system tool"]


@functools.cache
def _trained() -> str:
    """Byte-level BPE, as most models of today have it."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=[*SPECIAL.values(), *TURNS, UNWRITTEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(_CORPUS, trainer)
    return made.to_str()


def bare(*, puts_bos: bool = False) -> Tokenizer:
    """As tokenizer.json holds it; `puts_bos` for one that begins each text with <s>, as Llama's does."""
    made = Tokenizer.from_str(_trained())
    if puts_bos:
        bos = (SPECIAL["bos_token"], made.token_to_id(SPECIAL["bos_token"]))
        made.post_processor = processors.TemplateProcessing(single=f"{bos[0]} $A", special_tokens=[bos])
    return made


def chat(template: str | Mapping[str, str] = CHATML, *, puts_bos: bool = False) -> ChatTokenizer:
    """A tokenizer with one template, or several by name."""
    named = {"default": template} if isinstance(template, str) else template
    return ChatTokenizer(bare(puts_bos=puts_bos), named, SPECIAL)


def files(config: Mapping[str, Any] | None = None, **more: bytes) -> dict[str, bytes]:
    """What a model's folder holds of its tokenizer."""
    written = json.dumps(config if config is not None else {**SPECIAL, "chat_template": CHATML})
    return {TOKENIZER: bare().to_str().encode(), CONFIG: written.encode(), **more}


def lay(models: Path, model: str, config: Mapping[str, Any] | None = None) -> Path:
    """Prepares the model below a folder of models, and returns that."""
    folder = models / CATALOGUE[model].folder
    folder.mkdir(parents=True)
    for name, content in files(config).items():
        (folder / name).write_bytes(content)
    return models


def trained_text(encoded: Encoded) -> str:
    """What the loss counts, as text."""
    return bare().decode([i for i, t in zip(encoded.ids, encoded.trained, strict=True) if t], skip_special_tokens=False)


def text_of(encoded: Encoded) -> str:
    """What the model reads, as text."""
    return bare().decode(encoded.ids, skip_special_tokens=False)


def turn(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


TEXTS = st.text(min_size=1)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS, st.sampled_from([0, 1])), min_size=1, max_size=3)
"""(question, answer, weight) of each pair of turns."""
unhurried = settings(deadline=None, max_examples=50)
"""Other work on the machine is not what is tested."""


def conversation(pairs: list[tuple[str, str, int]]) -> Example:
    turns = [(turn("user", asked), turn("assistant", answer, weight=weight)) for asked, answer, weight in pairs]
    return Example([message for pair in turns for message in pair])
