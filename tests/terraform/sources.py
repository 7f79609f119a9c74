"""Where the Terraform files are, and what they name."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TERRAFORM = ROOT / "terraform"


def files(folder: Path) -> list[Path]:
    """All files of a configuration, those that Terraform itself puts there left out."""
    return [path for path in sorted(folder.rglob("*.tf")) if ".terraform" not in path.parts]


def used_types(folder: Path) -> tuple[set[str], set[str]]:
    """Types of the Google provider: resources, and data sources."""
    text = "\n".join(path.read_text("utf-8") for path in files(folder))
    return tuple(set(re.findall(rf'^{kind} "(google_\w+)"', text, re.M)) for kind in ("resource", "data"))  # type: ignore[return-value]
