"""Where things lie in the buckets, and the names that follow from that. Written down once, here."""

from __future__ import annotations

import enum
import hashlib
import re
from dataclasses import dataclass

from schemas.text import printable

MANIFEST_NAMES = ("manifest.yaml", "manifest.yml", "manifest.json")
STATUS = "STATUS.json"
REJECTED = "REJECTED.md"
REPORT = "validation-report.json"
PREVIEW = "preview.jsonl"
ALIASES = "ALIASES.json"
"""Beside a drop: what became of PROMOTE or ROLLBACK. In the artifacts bucket: where an adapter's aliases point."""
OUR_FILES = frozenset({STATUS, REJECTED, REPORT, PREVIEW, ALIASES})
"""What AdaptML writes beside a drop; these objects fire events too and must never start anything."""

CANCEL, RESUME = "CANCEL", "RESUME"
"""Files that a user puts beside a drop to end its runs, or to take the last one up again. Their content is not read."""

PROMOTE, ROLLBACK = "PROMOTE", "ROLLBACK"
"""Files that move an alias of the drop's adapter. They may name it, and PROMOTE a version: `prod v3`."""

COMMITTING = f"**/{{{','.join((*MANIFEST_NAMES, CANCEL, RESUME, PROMOTE, ROLLBACK))}}}"
"""A glob, as Cloud Storage's listing knows it, for the files that ask for something by themselves."""

DEFAULTS = "_defaults.yaml"
"""A tenant's own defaults, in the tenant's folder; in no drop's folder, so that its event starts nothing."""
FILES = "_files"
"""A tenant's folder for files that came by the API. No drop's: nothing in it is named like a manifest or a command, as
each file lies in a folder of its own."""
RESERVED = frozenset({*MANIFEST_NAMES, *OUR_FILES, DEFAULTS, CANCEL, RESUME, PROMOTE, ROLLBACK})
"""What a data file cannot be called."""

_PARALLEL_PARTS = "gcloud/tmp/parallel_composite_uploads/"
"""Where `gcloud storage cp` puts the parts of a large upload before it composes them."""


class ObjectRole(enum.Enum):
    """What an object of the drops bucket is to intake."""

    MANIFEST = "manifest"
    DATA = "data"
    CANCEL = "cancel"
    RESUME = "resume"
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    IGNORED = "ignored"


COMMANDS = {
    CANCEL: ObjectRole.CANCEL,
    RESUME: ObjectRole.RESUME,
    PROMOTE: ObjectRole.PROMOTE,
    ROLLBACK: ObjectRole.ROLLBACK,
}


@dataclass(frozen=True)
class DropPath:
    """An object of the drops bucket: gs://{bucket}/{tenant}/{folder}/{file}."""

    bucket: str
    tenant: str
    folder: str
    file: str

    @classmethod
    def parse(cls, bucket: str, name: str) -> DropPath | None:
        """None for an object that lies in no drop's folder."""
        parts = name.split("/", 2)
        if len(parts) < 3 or not all(parts) or name.startswith(_PARALLEL_PARTS):
            return None
        if {".", ".."} & {
            *parts[:2]
        }:  # names of objects, and no folders; what copies them to a disk may think otherwise
            return None
        return cls(bucket, *parts)

    @property
    def role(self) -> ObjectRole:
        """Manifest, data, or something that starts nothing."""
        if self.file in MANIFEST_NAMES:
            return ObjectRole.MANIFEST
        if self.file in COMMANDS:
            return COMMANDS[self.file]
        if self.file in OUR_FILES or self.file.endswith("/"):
            return ObjectRole.IGNORED
        return ObjectRole.DATA

    @property
    def prefix(self) -> str:
        """The drop's folder as an object prefix, with the closing slash."""
        return f"{self.tenant}/{self.folder}/"


def drop_prefix(tenant: str, folder: str) -> str:
    """The drop's folder as an object prefix, with the closing slash."""
    return f"{tenant}/{folder}/"


def defaults_object(tenant: str) -> str:
    """Where a tenant's defaults lie in the drops bucket."""
    return f"{tenant}/{DEFAULTS}"


def file_object(tenant: str, file_id: str, name: str = "") -> str:
    """Where a file of the API lies in the drops bucket; without a name the prefix of its folder."""
    return f"{tenant}/{FILES}/{file_id}/{name}"


def file_id(at_ms: int, random: str) -> str:
    """Of a file that comes at this moment. A later one is before an earlier one in a listing, which is by name."""
    return f"file-{2**44 - at_ms:011x}{random}"


def is_file_id(text: str) -> bool:
    """True for what `file_id` may have made of 12 random hexadecimal digits."""
    return re.fullmatch(r"file-[0-9a-f]{23}", text) is not None


def parse_file(name: str) -> tuple[str, str, str] | None:
    """(tenant, id, name) of such an object."""
    match = re.fullmatch(rf"([^/]+)/{FILES}/(file-[0-9a-f]{{23}})/([^/]+)", name)
    return (match[1], match[2], match[3]) if match else None


def run_id(tenant: str, label: str, *identity: str) -> str:
    """A readable name that the same cause always gets: `acme-support-bot-` and 10 characters of hash.

    The identity of a drop is bucket, manifest object and generation; that of a request its request_id. The label
    (folder or request_id) is there for people only.
    """
    digest = hashlib.sha256("\0".join((tenant, *identity)).encode()).hexdigest()
    return f"{slug(f'{tenant}-{label}', 80)}-{digest[:10]}"


def run_id_of_request(tenant: str, request_id: str) -> str:
    """The run that a request asks for."""
    return run_id(tenant, request_id, "request", request_id)


def is_run_id(text: str) -> bool:
    """True for what `run_id` may have made."""
    return re.fullmatch(r"[a-z0-9][a-z0-9-]{0,100}", text) is not None


def slug(text: str, limit: int = 48) -> str:
    """A text as lower-case letters, digits and single hyphens; `run` when nothing is left."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:limit].rstrip("-") or "run"


def version_prefix(tenant: str, name: str, version: int) -> str:
    """Where version N of an adapter lies in the artifacts bucket, with the closing slash."""
    return f"{tenant}/{name}/v{version}/"


def aliases_object(tenant: str, name: str) -> str:
    """Where it stands in the artifacts bucket what an adapter's aliases point at."""
    return f"{tenant}/{name}/{ALIASES}"


def parse_aliases(name: str) -> tuple[str, str] | None:
    """(tenant, adapter) of such an object."""
    match = re.fullmatch(rf"([^/]+)/([^/]+)/{re.escape(ALIASES)}", name)
    return (match[1], match[2]) if match else None


def staged_by(tenant: str, name: str, run: str) -> str:
    """Where all executions of a run upload, with the closing slash."""
    return f"{tenant}/{name}/.staging/{run}/"


def staging_prefix(tenant: str, name: str, run: str, epoch: int, task_attempt: int) -> str:
    """Where one task of one execution uploads before its version has a number, with the closing slash. Cloud Run may
    begin a task anew: what the first one left must not be taken for the second one's."""
    return f"{staged_by(tenant, name, run)}e{epoch}t{task_attempt}/"


def checkpoint_prefix(tenant: str, name: str, run: str) -> str:
    """Where the checkpoints of one run lie in the artifacts bucket, with the closing slash."""
    return f"{tenant}/{name}/.checkpoints/{run}/"


def parse_version(name: str) -> tuple[str, str, int, str] | None:
    """(tenant, adapter, version, file) of an object that lies in a version's folder."""
    match = re.fullmatch(r"([^/]+)/([^/]+)/v([1-9][0-9]{0,8})/(.+)", name)
    return (match[1], match[2], int(match[3]), match[4]) if match else None


def parse_staged(name: str) -> tuple[str, int, int, str] | None:
    """(run, epoch, task attempt, file) of an object that an execution uploaded."""
    match = re.fullmatch(r"[^/]+/[^/]+/\.staging/([^/]+)/e([0-9]{1,9})t([0-9]{1,9})/(.+)", name)
    return (match[1], int(match[2]), int(match[3]), match[4]) if match else None


AUDIT, DEAD_LETTERS = "_audit/", "_dead-letters/"
"""Prefixes of the artifacts bucket that are nobody's: a tenant's name begins with a letter or a digit."""


def audit_object(tenant: str, run: str, revision: int) -> str:
    """Where one change of state of a run lies in the artifacts bucket, with the run as it was then."""
    return f"{AUDIT}{tenant}/{run}/{revision:06d}.json"


def dead_letter_object(topic: str, message_id: str) -> str:
    """Where a message that could not be delivered lies in the artifacts bucket, whole."""
    return f"{DEAD_LETTERS}{topic}/{message_id}.json"


def uri(bucket: str, name: str) -> str:
    """gs://bucket/name."""
    return f"gs://{bucket}/{name}"


def parse_uri(text: str) -> tuple[str, str]:
    """(bucket, name) of a gs:// URI. Raises ValueError."""
    match = re.fullmatch(r"gs://([a-z0-9][a-z0-9._-]{1,220})/(.+)", text)
    if not match:
        raise ValueError(f"not a gs:// URI: {printable(text)}")
    return match[1], match[2]
