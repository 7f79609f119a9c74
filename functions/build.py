"""`python -m functions.build [FILE]`: the archive that is deployed, the same for every function.

Functions, `adaptml/` and `schemas/`, the pinned requirements, and a `main.py` at the root, where the Functions
buildpack looks for it. Reproducible: the same sources give the same bytes, so that nothing is deployed for nothing.
"""

from __future__ import annotations

import argparse
import sys
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
    return kept | {"main.py": MAIN.encode(), "requirements.txt": requirements}


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
    print(f"{target}: {target.stat().st_size / 1000:.0f} kB, {len(files())} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
