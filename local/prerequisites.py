"""What must be on the machine, where it is, and what to do when it is not."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

from local.paths import ROOT

PUBSUB_JAR = "platform/pubsub-emulator/lib/cloud-pubsub-emulator-*-all.jar"
FIRESTORE_JAR = "platform/cloud-firestore-emulator/cloud-firestore-emulator.jar"


class Missing(Exception):  # noqa: N818 - says what is the matter
    """Raised with one line that names what is missing and the command that installs it."""


def java() -> str:
    """The java program. Raises Missing."""
    found = shutil.which("java")
    if found is None:
        raise Missing("java is missing: apt-get install -y openjdk-17-jre-headless   (or any Java 17 or newer)")
    return found


def pubsub_jar() -> Path:
    """Google's Pub/Sub emulator. Raises Missing."""
    return _component(PUBSUB_JAR, "pubsub-emulator", "google-cloud-cli-pubsub-emulator")


def firestore_jar() -> Path:
    """Google's Firestore emulator. Raises Missing."""
    return _component(FIRESTORE_JAR, "cloud-firestore-emulator", "google-cloud-cli-firestore-emulator")


def gsutil() -> str:
    """The gsutil program; where there is none, one from PyPI in an environment of its own."""
    found = shutil.which("gsutil")
    if found is not None:
        return found
    folder = ROOT / ".local" / "gsutil-venv"
    program = folder / "bin" / "gsutil"
    if not program.exists():
        print("gsutil is not on the PATH: installing it from PyPI into .local/gsutil-venv", file=sys.stderr)
        venv.create(folder, with_pip=True)
        subprocess.run([folder / "bin" / "pip", "install", "-q", "gsutil==5.38"], check=True, timeout=600)
    return str(program)


def chromium() -> str:
    """The browser that the dashboard is tested in. Raises Missing."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        raise Missing("chromium is missing: apt-get install -y chromium   (only the dashboard's tests need it)")
    return found


def check() -> None:
    """Raises Missing with one line for each thing that is missing."""
    lines = []
    for find in (java, pubsub_jar, firestore_jar):
        try:
            find()
        except Missing as missing:
            lines.append(str(missing))
    if lines:
        raise Missing("\n".join(lines))


def _component(pattern: str, component: str, package: str) -> Path:
    for root in _sdk_roots():
        if found := sorted(root.glob(pattern)):
            return found[-1]
    raise Missing(
        f"the {component} is missing: gcloud components install {component}   (or: apt-get install -y {package})"
    )


def _sdk_roots() -> list[Path]:
    roots = [Path("/usr/lib/google-cloud-sdk"), Path.home() / "google-cloud-sdk", Path("/opt/google-cloud-sdk")]
    program = shutil.which("gcloud")
    return [Path(program).resolve().parent.parent, *roots] if program else roots
