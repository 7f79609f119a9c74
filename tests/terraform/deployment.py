"""terraform/ as Terraform itself understands it: validated, tested, and planned for a project that does not exist."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.terraform.program import terraform
from tests.terraform.sources import TERRAFORM

PROJECT = "adaptml-test"
DEFAULTS, EVERYTHING, PUBLISHING = "defaults", "everything_that_can_be_chosen", "a_tenant_that_publishes"
FACES, PEOPLE = "a_page_and_a_playground", "a_page_for_people"
"""Runs of terraform/tests/deployment.tftest.hcl."""


@dataclass(frozen=True)
class Resource:
    """One resource of a plan. Values that only Google knows are left out."""

    type: str
    address: str
    key: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Deployment:
    """What came of checking the whole configuration once."""

    validation: str
    said: str
    plans: dict[str, dict[str, Any]]

    def resources(self, *types: str, run: str = DEFAULTS) -> Iterator[Resource]:
        """Of these types, or all."""
        for change in self.plans[run]["resource_changes"]:
            after = change["change"]["after"]
            if after is not None and (not types or change["type"] in types):
                yield Resource(change["type"], change["address"], str(change.get("index", "")), after)

    def output(self, name: str, run: str = DEFAULTS) -> Any:
        """An output's value."""
        return self.plans[run]["output_changes"][name]["after"]


@functools.cache
def deployment() -> Deployment:
    """Checked once a process. Raises FileNotFoundError with a line that says how to install what is missing."""
    with terraform() as program, tempfile.TemporaryDirectory() as folder:
        copy = program.copy(TERRAFORM, Path(folder))
        validated = program(copy, "validate", "-no-color")
        plans, said = program.plans(copy)
        return Deployment(validated.stdout + validated.stderr, said, plans)
