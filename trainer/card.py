"""The model card: README.md of an adapter."""

from __future__ import annotations

import json
from collections.abc import Iterator

from schemas.catalogue import BaseModelRow
from schemas.run import DatasetSummary, Metrics, Run
from trainer.card_evaluation import answers, held_out
from trainer.evaluate import Sample
from trainer.export import ADAPTER_GGUF, MERGED, MODEL_GGUF, Deliverables, Exported


def model_card(
    run: Run,
    row: BaseModelRow,
    metrics: Metrics,
    samples: list[Sample],
    delivered: Deliverables,
    *,
    seconds: float,
    cost_usd: float,
) -> str:
    """Markdown with the front matter that model hubs read."""
    manifest = run.manifest
    if manifest is None:
        raise ValueError(f"{run.run_id} has no manifest")
    training, lora = manifest.training, manifest.lora
    length = f"{training.max_steps} steps" if training.max_steps else f"{training.epochs:g} epochs"
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

Nothing was loaded in vLLM, llama.cpp or Ollama themselves; what was checked instead stands below and in AdaptML's docs/export.md.

{"".join(_uses(manifest.name, row, delivered))}{_exports(delivered.exported)}## Training

{manifest.method.upper()}, rank {lora.r}, alpha {lora.alpha}, dropout {lora.dropout}, on
{", ".join(row.target_modules(lora.target_modules))}; {length} at learning rate {training.learning_rate:g}
({training.lr_scheduler}), at most {training.max_seq_length} tokens an example, loss on {training.train_on}, seed {training.seed}.

## Data

{run.dataset.train_examples:,} examples in the training files, {run.dataset.tokens:,} tokens an epoch, format `{run.dataset.format}`.

| file | role | bytes | generation | crc32c |
| --- | --- | --- | --- | --- |
{_data_files(run.dataset)}

{answers(samples)}"""


def _data_files(dataset: DatasetSummary) -> str:
    """Rows of a table. A name stands as code: in it nothing is Markdown or HTML, nor a formula to a spreadsheet."""
    return "\n".join(
        f"| `{_cell(f.name)}` | {f.role} | {f.size:,} | {f.generation} | `{f.crc32c}` |" for f in dataset.files
    )


def _uses(name: str, row: BaseModelRow, delivered: Deliverables) -> Iterator[str]:
    """How to load each form."""
    forms, fit = {exported.form for exported in delivered.exported}, delivered.fitness
    yield _use(
        "The adapter in Python, with PEFT",
        "python",
        "from peft import AutoPeftModelForCausalLM",
        "from transformers import AutoTokenizer",
        "",
        'model = AutoPeftModelForCausalLM.from_pretrained("path/to/this/folder")',
        'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")',
    )
    if fit.vllm:
        yield f"vLLM does not take this adapter: {'; '.join(map(_cell, fit.vllm))}.\n\n"
    else:
        rank = f"--max-lora-rank {fit.max_lora_rank}"
        command = f"vllm serve {row.id} --enable-lora {rank} --lora-modules {name}=path/to/this/folder"
        yield _use("The adapter in vLLM; ask for the model `" + name + "`", "sh", command)
    if fit.llama_cpp:
        yield f"llama.cpp does not take this adapter: {'; '.join(map(_cell, fit.llama_cpp))}.\n\n"
    if "merged" in forms:
        yield _use(
            "Base and adapter as one model: transformers, or `vllm serve path/to/this/folder/merged`",
            "python",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f'model = AutoModelForCausalLM.from_pretrained("path/to/this/folder/{MERGED}")',
            f'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder/{MERGED}")',
        )
    if "gguf" in forms:
        yield _use(
            "llama.cpp: the whole model, or the adapter on a GGUF file of the base, which may be quantised",
            "sh",
            f"llama-cli -m {MODEL_GGUF}",
            f"llama-cli -m base.gguf --lora {ADAPTER_GGUF}",
            f"llama-quantize {MODEL_GGUF} model-q4_k_m.gguf Q4_K_M",
        )
        yield _use("Ollama", "sh", f"echo 'FROM ./{MODEL_GGUF}' > Modelfile", f"ollama create {name} -f Modelfile")


def _use(title: str, language: str, *lines: str) -> str:
    code = "\n".join(lines)
    return f"{title}:\n\n```{language}\n{code}\n```\n\n"


def _exports(exported: list[Exported]) -> str:
    """What each form is made of, and what was found when it was read back."""
    if not exported:
        return ""
    rows = "".join(
        f"| {one.form} | {len(one.files)} | {one.size_bytes / 1e6:,.1f} | {one.seconds:.1f} | "
        f"{', '.join(f'{name} {value}' for name, value in one.checks.items())} |\n"
        for one in exported
    )
    return f"""## Exports

Read back and compared with base and adapter before they were published. `logits_differ_by`: root mean square of the difference, relative
to that of the logits; `adapter_moves_logits_by`: the same, between the model without and with the adapter.

| form | files | MB | seconds | checks |
| --- | --- | --- | --- | --- |
{rows}
"""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("`", "'")


def _figure(value: float | None) -> str:
    return "not measured" if value is None else json.dumps(round(value, 4))
