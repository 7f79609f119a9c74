"""What the exports of a run take: time at its end, and the memory of the instance, in which their files lie. Pure.

What trainer/export.py does is counted in bytes of the model in bf16: that is what is downloaded, merged, converted,
compared, run, summed and uploaded. docs/planning.md says what this leaves out and what has been measured.
"""

from __future__ import annotations

from adaptml.planning.memory import BF16_BYTES, NF4_BYTES
from adaptml.planning.span import Span
from schemas.catalogue import CATALOGUE, Architecture
from schemas.manifest import Manifest

DOWNLOAD_BYTES_PER_S = Span(100e6, 300e6, 800e6)
"""From a bucket of the same region, several files at a time. Low: one file, or a busy neighbour. High: what an instance
with 10 Gbit/s has after checksums. Not measured here."""
UPLOAD_BYTES_PER_S = Span(30e6, 100e6, 250e6)
"""To a bucket of the same region, one file after the other in one stream each. Not measured here."""
WORK_BYTES_PER_S = {"merged": Span(60e6, 150e6, 400e6), "gguf": Span(25e6, 60e6, 150e6)}
"""Writing a form, reading it back, comparing each tensor, running it, and its SHA-256. Measured on two busy cores with
SmolLM2-135M, 269 MB in bf16: 200 MB/s merged, which is read back and run by the device, and 57 MB/s as GGUF, which is
run on the CPU in fp32. High: twice the cores, without a word of its vocabulary. Low: a model that no cache holds."""
PROCESS_BYTES = Span(1.5e9, 2.5e9, 4.0e9)
"""Python, torch, CUDA's libraries and what is pinned for copies. 1.7 GB was the peak of an export on a CPU, two mapped
files of 0.3 GB included; CUDA's own on the host comes on top."""
SHARD_BYTES = float(1 << 30)
"""What of the merged model is in memory while it is written, unless one tensor is larger."""
ADAPTER_BYTES = {"adapter": 2.0, "gguf": 4.0}
"""A LoRA weight in the files: bf16 for PEFT, fp32 for llama.cpp."""


def forms(manifest: Manifest) -> list[str]:
    """What is asked for besides the adapter, which takes next to nothing."""
    return [form for form in WORK_BYTES_PER_S if form in manifest.export]


def fetch_seconds(manifest: Manifest) -> Span:
    """Time of each execution, in seconds, for the base's 16-bit weights, of which training holds an NF4 copy.

    Nothing without exports; training with `method: lora` reads the same weights, within its start-up.
    """
    needed = bool(forms(manifest)) and manifest.method == "qlora"
    return _seconds(_model_bytes(manifest) if needed else 0.0, DOWNLOAD_BYTES_PER_S)


def seconds(manifest: Manifest) -> dict[str, Span]:
    """Form → time in seconds, after the last step: making it, checking it, uploading it."""
    size = _model_bytes(manifest)
    found = {}
    for form in forms(manifest):
        work, upload = _seconds(size, WORK_BYTES_PER_S[form]), _seconds(size, UPLOAD_BYTES_PER_S)
        found[form] = Span(*(sum(both) for both in zip(work, upload, strict=True)))
    return found


def total_seconds(manifest: Manifest) -> Span:
    """Of all forms."""
    spans = list(seconds(manifest).values())
    return Span(*(sum(case) for case in zip(*spans, strict=True))) if spans else Span(0.0, 0.0, 0.0)


def scratch_bytes(manifest: Manifest) -> Span:
    """Most of the instance's memory, in bytes, that exports need at once; nothing without them.

    `/tmp` of Cloud Run is memory. All forms lie there until they are uploaded, beside the base: its 16-bit weights and
    what it is trained in. Low: the base is a part of the image or of a mounted bucket, and takes no memory.
    """
    asked = forms(manifest)
    if not asked:
        return Span(0.0, 0.0, 0.0)
    row = CATALOGUE[manifest.base_model]
    shape, size = row.architecture, _model_bytes(manifest)
    lora = shape.lora_parameters(manifest.lora.r, row.target_modules(manifest.lora.target_modules))
    written = len(asked) * size + sum(ADAPTER_BYTES.get(form, 0.0) * lora for form in ("adapter", *asked))
    base = size + (_nf4_bytes(shape) if manifest.method == "qlora" else 0.0)
    tensors = 2 * max(SHARD_BYTES, shape.vocab * shape.hidden * BF16_BYTES)  # the one written, the one compared with
    cases = zip((0.0, base, base), PROCESS_BYTES, strict=True)
    return Span(*(written + held + process + tensors for held, process in cases))


def _model_bytes(manifest: Manifest) -> float:
    return CATALOGUE[manifest.base_model].architecture.parameters() * BF16_BYTES


def _nf4_bytes(shape: Architecture) -> float:
    linear = shape.linear_parameters()
    return linear * NF4_BYTES + (shape.parameters() - linear) * BF16_BYTES


def _seconds(size_bytes: float, bytes_per_s: Span) -> Span:
    return Span(*(size_bytes / rate for rate in reversed(bytes_per_s)))
