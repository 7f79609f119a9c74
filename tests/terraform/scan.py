"""checkov over plans, in an environment of its own: it pins what others need otherwise."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tests.terraform.sources import ROOT

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "checkov.txt"
POLICIES = HERE / "policies"


class Finding(NamedTuple):
    """A rule, and the resource that breaks it."""

    rule: str
    resource: str


def program() -> Path:
    """checkov; installed into `.local/` when it is not there."""
    folder = ROOT / ".local" / "checkov-venv"
    found = folder / "bin" / "checkov"
    stamp = folder / "installed.txt"
    wanted = REQUIREMENTS.read_text("utf-8")
    if not stamp.exists() or stamp.read_text("utf-8") != wanted:
        venv.create(folder, clear=True)
        uv = Path(sys.executable).with_name("uv")
        into = ["--python", str(folder / "bin" / "python")]
        install = [str(uv), "pip", "install", *into, "--quiet", "--require-hashes", "-r", str(REQUIREMENTS)]
        subprocess.run(install, check=True, timeout=280)
        stamp.write_text(wanted, "utf-8")
    return found


def as_plan(resources: Iterable[dict[str, Any]]) -> str:
    """What `terraform show -json` says of a plan, as far as checkov reads it."""
    planned = [
        {
            "address": resource["address"],
            "mode": "managed",
            "type": resource["type"],
            "name": resource["address"].rsplit(".", 1)[-1],
            "provider_name": "registry.terraform.io/hashicorp/google",
            "schema_version": 0,
            "values": resource["values"],
        }
        for resource in resources
    ]
    return json.dumps(
        {
            "format_version": "1.2",
            "terraform_version": "1.11.4",
            "planned_values": {"root_module": {"resources": planned}},
            "resource_changes": [],
            "configuration": {"root_module": {}},
        }
    )


def scan(folder: Path) -> dict[str, tuple[set[Finding], int]]:
    """Of each plan in a folder: what breaks a rule, and how many rules were kept."""
    done = subprocess.run(
        [
            program(), "--directory", folder, "--framework", "terraform_plan", "--external-checks-dir", POLICIES,
            "--output", "json", "--compact", "--skip-download", "--skip-results-upload",
        ],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )  # fmt: skip
    try:
        report = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise RuntimeError(done.stdout + done.stderr) from None
    found: dict[str, tuple[set[Finding], int]] = {}
    for kind, step in (("failed_checks", 0), ("passed_checks", 1)):
        for check in report["results"][kind]:
            broken, kept = found.get(Path(check["file_path"]).name, (set(), 0))
            if not step:
                broken.add(Finding(check["check_id"], check["resource"]))
            found[Path(check["file_path"]).name] = (broken, kept + step)
    return found
