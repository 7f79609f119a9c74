"""A run that has ended well, for what is said of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from rich.console import Console, RenderableType

from schemas.manifest import Evaluation, Manifest
from schemas.run import Artifacts, Estimate, Metrics, Progress, Run, Source
from schemas.run_states import RunState

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MANIFEST = Manifest.model_validate(
    {"name": "bot", "base_model": "google/gemma-2b-it", "dataset": {"train": ["a.jsonl"]}, "training": {"epochs": 1}}
)
MEASURED = Metrics(
    eval_loss_before=2.0, eval_loss_after=1.25, eval_perplexity_before=7.389, eval_perplexity_after=3.4903,
    eval_token_accuracy_before=0.5, eval_token_accuracy_after=0.625,
    eval_exact_match_before=0.0, eval_exact_match_after=0.25,
    eval_examples=1200, eval_tokens=24_000, eval_exact_match_examples=4, saved_step=60,
)  # fmt: skip
ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "README.md", "SHA256SUMS")
EXPORTS = ("adapter.gguf", "merged/config.json", "merged/model.safetensors", "model-bf16.gguf")


def finished(
    *, files: tuple[str, ...] = ADAPTER, export: tuple[str, ...] = ("adapter",), why_not: str = "", **limits: float
) -> Run:
    """SUCCEEDED with v7; `limits` of the manifest's gate, `why_not` is what it found."""
    manifest = MANIFEST.model_copy(update={"export": list(export), "evaluation": Evaluation(**limits)})
    artifacts = Artifacts(
        version=7, staged="s/", uri="gs://artifacts/acme/support-bot/v7/", size_bytes=10_123_456_789,
        sha256=dict.fromkeys(files, ""), promotable=not why_not, promotable_reason=why_not,
    )  # fmt: skip
    return Run(
        run_id="acme-support-bot-0123456789", state=RunState.SUCCEEDED, state_reason="version v7 is ready",
        tenant="acme", name="support-bot", source=Source(bucket="drops"), manifest=manifest, created_at=NOW,
        updated_at=NOW, state_since=NOW, metrics=MEASURED, artifacts=artifacts,
        estimate=Estimate(gpu_memory_gb=5.0, duration_s=170.0, cost_usd=0.04),
        progress=Progress(step=80, total_steps=80, epoch=3.0, loss=1.1, tokens_per_s=2100.0, eta_s=0.0),
    )  # fmt: skip


def rendered(shown: RenderableType, width: int = 100, **options: Any) -> list[str]:
    """Its lines, as a terminal of this width has them."""
    console = Console(width=width, color_system=None, force_terminal=True, **options)
    with console.capture() as captured:
        console.print(shown)
    return [line.rstrip() for line in captured.get().splitlines()]
