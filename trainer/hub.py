"""Base models from the Hugging Face hub: at their pinned revision, only what is needed, each file checked.

Used when a deployment is set up. At run time no hub is ever reached.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from adaptml.tokens.chat import REQUIRED
from schemas.catalogue import BaseModelRow
from schemas.errors import Refused, problem
from trainer.prepared import sha256

log = logging.getLogger(__name__)

_WANTED = re.compile(
    r"config\.json|generation_config\.json"
    r"|model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json"
    r"|tokenizer\.json|tokenizer_config\.json|tokenizer\.model|special_tokens_map\.json|added_tokens\.json"
    r"|vocab\.json|merges\.txt|chat_template\.(jinja|json)|processor_config\.json|preprocessor_config\.json"
    r"|(LICENSE|NOTICE|USE_POLICY)(\.md|\.txt)?"
)
"""Of a repository's top folder. No pickle, no code, and no second copy of the weights in another form."""
_PARALLEL = 4
_FOR_NF4 = 1.5
"""Room for a download and what is made of it, to the download: NF4 is 0.3 to 0.45 of bf16."""


@dataclass(frozen=True)
class HubFile:
    """One file, as the hub describes it."""

    name: str
    size: int
    sha256: str | None
    """Of files in LFS."""
    git_sha1: str | None
    """Of the others: git's name of the blob."""

    def is_in(self, path: Path) -> bool:
        """Whether a local file has this content."""
        if path.stat().st_size != self.size:
            return False
        return sha256(path) == self.sha256 if self.sha256 else _git_sha1(path) == self.git_sha1


class Hub:
    """The hub, as one account or nobody sees it. The token is in no message and no log."""

    def __init__(self, token: str | None, endpoint: str | None = None) -> None:
        self._token = token or False  # not one that lies somewhere on the machine
        self._has_token = token is not None
        self._endpoint = endpoint

    def files(self, row: BaseModelRow) -> list[HubFile]:
        """What of the model is wanted, at the row's revision. Raises Refused."""
        api = HfApi(endpoint=self._endpoint, token=self._token)
        with self._told(row):
            info = api.model_info(row.id, revision=row.revision, files_metadata=True, timeout=60)
        if info.sha != row.revision:
            raise Refused([problem("model_revision_missing", model=row.id, revision=row.revision or "")])
        return wanted([_described(sibling) for sibling in info.siblings or []], row)

    def download(self, row: BaseModelRow, into: Path) -> list[str]:
        """Brings the model's files into a folder, and returns their names. Raises Refused.

        Files that an earlier call brought whole are not asked for again; each is checked, whoever brought it.
        """
        files = self.files(row)
        into.mkdir(parents=True, exist_ok=True)
        for left in into.glob(".cache/**/*.incomplete"):  # of a process that was killed; the client begins such anew
            left.unlink()
        require_space(row, files, into)
        log.info("%s: %d files, %.2f GB", row.id, len(files), sum(file.size for file in files) / 1e9)
        with ThreadPoolExecutor(_PARALLEL) as threads:
            for _ in threads.map(lambda file: self._bring(row, file, into), files):
                pass
        return [file.name for file in files]

    def _bring(self, row: BaseModelRow, file: HubFile, into: Path) -> None:
        path = into / file.name
        with self._told(row):
            hf_hub_download(
                row.id,
                file.name,
                revision=row.revision,
                local_dir=into,
                token=self._token,
                endpoint=self._endpoint,
            )
        if not file.is_in(path):
            path.unlink()
            raise Refused([problem("model_file_differs", model=row.id, name=file.name)])
        log.info("%s: %s is here, its checksum is right", row.id, file.name)

    @contextmanager
    def _told(self, row: BaseModelRow) -> Iterator[None]:
        """What the client raises becomes a problem with a code. Its texts are left out: they hold signed addresses."""
        try:
            yield
        except RevisionNotFoundError as error:
            problems = [problem("model_revision_missing", model=row.id, revision=row.revision or "")]
            raise Refused(problems) from error
        except (GatedRepoError, RepositoryNotFoundError) as error:  # the hub calls what one may not see not found
            raise self._refused(row) from error
        except HfHubHTTPError as error:
            status = error.response.status_code
            if status in {401, 403}:
                raise self._refused(row) from error
            raise _unreachable(f"it answers {status}") from error
        except OfflineModeIsEnabled as error:
            raise _unreachable("HF_HUB_OFFLINE is set") from error
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise Refused([problem("models_disk_full", model=row.id, needed="more", free="nothing")]) from error
            raise _unreachable(f"the connection failed ({type(error).__name__})") from error
        except Refused:
            raise
        except Exception as error:  # of its HTTP client, whose name changes with its version
            raise _unreachable(f"the connection failed ({type(error).__name__})") from error

    def _refused(self, row: BaseModelRow) -> Refused:
        why = (
            "its account has not accepted the model's conditions, or the token is wrong"
            if self._has_token
            else "no token was given"
        )
        return Refused([problem("model_gated", model=row.id, why=why)])


def wanted(files: Sequence[HubFile], row: BaseModelRow) -> list[HubFile]:
    """Those that are downloaded, largest first. Raises Refused where the model cannot be made of them. Pure."""
    found = sorted((file for file in files if _WANTED.fullmatch(file.name)), key=lambda file: -file.size)
    names = {file.name for file in found}
    missing = [name for name in ("config.json", *REQUIRED) if name not in names]
    if not any(name.endswith(".safetensors") for name in names):
        missing.append("model.safetensors")
    missing += [file.name for file in found if not (file.sha256 or file.git_sha1)]
    if missing:
        raise Refused([problem("model_incomplete", model=row.id, name=missing[0])])
    return found


def require_space(row: BaseModelRow, files: Sequence[HubFile], folder: Path) -> None:
    """Raises Refused where the disk has no room for what is to be downloaded and what is made of it."""
    here = sum(path.stat().st_size for file in files if (path := folder / file.name).is_file())
    room, free = _FOR_NF4 * sum(file.size for file in files) - here, shutil.disk_usage(folder).free
    if room > free:
        raise Refused(
            [problem("models_disk_full", model=row.id, needed=f"{room / 1e9:.1f} GB", free=f"{free / 1e9:.1f} GB")]
        )


def _described(sibling: Any) -> HubFile:
    digest = sibling.lfs.sha256 if sibling.lfs else None
    return HubFile(sibling.rfilename, sibling.size or 0, digest, sibling.blob_id)


def _git_sha1(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _unreachable(why: str) -> Refused:
    return Refused([problem("hub_unreachable", why=why)])
