"""Attention of packed rows: every example looks at itself alone, and nothing as large as a row squared is ever built.

Models call it through transformers' registry of attention functions. A row's examples are told apart by the keyword
arguments that transformers has for that: `cu_seq_lens_q`, where each begins, and `max_length_q`, the longest. Without
them, as when answers are generated, it is transformers' own call of scaled_dot_product_attention.
"""

from __future__ import annotations

import logging
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

log = logging.getLogger(__name__)

PACKED = "adaptml_packed"

_TRIAL_LENGTHS = (9, 1, 23)


class Heads(NamedTuple):
    """What a kernel may or may not be able to do."""

    device: torch.device
    queries: int
    keys: int
    width: int
    window: int | None


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function: query [1, heads, tokens, width], key and value [1, kv_heads, tokens, width];
    returns [1, tokens, heads, width].

    Dropout of attention does not reach packed rows: no model of the catalogue has any.
    """
    if cu_seq_lens_q is None or max_length_q is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, sliding_window=sliding_window, **more
        )
    heads = Heads(query.device, query.shape[1], key.shape[1], query.shape[3], sliding_window)
    if has_kernel(heads):
        return at_once(query, key, value, cu_seq_lens_q, max_length_q, scaling, sliding_window), None
    return one_by_one(module, query, key, value, cu_seq_lens_q, scaling, sliding_window), None


AttentionInterface.register(PACKED, attend)
AttentionMaskInterface.register(PACKED, sdpa_mask)


def no_mask(device: torch.device) -> Tensor:
    """What a model is given in place of a mask so that it makes none: what has four dimensions is left as it is."""
    return torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)


def one_by_one(
    module: Any, query: Tensor, key: Tensor, value: Tensor, begins: Tensor, scaling: float, window: int | None
) -> Tensor:
    """PyTorch's attention for each example; on every device."""
    lengths = begins.diff().tolist()
    examples = zip(*(part.split(lengths, dim=2) for part in (query, key, value)), strict=True)
    return torch.cat(
        [
            sdpa_attention_forward(module, *example, _band(example[0], window), scaling=scaling)[0]
            for example in examples
        ],
        dim=1,
    )


def _band(query: Tensor, window: int | None) -> Tensor | None:
    """[tokens, tokens], true where a token may look: back, at `window` tokens with itself. None: at all before it."""
    tokens = query.shape[2]
    if window is None or tokens <= window:
        return None
    return torch.ones(tokens, tokens, dtype=torch.bool, device=query.device).tril().triu(1 - window)


def at_once(
    query: Tensor, key: Tensor, value: Tensor, begins: Tensor, longest: int, scaling: float, window: int | None
) -> Tensor:
    """One kernel for all examples (FlashAttention-2, Dao 2023), on GPUs that have it. It computes in bf16."""
    q, k, v = (part[0].transpose(0, 1).to(torch.bfloat16) for part in (query, key, value))
    found: Any = varlen_attn(
        q,
        k,
        v,
        begins,
        begins,
        longest,
        longest,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    together: Tensor = found[None]
    return together


@cache
def has_kernel(heads: Heads) -> bool:
    """Whether the one kernel is there for such heads, and computes what PyTorch's attention does: found by trying,
    forward and backward, since it depends on the GPU, the width of the heads and the versions of both."""
    if heads.device.type != "cuda":
        return False
    difference = try_kernel(heads)
    if difference is None or not difference < 0.05:
        log.warning("attention example by example: the kernel for packed rows does not do %s", heads)
        return False
    return True


def try_kernel(heads: Heads) -> float | None:
    """Largest difference of output and gradients between the two ways, relative to the largest value; None where the
    kernel refuses."""
    generator = torch.Generator().manual_seed(0)
    tokens = sum(_TRIAL_LENGTHS)
    shapes = [(1, count, tokens, heads.width) for count in (heads.queries, heads.keys, heads.keys)]
    parts = [torch.randn(shape, generator=generator).to(heads.device, torch.bfloat16) for shape in shapes]
    begins = torch.tensor([0, *_TRIAL_LENGTHS]).cumsum(0).to(heads.device, torch.int32)
    module = SimpleNamespace(num_key_value_groups=heads.queries // heads.keys, is_causal=True)
    scaling, longest = heads.width**-0.5, max(_TRIAL_LENGTHS)
    try:
        tried = _with_gradients(parts, lambda q, k, v: at_once(q, k, v, begins, longest, scaling, heads.window))
    except (RuntimeError, NotImplementedError) as error:
        log.warning("no kernel for packed rows: %s", str(error).splitlines()[0])
        return None
    known = _with_gradients(parts, lambda q, k, v: one_by_one(module, q, k, v, begins, scaling, heads.window))
    pairs = zip(tried, known, strict=True)
    # Torch's maximum, which is no number where one of them is none; Python's would pass over it.
    return torch.stack([(one - other).abs().max() / other.abs().max() for one, other in pairs]).max().item()


def _with_gradients(parts: list[Tensor], attention: Any) -> list[Tensor]:
    """Output of the attention, and the gradients of its square's sum, in fp32."""
    inputs = [part.clone().requires_grad_() for part in parts]
    with torch.enable_grad():
        output = attention(*inputs)
        output.float().square().sum().backward()
    return [output.detach().float(), *(part.grad.float() for part in inputs if part.grad is not None)]
