"""What the page says, as short text. Pure."""

from __future__ import annotations

from datetime import datetime

from schemas.adapter import Move
from schemas.manifest import Manifest
from schemas.run import DataFile, Run
from schemas.run_states import RunState

_TONES = {
    RunState.SUCCEEDED: "good",
    RunState.VALIDATED: "good",
    RunState.FAILED: "bad",
    RunState.REJECTED: "bad",
    RunState.EXPIRED: "bad",
    RunState.CANCELLED: "idle",
    RunState.QUEUED: "waiting",
    RunState.RECEIVED: "waiting",
    RunState.AWAITING_DATA: "waiting",
}


def tone(state: RunState) -> str:
    """How a state is coloured: good, bad, idle, waiting, or live."""
    return _TONES.get(state, "live")


def ago(then: datetime, now: datetime) -> str:
    """12 s ago, 5 min ago, 3 h ago, 4 days ago."""
    seconds = max(0, round((now - then).total_seconds()))
    for size, unit in ((86_400, "day"), (3600, "h"), (60, "min")):
        if seconds >= size:
            number = seconds // size
            return f"{number} {unit}{'s' if unit == 'day' and number > 1 else ''} ago"
    return f"{seconds} s ago"


def span(seconds: float | None) -> str:
    """45 s, 2 min 5 s, 1 h 3 min."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def money(amount: float) -> str:
    """$1.20, $0.0042."""
    return f"${amount:,.2f}" if amount >= 0.1 or amount == 0 else f"${amount:.4f}"


def size(size_bytes: int) -> str:
    """820 bytes, 14.7 kB, 3.2 MB, 1.5 GB."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size_bytes >= unit:
            return f"{size_bytes / unit:,.1f} {name}"
    return f"{size_bytes} bytes"


def at(moment: datetime, now: datetime) -> str:
    """14:03:10, or with its date where that is not today's; UTC."""
    return f"{moment:%H:%M:%S}" if moment.date() == now.date() else f"{moment:%Y-%m-%d %H:%M:%S}"


def training(manifest: Manifest) -> str:
    """What is trained, in a line."""
    settings = manifest.training
    length = f"{settings.max_steps:,} steps" if settings.max_steps else f"{settings.epochs:g} epochs"
    rank, limit = manifest.lora.r, settings.max_seq_length
    return f"{manifest.base_model}, {manifest.method}, rank {rank}, {length}, up to {limit:,} tokens"


def standing(run: Run) -> str:
    """How far the run is, in a line."""
    progress = run.progress
    if run.state is RunState.SUCCEEDED and run.artifacts is not None:
        return f"version {run.artifacts.version}"
    if run.error is not None:
        return run.error.code
    if progress.total_steps:
        loss = f", loss {progress.loss:.3f}" if progress.loss is not None else ""
        return f"step {progress.step:,} of {progress.total_steps:,}{loss}"
    return run.state_reason


def pinned(file: DataFile) -> str:
    """Which bytes a data file was."""
    return f"{file.role}: {file.name}, {size(file.size)}, generation {file.generation}, crc32c {file.crc32c}"


def moved(move: Move) -> str:
    """v1 → v2, or v2 where the alias is new."""
    return f"v{move.from_version} → v{move.to_version}" if move.from_version else f"v{move.to_version}"
