"""The state of training at the boundary of a step, and its form as a file.

What is in it decides what the next step does: LoRA weights, AdamW's moments, the schedule, the random numbers of
dropout, the best adapter so far where training may stop early, and how far the loop is. Batches are not in it; they
follow from seed and step. So training that goes on from a snapshot does on the CPU, to the last bit, what it would have
done without a break.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from adaptml.planning.memory import MicroBatch
from trainer.evaluate import Measured, Patience

FORMAT = "adaptml-checkpoint-3"
"""Raised when what is in a file changes its meaning."""
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What AdamW keeps of each parameter."""
_SCHEDULE = ("last_epoch", "_step_count", "_last_lr")
"""What changes in a LambdaLR; the rest follows from the manifest."""
_CPU_RNG, _CUDA_RNG, _CURVE = "rng/cpu", "rng/cuda", "curve"


class Unreadable(Exception):  # noqa: N818 - says what is the matter
    """Raised for a file that is damaged, or whose snapshot is of another training."""


@dataclass
class Position:
    """How far training is: what the loop carries from step to step, beside tensors."""

    step: int = 0
    """Optimizer steps that are done."""
    loss: float | None = None
    """Of the last step."""
    before: Measured | None = None
    """On held-out data, before the first step."""
    seen_tokens: int = 0
    """All of the examples so far; there is no padding."""
    trained_tokens: int = 0
    """Of them, those that the loss counts."""
    seconds: float = 0.0
    """That this attempt and those it goes on from have taken."""
    micro_batch: MicroBatch | None = None
    """What an out-of-memory error left; None as long as there was none."""
    patience: Patience | None = None
    is_over: bool = False
    """True once early stopping has ended training."""
    best_step: int | None = None
    """Where the held-out loss was lowest so far; only early stopping keeps it."""
    best: dict[str, Tensor] = field(default_factory=dict, compare=False)
    """The LoRA weights of that step, on the CPU, under the names of the model. Never changed, only replaced."""
    points: list[dict[str, Any]] = field(default_factory=list)
    """The lines of metrics.jsonl."""


@dataclass(frozen=True)
class Snapshot:
    """A copy: the steps that follow do not change it."""

    step: int
    tensors: dict[str, Tensor]
    """On the CPU."""
    notes: str
    """The position but for its points and its tensors, as JSON."""


def take(model: Any, optimizer: Any, scheduler: Any, position: Position) -> Snapshot:
    """The state as it is now."""
    tensors = {name: tensor.detach().to("cpu", copy=True) for name, tensor in _live(model, optimizer)}
    tensors[_CPU_RNG] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors[_CUDA_RNG] = torch.cuda.get_rng_state()
    # As a tensor: the header of a file, where the other notes are, has an upper bound, and the curve has none.
    curve = json.dumps(position.points).encode()
    tensors[_CURVE] = torch.frombuffer(bytearray(curve), dtype=torch.uint8)
    tensors |= {f"best/{name}": tensor for name, tensor in position.best.items()}
    known = asdict(replace(position, points=[], best={}))
    del known["points"], known["best"]
    known["schedule"] = {key: value for key, value in scheduler.state_dict().items() if key in _SCHEDULE}
    return Snapshot(position.step, tensors, json.dumps(known))


def restore(snapshot: Snapshot, model: Any, optimizer: Any, scheduler: Any) -> Position:
    """Puts the state back. Raises Unreadable, before anything was changed."""
    position, schedule = _parse(snapshot)
    found = {name: _found(snapshot, name, tensor) for name, tensor in _expected(model)}
    dropout = _found(snapshot, _CPU_RNG, torch.get_rng_state())
    if position.best_step is not None:
        position.best = {name: _found(snapshot, f"best/{name}", tensor) for name, tensor in _trained(model)}

    with torch.no_grad():
        for name, parameter in _trained(model):
            parameter.copy_(found[f"weights/{name}"])
    moments = [{key: found[f"optimizer/{key}/{name}"] for key in _MOMENTS} for name, _ in _trained(model)]
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": dict(enumerate(moments)), "param_groups": groups})
    scheduler.load_state_dict(scheduler.state_dict() | schedule)
    for group, learning_rate in zip(optimizer.param_groups, scheduler.get_last_lr(), strict=True):
        group["lr"] = learning_rate
    torch.set_rng_state(dropout)
    if torch.cuda.is_available() and _CUDA_RNG in snapshot.tensors:
        torch.cuda.set_rng_state(snapshot.tensors[_CUDA_RNG])
    return position


def keep_best(model: Any, position: Position) -> None:
    """The adapter as it is now is the best so far."""
    position.best_step = position.step
    position.best = {name: tensor.detach().to("cpu", copy=True) for name, tensor in _trained(model)}


@torch.no_grad()
def put_best(model: Any, position: Position) -> int:
    """Puts the best adapter in the place of the last, where one was kept; returns the step that the model is at."""
    if position.best_step is None:
        return position.step
    for name, parameter in _trained(model):
        parameter.copy_(position.best[name])
    return position.best_step


def _parse(snapshot: Snapshot) -> tuple[Position, dict[str, Any]]:
    try:
        notes = json.loads(snapshot.notes)
        schedule = notes.pop("schedule")
        for name, kind in (("before", Measured), ("patience", Patience)):
            notes[name] = kind(**notes[name]) if notes[name] is not None else None
        if notes["micro_batch"] is not None:
            notes["micro_batch"] = MicroBatch(*notes["micro_batch"])
        points = json.loads(snapshot.tensors[_CURVE].numpy().tobytes())
        return Position(**notes, points=points), schedule
    except (ValueError, LookupError, TypeError) as error:
        raise Unreadable("its notes are not those of this version") from error


def write(snapshot: Snapshot, path: Path, fingerprint: str) -> str:
    """Writes the file, and returns its SHA-256: the name that it is kept under has to hold it."""
    notes = {"format": FORMAT, "fingerprint": fingerprint, "step": str(snapshot.step), "notes": snapshot.notes}
    save_file(snapshot.tensors, path, metadata=notes)
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read(body: bytes, sha256: str, fingerprint: str) -> Snapshot:
    """The snapshot in a file. Raises Unreadable unless it is, byte by byte, what was written for this training."""
    if hashlib.sha256(body).hexdigest() != sha256:
        raise Unreadable("its bytes are not those that were written")
    try:
        # As the format has it: the header's length, and the header in JSON. The library reads it from files only.
        header = json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])
        notes = header["__metadata__"]
        if notes["format"] != FORMAT:
            raise Unreadable(f"its format is not {FORMAT}")
        if notes["fingerprint"] != fingerprint:
            raise Unreadable("it is of another training: base model, settings or data differ")
        return Snapshot(int(notes["step"]), load(body), notes["notes"])
    except (SafetensorError, ValueError, LookupError, TypeError) as error:
        raise Unreadable("it is no checkpoint") from error


def _live(model: Any, optimizer: Any) -> Iterator[tuple[str, Tensor]]:
    """What is trained and what AdamW knows of it, under the names in the file."""
    for name, parameter in _trained(model):
        yield f"weights/{name}", parameter
        for key in _MOMENTS:
            yield f"optimizer/{key}/{name}", optimizer.state[parameter][key]


def _expected(model: Any) -> Iterator[tuple[str, Tensor]]:
    """What a file has to hold for this model: names, and tensors of the shapes."""
    for name, parameter in _trained(model):
        yield f"weights/{name}", parameter
        for key in _MOMENTS:
            yield f"optimizer/{key}/{name}", torch.zeros(()) if key == "step" else parameter


def _trained(model: Any) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """In the order in which the optimizer counts them."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def _found(snapshot: Snapshot, name: str, like: Tensor) -> Tensor:
    tensor = snapshot.tensors.get(name)
    if tensor is None or (tensor.shape, tensor.dtype) != (like.shape, like.dtype):
        raise Unreadable(f"{name} is missing, or of another shape")
    return tensor
