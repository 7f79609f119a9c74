"""`python -m functions.build [FILE]`: the archive that is deployed, the same for every function.

Functions, `adaptml/` and `schemas/`, the pinned requirements, and a `main.py` at the root, where the Functions
buildpack looks for it. What is in C is compiled here, for any Linux x86-64 and Python from 3.11 on; without a compiler
functions do the same in Python. Reproducible: the same sources, and the same compiler, give the same bytes, so that
nothing is deployed for nothing.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("schemas", "adaptml", "functions")
SUFFIXES = {".py", ".yaml"}
LEFT_OUT = {
    "functions/build.py",
    *(f"adaptml/{name}.py" for name in ("cli", "folder", "playground", "rebuild", "show", "watch")),
}
"""Not for a function: this program, and the command with its views in a terminal."""
COMMANDS = "adaptml/commands/"
"""Nor are its parts."""

MAIN = '''"""Entry points for the Functions buildpack; they live in functions/main.py."""

from functions.main import api, commands, dispatch, intake, reconcile, requests, undelivered

__all__ = ["api", "commands", "dispatch", "intake", "reconcile", "requests", "undelivered"]
'''
COMPILED = "adaptml/dataset/_certify.abi3.so"
_COMPILING_S = 120
_EPOCH = (1980, 1, 1, 0, 0, 0)


def files() -> dict[str, bytes]:
    """Name in the archive → content."""
    found = {
        path.relative_to(ROOT).as_posix(): path.read_bytes()
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*"))
        if path.is_file() and path.suffix in SUFFIXES
    }
    kept = {name: content for name, content in found.items() if name not in LEFT_OUT and not name.startswith(COMMANDS)}
    requirements = (ROOT / "functions" / "requirements.txt").read_bytes()
    binary = compiled()
    return kept | {"main.py": MAIN.encode(), "requirements.txt": requirements} | ({COMPILED: binary} if binary else {})


def compiled() -> bytes | None:
    """The part that is in C; None where it cannot be compiled for the functions' machines.

    Raises CalledProcessError where a compiler refuses it.
    """
    headers = Path(sysconfig.get_path("include"))
    compiler = shutil.which("cc")
    if compiler is None or not (headers / "Python.h").exists() or platform.system() != "Linux":
        return None
    if platform.machine() != "x86_64":
        return None
    source = (ROOT / COMPILED).with_name("_certify.c")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "compiled.so"
        command = [compiler, "-O3", "-shared", "-fPIC", f"-I{headers}", str(source), "-o", str(target)]
        subprocess.run(command, check=True, timeout=_COMPILING_S)
        return target.read_bytes()


def build(target: Path) -> None:
    """Writes the archive."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(files().items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m functions.build", description="Builds the functions' archive.")
    parser.add_argument("file", nargs="?", type=Path, default=ROOT / "build" / "functions.zip")
    target = parser.parse_args(arguments).file
    build(target)
    with zipfile.ZipFile(target) as archive:
        names = archive.namelist()
    print(f"{target}: {target.stat().st_size / 1000:.0f} kB, {len(names)} files")
    if COMPILED not in names:
        print("without what is in C, so that large files are checked slower: apt-get install -y gcc python3-dev")
    return 0


if __name__ == "__main__":
    sys.exit(main())
