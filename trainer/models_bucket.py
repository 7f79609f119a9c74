"""Prepared base models in the models bucket: laid there when a deployment is set up, read when a job starts."""

from __future__ import annotations

import base64
import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

import google_crc32c

from adaptml.objects import ObjectGone, ObjectStore, PinnedObject
from adaptml.publishing import CHECKSUMS
from schemas.catalogue import CATALOGUE, BaseModelRow
from schemas.errors import Refused, problem
from schemas.manifest import Manifest
from trainer import prepared
from trainer.attempt import Attempt
from trainer.prepared import MODELS_DIR, ORIGIN, STAMP, Variant

log = logging.getLogger(__name__)

_PARALLEL = 8
_LOOK_EVERY_S = 5.0


class Damaged(Exception):  # noqa: N818 - says what is the matter
    """Raised where the bucket's files are not those that its SHA256SUMS names, also while they are being replaced."""


def is_published(objects: ObjectStore, bucket: str, row: BaseModelRow) -> bool:
    """Whether the bucket holds the model whole, at the row's revision, and in NF4 that can be read here."""
    if objects.pin(bucket, _name(row, CHECKSUMS)) is None:
        return False
    return prepared.is_current(_text(objects, bucket, row, ORIGIN), _text(objects, bucket, row, STAMP), row)


def publish(objects: ObjectStore, bucket: str, row: BaseModelRow, folder: Path) -> int:
    """Uploads a prepared folder and returns how many files it took.

    What is there already is not uploaded again. Other files of the model are deleted: a tokenizer must not be made of
    what two revisions left. SHA256SUMS goes first where something changes, and comes last.
    """
    sums = prepared.listed(folder)
    if sums is None:
        raise ValueError(f"{folder.name} is not prepared")
    there = {item.name: item for item in objects.list(bucket, _name(row, ""))}
    names = [*sums, CHECKSUMS]
    changed = [name for name in names if not _is_same(there.get(_name(row, name)), folder / name)]
    left = there.keys() - {_name(row, name) for name in names}
    if changed or left:
        objects.delete(bucket, _name(row, CHECKSUMS))
    with ThreadPoolExecutor(_PARALLEL) as threads:
        for _ in threads.map(
            lambda name: objects.replace(bucket, _name(row, name), folder / name), set(changed) - {CHECKSUMS}
        ):
            pass
    for name in left:
        objects.delete(bucket, name)
    if changed or left:
        objects.replace(bucket, _name(row, CHECKSUMS), folder / CHECKSUMS)
    return len(changed)


def bring(attempt: Attempt) -> None:
    """Sees to it that the run's base model lies where the trainer looks: downloads it where the models folder has none.

    Raises Refused where it is nowhere, Damaged, and what `attempt.alive` raises.
    """
    manifest, services = attempt.manifest, attempt.services
    row = CATALOGUE[manifest.base_model]
    bucket = services.settings.models_bucket
    if bucket is None or has_what_it_needs(prepared.models_dir() / row.folder, manifest):
        return
    into = Path(tempfile.mkdtemp(prefix="adaptml-models-"))
    fetch(services.objects, bucket, row, manifest, into, attempt.alive)
    os.environ[MODELS_DIR] = str(into)


def variants(manifest: Manifest, why_not: str | None) -> list[Variant]:
    """What a run reads: NF4 to train on where it can be read (`why_not` is None); bf16 otherwise, and for exports,
    which never start from NF4. Pure."""
    wanted: list[Variant] = ["nf4"] if manifest.method == "qlora" and why_not is None else ["bf16"]
    return [*wanted, "bf16"] if "bf16" not in wanted and set(manifest.export) - {"adapter"} else wanted


def has_what_it_needs(folder: Path, manifest: Manifest) -> bool:
    """Whether a folder of the machine holds what the run reads."""
    weights = prepared.choose(folder, quantise=manifest.method == "qlora")
    if weights is None:
        return False
    return all(prepared.has(folder, variant) for variant in variants(manifest, weights.why_not))


def fetch(
    objects: ObjectStore,
    bucket: str,
    row: BaseModelRow,
    manifest: Manifest,
    into: Path,
    alive: Callable[[], None],
) -> None:
    """Downloads what the run reads of its base model into a models folder, and checks each file.

    Raises Refused where the bucket does not hold the model whole, Damaged, and what `alive` raises.
    """
    there = {item.name: item for item in objects.list(bucket, _name(row, ""))}
    sums = _checksums(objects, there.get(_name(row, CHECKSUMS)))
    if sums is None:
        raise Refused([problem("base_model_unavailable", model=row.id)])
    stamp = there.get(_name(row, STAMP)) if STAMP in sums else None
    why_not = prepared.unreadable(_read(objects, stamp))
    names = prepared.needed(sums, *variants(manifest, why_not))
    pinned = {name: there.get(_name(row, name)) for name in names}
    _download(objects, pinned, sums, into / row.folder, alive)
    (into / row.folder / CHECKSUMS).write_text("".join(f"{sums[name]}  {name}\n" for name in names), "utf-8")
    size = sum(item.size for item in pinned.values() if item is not None)
    log.info("%s: %d files of %.2f GB from the models bucket", row.id, len(names), size / 1e9)


def _download(
    objects: ObjectStore,
    pinned: Mapping[str, PinnedObject | None],
    sums: Mapping[str, str],
    folder: Path,
    alive: Callable[[], None],
) -> None:
    def one(name: str) -> None:
        path, item = folder / name, pinned[name]
        if item is None:
            raise Damaged(f"{name} is missing in the models bucket")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            objects.download(item, path)
        except ObjectGone as error:
            raise Damaged(f"{name} was replaced in the models bucket") from error
        if prepared.sha256(path) != sums[name]:
            raise Damaged(f"{name} of the models bucket is not what {CHECKSUMS} says")

    largest_first: Sequence[str] = sorted(pinned, key=lambda name: -(item.size if (item := pinned[name]) else 0))
    with ThreadPoolExecutor(_PARALLEL) as threads:
        waiting = {threads.submit(one, name) for name in largest_first}
        try:
            while waiting:
                done, waiting = wait(waiting, _LOOK_EVERY_S, FIRST_COMPLETED)
                for future in done:
                    future.result()
                alive()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _checksums(objects: ObjectStore, item: PinnedObject | None) -> dict[str, str] | None:
    text = _read(objects, item)
    try:
        return None if text is None else prepared.parse(text)
    except ValueError as error:
        raise Damaged(str(error)) from error


def _text(objects: ObjectStore, bucket: str, row: BaseModelRow, name: str) -> str | None:
    return _read(objects, objects.pin(bucket, _name(row, name)))


def _read(objects: ObjectStore, item: PinnedObject | None) -> str | None:
    try:
        return None if item is None else objects.read(item.bucket, item.name, item.generation).decode()
    except ObjectGone:
        return None


def _is_same(item: PinnedObject | None, path: Path) -> bool:
    if item is None or item.size != path.stat().st_size:
        return False
    checksum = google_crc32c.Checksum()
    with path.open("rb") as file:
        for _ in checksum.consume(file, 1 << 20):
            pass
    return item.crc32c == base64.b64encode(checksum.digest()).decode()


def _name(row: BaseModelRow, file: str) -> str:
    return f"{row.folder}/{file}"
