"""The real Terraform, without a registry, a network or an account."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.terraform.bindings import SCHEMA
from tests.terraform.provider import serving

MISSING = (
    "terraform is missing (1.11 or newer): apt-get install -y terraform   "
    "# from HashiCorp's apt repository; or: https://developer.hashicorp.com/terraform/install"
)


@dataclass(frozen=True)
class Terraform:
    """Calls the program on one folder."""

    program: str
    environment: dict[str, str]

    def __call__(self, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What it says; its exit status is for the caller to look at."""
        return subprocess.run(
            [self.program, f"-chdir={folder}", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def copy(self, source: Path, into: Path) -> Path:
        """A copy of the configuration, with what it reads beside it, ready to be validated and tested."""
        left_out = shutil.ignore_patterns(".terraform*", "*.tfstate*", "*.tfvars")
        copied = shutil.copytree(source, into / source.name, ignore=left_out)
        schemas = into / "schemas"
        schemas.mkdir()
        shutil.copy(source.parent / "schemas" / "topology.yaml", schemas)
        done = self(copied, "init", "-backend=false", "-input=false", "-no-color")
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        return copied

    def plans(self, folder: Path, *files: str) -> tuple[dict[str, dict[str, Any]], str]:
        """The plan of each run of the tests, by the run's name, and what was said."""
        chosen = [f"-filter=tests/{file}" for file in files]
        said = self(folder, "test", "-json", "-verbose", *chosen)
        plans = {}
        for line in said.stdout.splitlines():
            message = json.loads(line)
            if message["type"] in {"test_plan", "test_state"}:
                plans[message["@testrun"]] = message[message["type"]]
        return plans, said.stdout + said.stderr


@contextmanager
def terraform() -> Iterator[Terraform]:
    """The program, with a provider that has the Google provider's schema. Raises FileNotFoundError."""
    program = shutil.which("terraform")
    if program is None:
        raise FileNotFoundError(MISSING)
    with serving(SCHEMA) as provider:
        # Nothing of the machine's own settings, and nothing by which it could reach an account.
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        yield Terraform(program, kept | provider | {"CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"})
