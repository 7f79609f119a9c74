"""Checkpoints of a run in the artifacts bucket: where they lie, when they are written, which one is gone on from."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import tempfile
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from google.cloud.storage.exceptions import DataCorruption

from adaptml.objects import ObjectGone
from schemas import layout
from schemas.catalogue import BaseModelRow
from schemas.errors import Refused, problem
from schemas.manifest import Manifest
from schemas.run import Checkpoint
from trainer import snapshot
from trainer.attempt import Attempt, describe
from trainer.packing import Tokens
from trainer.snapshot import Position, Snapshot, Unreadable

log = logging.getLogger(__name__)

RESERVE_S = 2.0
"""Of the time that is left to an attempt when it saves for the last time: to say so in the run's document."""
_NAME = re.compile(r"e(\d+)-s(\d+)-([0-9a-f]{64})\.safetensors")


@dataclass(frozen=True)
class Kept:
    """A checkpoint in the bucket."""

    object: str
    epoch: int
    """Dispatch number of the execution that wrote it: two executions never write one object."""
    step: int
    sha256: str
    saved_at: datetime

    @classmethod
    def parse(cls, name: str, saved_at: datetime) -> Kept | None:
        """None for an object that is no checkpoint."""
        match = _NAME.fullmatch(name.rpartition("/")[2])
        return cls(name, int(match[1]), int(match[2]), match[3], saved_at) if match else None


def file_name(epoch: int, step: int, sha256: str) -> str:
    """The last part of a checkpoint's name. It holds the checksum, so that no damage goes unnoticed."""
    return f"e{epoch:04d}-s{step:07d}-{sha256}.safetensors"


def fingerprint(manifest: Manifest, row: BaseModelRow, *parts: Sequence[Tokens]) -> str:
    """Of all that training follows from: base model, settings, and every token of the data.

    A checkpoint of anything else is not gone on from. Limits and labels of the manifest may change.
    """
    settings = manifest.model_dump(mode="json", include={"base_model", "method", "lora", "training"})
    digest = hashlib.sha256(json.dumps([snapshot.FORMAT, row.revision, settings], sort_keys=True).encode())
    for part in parts:
        digest.update(b"part")
        for example in part:
            digest.update(array("q", [len(example), *example.ids, *example.labels]))
    return digest.hexdigest()


class Checkpoints:
    """Of one attempt's run. An upload that fails is logged; training goes on without it."""

    def __init__(self, attempt: Attempt, of: str) -> None:
        self._attempt = attempt
        self._fingerprint = of
        self._objects = attempt.services.objects
        self._bucket = attempt.services.settings.artifacts_bucket
        run = attempt.run
        self._prefix = layout.checkpoint_prefix(run.tenant, run.name, run.run_id)
        self._every_s = attempt.services.settings.checkpoint_every_s
        self._next_at = time.monotonic() + self._every_s
        self._noting = threading.Lock()
        self._last: int | None = None
        """Step of the newest checkpoint that this attempt wrote, or goes on from."""
        self._uploading: threading.Thread | None = None
        self._uploading_step: int | None = None

    def go_on(self, model: Any, optimizer: Any, scheduler: Any) -> Position | None:
        """Puts the newest checkpoint that can be used in its place; None where training starts from the beginning.

        The bucket may hold newer ones than the run's document knows of: the attempt died before it told. Raises
        Refused for a run that was to take up another one, and cannot.
        """
        candidates = self._candidates()
        for kept in candidates:
            try:
                body = self._objects.read(self._bucket, kept.object)
                found = snapshot.read(body, kept.sha256, self._fingerprint)
                position = snapshot.restore(found, model, optimizer, scheduler)
            except ObjectGone:
                log.warning("the checkpoint of step %d was deleted", kept.step)
            except (Unreadable, DataCorruption) as error:
                why = error if isinstance(error, Unreadable) else "it was damaged on the way"
                log.warning("the checkpoint of step %d cannot be used: %s", kept.step, why)
            else:
                log.info("going on after step %d", kept.step)
                self._note(kept)
                return position
        run = self._attempt.run
        if run.checkpoint is not None and run.source.resumes is not None:
            raise Refused([problem("checkpoint_gone", run_id=run.source.resumes)])
        if candidates or run.checkpoint is not None:
            log.warning("no checkpoint can be used: training starts from the beginning")
        return None

    def save_if_due(self, take: Callable[[], Snapshot]) -> None:
        """Uploads the state in the background every `checkpoint_every_s` seconds, unless the last upload goes on."""
        if time.monotonic() < self._next_at or self._is_uploading:
            return
        self._next_at = time.monotonic() + self._every_s
        self._start(take())

    def save(self, state: Snapshot) -> None:
        """Uploads the state and waits until it, and what was on its way before, is there; not longer than the attempt
        has time."""
        earlier = self._uploading
        if self._last != state.step and not (self._is_uploading and self._uploading_step == state.step):
            self._start(state)
        for upload in (self._uploading, earlier):
            while upload is not None and upload.is_alive() and self._attempt.seconds_left > RESERVE_S:
                upload.join(0.1)
        if self._last != state.step:
            log.warning("leaving without a checkpoint of step %d", state.step)

    @property
    def _is_uploading(self) -> bool:
        return self._uploading is not None and self._uploading.is_alive()

    def _start(self, state: Snapshot) -> None:
        self._uploading_step = state.step
        # A daemon: an upload that hangs must not keep the process from ending.
        self._uploading = threading.Thread(target=self._upload, args=(state,), daemon=True, name="checkpoint")
        self._uploading.start()

    def _upload(self, state: Snapshot) -> None:
        began = time.monotonic()
        try:
            with tempfile.TemporaryDirectory(prefix="adaptml-") as folder:
                path = Path(folder) / "checkpoint.safetensors"
                sha256 = snapshot.write(state, path, self._fingerprint)
                epoch = self._attempt.run.epoch
                name = self._prefix + file_name(epoch, state.step, sha256)
                self._objects.upload_new(self._bucket, name, path)
                size = path.stat().st_size
            kept = Kept(name, epoch, state.step, sha256, self._attempt.services.now())
            log.info("step %d saved: %.1f MB in %.1f s", state.step, size / 1e6, time.monotonic() - began)
            self._delete_before(self._note(kept))
        except Exception as error:
            log.warning("the checkpoint of step %d was not saved: %s", state.step, describe(error))

    def _note(self, kept: Kept) -> int | None:
        """Makes the checkpoint the last one and returns the step of the one before, unless a newer one was quicker."""
        with self._noting:
            before = self._last
            if before is not None and before >= kept.step:
                return None
            self._last = kept.step
            self._attempt.saved(Checkpoint(step=kept.step, object=kept.object, saved_at=kept.saved_at))
            return before

    def _delete_before(self, step: int | None) -> None:
        """Deletes what is older than the last two. Other runs' checkpoints are theirs to delete."""
        if step is None:
            return
        for kept in self._listed(self._prefix):
            if kept.step < step:
                self._objects.delete(self._bucket, kept.object)

    def _candidates(self) -> list[Kept]:
        """This run's own and those beside the one that its document names, which may be another run's. Newest first."""
        found = {kept.object: kept for kept in self._listed(self._prefix)}
        known = self._attempt.run.checkpoint
        if known is not None and (named := Kept.parse(known.object, known.saved_at)) is not None:
            beside = self._listed(named.object.rpartition("/")[0] + "/")
            found |= {kept.object: kept for kept in (named, *beside)}
        return sorted(found.values(), key=lambda kept: (kept.step, kept.epoch), reverse=True)

    def _listed(self, prefix: str) -> list[Kept]:
        found = self._objects.list(self._bucket, prefix)
        return [kept for item in found if (kept := Kept.parse(item.name, item.created_at)) is not None]
