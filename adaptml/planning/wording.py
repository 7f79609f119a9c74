"""An estimate as people say it."""

from __future__ import annotations

from adaptml.planning.estimate import PRICES
from schemas.run import Estimate


def describe(planned: Estimate) -> str:
    """One line: time, cost and memory with their ranges, and the work that they were computed from."""
    time = f"about {_duration(planned.duration_s)}"
    if planned.duration_s_range is not None:
        time += f" ({_between(*map(_duration, planned.duration_s_range))})"
    cost = f"${planned.cost_usd:.2f}"
    if planned.cost_usd_range is not None:
        low, high = planned.cost_usd_range
        cost += f" (${low:.2f}–{high:.2f})"
    if planned.executions > 1:
        time += f" in {planned.executions} executions"
    return ", ".join([time, cost, _memory(planned)]) + _work(planned) + _exports(planned)


def _memory(planned: Estimate) -> str:
    """Says so where the GPU is too small, and where it may be."""
    needed = f"{planned.gpu_memory_gb:.1f} GB"
    if planned.accelerator not in PRICES["accelerators"]:
        return needed
    available = PRICES["accelerators"][planned.accelerator]["memory_gb"]
    text = f"{needed} of {available} GB on {planned.accelerator}"
    if not planned.fits:
        return f"{text}: does not fit"
    if planned.gpu_memory_gb_range is not None and (most := planned.gpu_memory_gb_range[1]) > available:
        return f"{text}, perhaps {most:.1f} GB: tight"
    return text


def _work(planned: Estimate) -> str:
    if not planned.steps:
        return ""
    number = "1 step" if planned.steps == 1 else f"{planned.steps:,} steps"
    basis = f" ({planned.basis})" if planned.basis else ""
    return f"; {_count(planned.tokens)} tokens in {number}{basis}"


def _exports(planned: Estimate) -> str:
    """; of that merged 86 s, gguf 2 min, with 16.7 of 17.2 GB of the instance's memory"""
    if not planned.export_s:
        return ""
    forms = ", ".join(f"{form} {_duration(seconds)}" for form, seconds in planned.export_s.items())
    text = f"; of that {forms}, with {planned.scratch_gb:.1f}"
    if planned.accelerator in PRICES["accelerators"]:
        text += f" of {PRICES['accelerators'][planned.accelerator]['memory_gib'] * (1 << 30) / 1e9:.1f}"
    return f"{text} GB of the instance's memory"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _between(low: str, high: str) -> str:
    """4 min, 8 min → 4–8 min."""
    number, unit = low.split()
    return f"{number}–{high}" if high.endswith(f" {unit}") else f"{low}–{high}"


def _count(number: int) -> str:
    """2400000 → 2.4 million."""
    if number < 10_000:
        return f"{number:,}"
    thousands = round(number / 1000)
    if thousands < 1000:
        return f"{thousands} thousand"
    return f"{thousands / 1000:,.1f} million"
