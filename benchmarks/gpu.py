"""On a GPU: memory against the plan, speed against the card's peak, NF4 that was prepared against quantising at load.

`python -m benchmarks.gpu` is all there is to run: models of the catalogue's shapes are made of random weights, which
cost as much to train as real ones, with small tokenizers of their families; nothing is downloaded. Each case is a
process of its own, so that its peak of memory is its own. On a CPU it runs with `--layers 1`, to show that it does.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.figure import show
from local.paths import ROOT

MODELS = ("google/gemma-2b-it", "HuggingFaceTB/SmolLM2-1.7B-Instruct", "Qwen/Qwen2.5-7B-Instruct")
LENGTHS = (512, 2048)
PEAK_TFLOPS = {"H100": 989.0, "H200": 989.0, "L4": 121.0, "A100": 312.0}
"""Dense bf16, by NVIDIA's data sheets."""


def main() -> int:
    """Returns the exit status: 1 where memory was more than a tenth from the plan."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="ids of the catalogue")
    parser.add_argument("--lengths", nargs="+", type=int, default=list(LENGTHS), help="tokens of the longest example")
    parser.add_argument("--steps", type=int, default=10, help="optimizer steps (default: %(default)s)")
    parser.add_argument("--layers", type=int, help="fewer layers than the model has")
    parser.add_argument("--one", nargs=2, metavar=("CASE", "ID"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        case, model = options.one
        return _load(model) if case == "load" else _train(model, int(case), options.steps, options.layers)
    off = False
    with tempfile.TemporaryDirectory(prefix="adaptml-gpu-") as scratch:
        for model in options.models:
            _lay(model, Path(scratch), options.layers)
            prepared, anew = (
                _in_process("load", model, Path(scratch) / variant, options) for variant in ("nf4", "bf16")
            )
            peer = "bf16 weights, quantised while loading"
            show(f"seconds to load, {model}", prepared["seconds"], anew["seconds"], peer, "s")
            for length in options.lengths:
                off |= _tell(model, length, _in_process(str(length), model, Path(scratch) / "nf4", options))
    return int(off)


def _tell(model: str, length: int, found: dict[str, Any]) -> bool:
    """Prints a case's figures; true where its memory is more than a tenth from the plan."""
    what = f"{model}, {length} tokens, on {found['device']}, micro-batch {found['micro_batch']}"
    show(f"process start to first step, {what}", found["first_step_s"], found["imports_s"], "imports alone", "s")
    if found["peak_tflops"]:
        reached = found["tokens_per_s"] * found["flop_per_token"] / 1e12
        show(
            f"TFLOP/s at {found['tokens_per_s']:.0f} tokens/s, {what}", reached, found["peak_tflops"], "peak", "TFLOP/s"
        )
    if found["memory_gb"] is None:
        return False
    show(f"peak of memory, {what}", found["memory_gb"], found["planned_gb"], "planned, without CUDA's context", "GB")
    return bool(abs(found["memory_gb"] / found["planned_gb"] - 1) > 0.1)


def _in_process(case: str, model: str, models: Path, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.gpu", "--one", case, model, "--steps", str(options.steps)]
    command += ["--layers", str(options.layers)] if options.layers else []
    environment = os.environ | {"ADAPTML_MODELS_DIR": str(models), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True, timeout=1800
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _lay(model: str, scratch: Path, layers: int | None) -> None:
    """The model, prepared, below `nf4`; and below `bf16` as if another version had quantised it."""
    import torch
    from transformers import AutoModelForCausalLM

    from tests.unit import families
    from trainer.prepared import STAMP, Origin, seal
    from trainer.quantise import write_nf4

    row = _row(model, layers)
    folder, other = (scratch / variant / row.folder for variant in ("nf4", "bf16"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with device:
        made = AutoModelForCausalLM.from_config(_config(row), dtype=torch.bfloat16)
    made.save_pretrained(folder)
    del made
    write_nf4(folder, device)
    (folder / "tokenizer.json").write_text(families.bare(row.chat).to_str(), "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(families.config(row.chat)), "utf-8")
    seal(folder, Origin(model=row.id, revision=row.revision, source="random"))
    other.mkdir(parents=True)
    for path in folder.rglob("*"):
        if path.is_file() and path.name != Path(STAMP).name:
            target = other / path.relative_to(folder)
            target.parent.mkdir(exist_ok=True)
            target.hardlink_to(path)
    (other / STAMP).write_text("{}")


def _load(model: str) -> int:
    import torch

    from trainer.model import load_base

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    began = time.perf_counter()
    load_base(_row(model, None), quantise=True, device=device)
    if device.type == "cuda":
        torch.cuda.synchronize()
    print(json.dumps({"seconds": time.perf_counter() - began}))
    return 0


def _train(model: str, length: int, steps: int, layers: int | None) -> int:
    began = time.monotonic()
    import torch

    from adaptml.planning import memory
    from tests.training import Desk
    from trainer import evaluate

    imports_s, first = time.monotonic() - began, 0.0
    row = _row(model, layers)
    evaluate.SAMPLES = 0
    training = {"max_steps": steps, "batch_size": 16, "max_seq_length": length, "overlong": "truncate"}
    desk = Desk(every_s=100_000, base_model=model, training=training)
    desk.bucket.objects["train.jsonl"] = _rows(64, length)

    def note(_: Any) -> None:
        nonlocal first
        first = time.monotonic() - began

    if desk.attempt(at=1, do=note) != 0 or desk.run.artifacts is None:
        raise RuntimeError(f"training ended with {desk.run.error}")
    reached, manifest = desk.run.progress, desk.run.manifest
    if manifest is None or reached.micro_batch_tokens is None:
        raise RuntimeError("no step was reported")
    micro_batch = memory.MicroBatch(reached.micro_batch_tokens, bool(reached.gradient_checkpointing))
    with patch.object(memory, "CATALOGUE", {model: row}):
        planned = memory.gpu_memory_span(manifest, micro_batch).expected - memory.CUDA_CONTEXT_BYTES.expected
    on_gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if on_gpu else "CPU"
    peak = next((tflops for name, tflops in PEAK_TFLOPS.items() if name in device), 0.0)
    found = {
        "device": device,
        "imports_s": imports_s,
        "first_step_s": first,
        "tokens_per_s": reached.tokens_per_s,
        # 2 forward and 2 backward to the inputs; what is computed again for want of memory is no use
        "flop_per_token": 4 * row.architecture.parameters(),
        "peak_tflops": peak,
        "memory_gb": reached.gpu_memory_gb,
        "planned_gb": planned / 1e9,  # PyTorch's count, which is measured, leaves the context out
        "micro_batch": f"{micro_batch.tokens}{' with checkpointing' if micro_batch.checkpointing else ''}",
    }
    print(json.dumps(found))
    return 0


def _rows(count: int, length: int) -> bytes:
    """Conversations of mixed lengths, up to about the length and more."""
    words = "the quick brown fox jumps over the lazy dog and the cat sat on the mat"
    rows = []
    for number in range(count):
        answer = f"{number} " + " ".join([words] * (1 + length * (1 + number % 8) // 320))
        messages = [{"role": "user", "content": f"Question {number}?"}, {"role": "assistant", "content": answer}]
        rows.append(json.dumps({"messages": messages}))
    return ("\n".join(rows) + "\n").encode()


def _row(model: str, layers: int | None) -> Any:
    from schemas.catalogue import CATALOGUE

    row = CATALOGUE[model]
    if layers is None:
        return row
    return row.model_copy(update={"architecture": row.architecture.model_copy(update={"layers": layers})})


def _config(row: Any) -> Any:
    from tests.unit.test_catalogue import config_of

    return config_of(row.architecture)


if __name__ == "__main__":
    sys.exit(main())
