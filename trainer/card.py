"""The model card: README.md of an adapter."""

from __future__ import annotations

import json

from schemas.catalogue import BaseModelRow
from schemas.run import Metrics, Run
from trainer.card_evaluation import answers, held_out
from trainer.evaluate import Sample


def model_card(
    run: Run, row: BaseModelRow, metrics: Metrics, samples: list[Sample], *, seconds: float, cost_usd: float
) -> str:
    """Markdown with the front matter that model hubs read."""
    manifest = run.manifest
    if manifest is None:
        raise ValueError(f"{run.run_id} has no manifest")
    training, lora = manifest.training, manifest.lora
    length = f"{training.max_steps} steps" if training.max_steps else f"{training.epochs:g} epochs"
    files = "\n".join(
        f"| `{_cell(f.name)}` | {f.role} | {f.size:,} | {f.generation} | `{f.crc32c}` |" for f in run.dataset.files
    )
    return f"""---
base_model: {row.id}
library_name: peft
pipeline_tag: text-generation
tags: [lora, {manifest.method}, adaptml]
---

# {manifest.name}

A LoRA adapter for [{row.id}](https://huggingface.co/{row.id}), trained by AdaptML as run `{run.run_id}`.

The licence of the base model, **{row.licence}**, goes on to apply.

| training loss at the end | time | list price on {manifest.compute.accelerator} for that time |
| --- | --- | --- |
| {_figure(metrics.train_loss)} | {seconds:.0f} s | ${cost_usd:.4f} |

{held_out(manifest, metrics)}

## Use

```python
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

model = AutoPeftModelForCausalLM.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
```

## Training

{manifest.method.upper()}, rank {lora.r}, alpha {lora.alpha}, dropout {lora.dropout}, on
{", ".join(row.target_modules(lora.target_modules))}; {length} at learning rate {training.learning_rate:g}
({training.lr_scheduler}), at most {training.max_seq_length} tokens an example, loss on {training.train_on}, seed {training.seed}.

## Data

{run.dataset.train_examples:,} examples in the training files, {run.dataset.tokens:,} tokens an epoch, format `{run.dataset.format}`.

| file | role | bytes | generation | crc32c |
| --- | --- | --- | --- | --- |
{files}

{answers(samples)}"""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("`", "'")


def _figure(value: float | None) -> str:
    return "not measured" if value is None else json.dumps(round(value, 4))
