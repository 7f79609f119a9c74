"""The training loop beside TRL's SFTTrainer: useful tokens a second, and the same loss curve.

Speed: 100 Alpaca-style rows, 4 examples a step, LoRA r=16 on attention, each in a process of its own, in turns;
the best of each counts, since other work on the machine can only slow one down. Useful tokens are those of the
examples, without padding; the time is that of the steps, without loading and without evaluation. TRL runs as it comes,
at its best where bf16 is native: packed, without gradient checkpointing; and so in fp32, which is its best elsewhere.
The physical limit is the same run as if nothing but its matrix products took time.

`--parity`: the same examples in the same order, not packed, in fp32: both losses, step by step.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.figure import show

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data" / "alpaca_100.jsonl"
SEED, PER_STEP = 42, 4
CASES = {
    "adaptml, bf16 LoRA": {"ours": True},
    "TRL default, bf16 LoRA": {},
    "TRL packing, bf16 LoRA": {"packing": True, "gradient_checkpointing": False},
    "TRL packing in fp32, bf16 LoRA": {"packing": True, "gradient_checkpointing": False, "fp32": True},
    "adaptml, NF4 QLoRA": {"ours": True, "nf4": True},
    "TRL default, NF4 QLoRA": {"nf4": True},
    "TRL packing, NF4 QLoRA": {"nf4": True, "packing": True, "gradient_checkpointing": False},
    "TRL packing in fp32, NF4 QLoRA": {"nf4": True, "packing": True, "gradient_checkpointing": False, "fp32": True},
    "matrix products alone, bf16 LoRA": {"ours": True, "products": True},
    "matrix products alone, NF4 QLoRA": {"ours": True, "nf4": True, "products": True},
}
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")


def manifest(steps: int, *, method: str, **training: Any) -> dict[str, Any]:
    """What both are asked for."""
    return {
        "lora": {"r": 16, "alpha": 32, "dropout": 0.0},
        "method": method,
        "dataset": {"train": ["train.jsonl"]},
        "training": {"max_steps": steps, "batch_size": PER_STEP, "seed": SEED, "max_seq_length": 2048} | training,
    }


def ours(
    steps: int, *, nf4: bool = False, around: AbstractContextManager[Any] | None = None, **training: Any
) -> tuple[list[float], float, list[Any]]:
    """(loss of each step, useful tokens a second, the examples of each step); the steps are taken within `around`."""
    from tests.training import Desk
    from trainer import data, evaluate

    batches: list[Any] = []

    def noted(*arguments: Any, **named: Any) -> Iterator[Any]:
        with around or nullcontext():
            for batch in data_batches(*arguments, **named):
                batches.append(batch)
                yield batch

    data_batches = data.batches
    desk = Desk(every_s=100_000, **manifest(steps, method="qlora" if nf4 else "lora", **training))
    desk.bucket.objects["train.jsonl"] = DATA.read_bytes()
    with patch.object(data, "batches", noted), patch.object(evaluate, "samples", lambda *_, **__: []):
        if desk.attempt() != 0:
            raise RuntimeError("training failed")
    points = [p for p in (json.loads(line) for line in desk.delivered("metrics.jsonl").splitlines()) if "loss" in p]
    return [p["loss"] for p in points], points[-1]["tokens_per_s"], batches


def products(steps: int, *, nf4: bool) -> tuple[list[float], float]:
    """As `ours`, but that nothing took time besides the matrix products, which any loop has to compute."""
    from torch.profiler import ProfilerActivity, profile

    profiler = profile(activities=[ProfilerActivity.CPU])
    losses, _, batches = ours(steps, nf4=nf4, around=profiler)
    spent_us = sum(event.self_cpu_time_total for event in profiler.key_averages() if event.key in PRODUCTS)
    return losses, sum(len(example.ids) for batch in batches for example in batch) / (spent_us / 1e6)


def trl(batches: list[Any], *, nf4: bool = False, fp32: bool = False, **config: Any) -> tuple[list[float], float]:
    """(loss of each step, useful tokens a second) of SFTTrainer on the same tokens and labels in the same order."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from trl import SFTConfig, SFTTrainer

    from schemas.catalogue import CATALOGUE
    from tests.cloud import MODEL
    from trainer.model import keep_differentiable, models_dir

    folder = models_dir() / CATALOGUE[MODEL].folder
    quantised = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32 if fp32 else torch.bfloat16,
    )  # fmt: skip
    dtype = torch.float32 if fp32 else torch.bfloat16
    torch.manual_seed(SEED)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, quantization_config=quantised if nf4 else None)
    keep_differentiable(model)
    examples = [example for batch in batches for example in batch]
    rows = Dataset.from_list([{"input_ids": e.ids, "labels": e.labels} for e in examples])
    with tempfile.TemporaryDirectory() as scratch:
        arguments = SFTConfig(
            output_dir=scratch, per_device_train_batch_size=PER_STEP, max_steps=len(batches), learning_rate=2e-4,
            lr_scheduler_type="cosine", warmup_steps=round(0.03 * len(batches)), logging_steps=1, seed=SEED,
            save_strategy="no", report_to=[], disable_tqdm=True, max_length=2048, bf16=not fp32, use_cpu=True,
            weight_decay=0.0, max_grad_norm=1.0, dataloader_pin_memory=False,
            train_sampling_strategy="sequential", **config,
        )  # fmt: skip
        lora = LoraConfig(
            task_type="CAUSAL_LM", r=16, lora_alpha=32, lora_dropout=0.0,
            target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
        )  # fmt: skip
        trainer = SFTTrainer(
            model=model, args=arguments, train_dataset=rows, peft_config=lora,
            processing_class=AutoTokenizer.from_pretrained(folder),
        )  # fmt: skip
        began = time.monotonic()
        trainer.train()
        seconds = time.monotonic() - began
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        # Packed rows hold more than 4 examples: what was really trained on in these steps.
        seen = sum(len(row["input_ids"]) for row in trainer.train_dataset.select(_taken(trainer, len(batches))))
    return losses, seen / seconds


def _taken(trainer: Any, steps: int) -> list[int]:
    """The rows of these steps, in order and round again."""
    count = len(trainer.train_dataset)
    return [i % count for i in range(steps * PER_STEP)]


def one(name: str, steps: int) -> None:
    """One case, in this process; prints its figures."""
    import torch

    torch.set_num_threads(2)
    case = dict(CASES[name])
    is_ours, nf4 = case.pop("ours", False), case.pop("nf4", False)
    if case.pop("products", False):
        losses, speed = products(steps, nf4=nf4)
    elif is_ours:
        losses, speed, _ = ours(steps, nf4=nf4)
    else:
        losses, speed = trl(_batches(steps), nf4=nf4, **case)
    print(json.dumps({"losses": losses, "tokens_per_s": speed}))


def _batches(steps: int) -> list[Any]:
    """The examples of each step, as our loop takes them, without training."""
    from adaptml.dataset.check import examined_rows, terms_of
    from adaptml.dataset.examine import Examiner
    from adaptml.tokens.chat import Encoded
    from schemas.catalogue import CATALOGUE
    from schemas.manifest import Manifest
    from tests.cloud import MODEL
    from trainer import data
    from trainer.model import chat_tokenizer
    from trainer.packing import Tokens

    asked = Manifest.model_validate({"name": "bot", "base_model": MODEL} | manifest(steps, method="lora"))
    chat = chat_tokenizer(CATALOGUE[MODEL])
    with DATA.open("rb") as stream:
        found = [row.example for row in examined_rows(stream, "train.jsonl", Examiner(terms_of(asked)))]
    examples = []
    for example in found:
        if example is not None:
            (encoded,) = chat.encode_batch([example])
            if isinstance(encoded, Encoded) and isinstance(tokens := data.bound(encoded, asked.training), tuple):
                examples.append(Tokens(*tokens, example))
    training, _ = data.split(examples, data.DEFAULT_SPLIT, SEED)
    return list(data.batches(training, PER_STEP, range(steps), SEED))


def parity(steps: int) -> int:
    """Both losses in fp32. Returns the exit status: 1 where a step differs by more than 1e-3."""
    from tests.fp32 import in_fp32

    with in_fp32():
        mine, _, batches = ours(steps, packing=False)
    theirs, _ = trl(batches, fp32=True, gradient_checkpointing=False)
    differences = [abs(a - b) for a, b in zip(mine, theirs, strict=True)]
    for step, (a, b) in enumerate(zip(mine, theirs, strict=True), start=1):
        print(f"step {step}: {a:.5f} {b:.5f}")
    show("largest difference of a step's loss to TRL's, fp32, not packed", max(differences), 1e-3, "allowed", "nats")
    return int(max(differences) > 1e-3)


def speed(steps: int, turns: int, without: list[str]) -> int:
    """All cases but some, in turns. Returns the exit status."""
    figures: dict[str, list[float]] = {name: [] for name in CASES if name not in without}
    last: dict[str, float] = {}
    for _ in range(turns):
        for name in figures:
            command = [sys.executable, "-m", "benchmarks.training", "--one", name, "--steps", str(steps)]
            done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=1800)
            found = json.loads(done.stdout.splitlines()[-1])
            figures[name].append(found["tokens_per_s"])
            last[name] = statistics.mean(found["losses"][-3:])
    for kind in ("bf16 LoRA", "NF4 QLoRA"):
        mine = f"adaptml, {kind}"
        for peer in (f"TRL default, {kind}", f"TRL packing, {kind}", f"TRL packing in fp32, {kind}"):
            if peer in without:
                print(json.dumps({"not measured": peer}))
                continue
            show(f"useful tokens a second, {kind}", max(figures[mine]), max(figures[peer]), peer, "tokens/s")
        limit, best = f"matrix products alone, {kind}", f"TRL packing, {kind}"
        if limit in figures:
            show(f"useful tokens a second, {kind}", max(figures[mine]), max(figures[limit]), limit, "tokens/s")
        if limit in figures and best in figures:
            show(f"useful tokens a second, {limit}", max(figures[limit]), max(figures[best]), best, "tokens/s")
        if (peer := f"TRL default, {kind}") in last:  # packed rows hold other examples
            show(f"mean loss of the last three steps, {kind}", last[mine], last[peer], peer, "nats")
    return 0


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--steps", type=int, default=8, help="optimizer steps (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=2, help="how often each is measured (default: %(default)s)")
    parser.add_argument(
        "--without", nargs="+", default=[], choices=CASES, metavar="CASE",
        help="leave out what takes an hour where bf16 is emulated: 'TRL packing, NF4 QLoRA', for one",
    )  # fmt: skip
    parser.add_argument("--parity", action="store_true", help="hold the losses against TRL's, in fp32")
    parser.add_argument("--one", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("ADAPTML_MODELS_DIR", str(ROOT / ".local" / "models"))
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if not DATA.is_file():
        print(f"the data is not there: {DATA}", file=sys.stderr)
        return 2
    if options.one:
        one(options.one, options.steps)
        return 0
    return parity(options.steps) if options.parity else speed(options.steps, options.turns, options.without)


if __name__ == "__main__":
    sys.exit(main())
