"""Whoever is woken by an alert finds what to do in docs/operations.md."""

from __future__ import annotations

import re

import pytest

from adaptml.settings import Settings
from docs.generate import ROOT
from schemas.errors import CODES
from schemas.topology import TOPOLOGY
from tests.terraform.alerts import OPERATIONS, alerts, anchor
from tests.terraform.deployment import deployment

TEXT = OPERATIONS.read_text("utf-8")
HEADINGS = re.findall(r"^#+ (.+)$", TEXT, re.M)


def test_each_alert_has_an_entry_and_each_entry_an_alert() -> None:
    section = TEXT.partition("## When an alert wakes you")[2].partition("\n## ")[0]
    assert re.findall(r"^### (.+)$", section, re.M) == [one.name for one in alerts()]


def test_each_entry_says_what_to_do_step_by_step_or_code_by_code() -> None:
    for one in alerts():
        entry = TEXT.partition(f"### {one.name}\n")[2].partition("\n##")[0]
        assert re.search(r"^1\. |^\| code ", entry, re.M), one.name


def test_an_alert_names_its_entry() -> None:
    for resource in deployment().resources("google_monitoring_alert_policy"):
        content = resource.values["documentation"][0]["content"]
        assert re.search(r'docs/operations\.md, "(.+)", says more', content)[1] in HEADINGS  # type: ignore[index]


def test_links_within_the_page_lead_somewhere() -> None:
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= {anchor(heading) for heading in HEADINGS}


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([\w./-]+\.\w+)(?:#[^)]*)?\)", TEXT))))
def test_links_to_other_files_lead_somewhere(target: str) -> None:
    assert (ROOT / "docs" / target).is_file()


def test_codes_of_failed_runs_are_codes() -> None:
    entry = TEXT.partition("### A run FAILED\n")[2].partition("\n##")[0]
    rows = re.findall(r"^\| (`.+?) \|", entry, re.M)
    named = {code for row in rows for code in re.findall(r"`(\w+)(?:_…)?`", row)}
    assert {code for code in named if code not in CODES and not any(c.startswith(code) for c in CODES)} == set()


def test_what_is_kept_for_how_long_is_what_the_code_keeps() -> None:
    days = Settings.model_fields["checkpoints_kept_s"].default // 86_400
    assert f"**Checkpoints are kept for {days} days**" in TEXT


def test_what_functions_take_at_most_is_what_terraform_lets_them() -> None:
    text = (ROOT / "terraform" / "functions.tf").read_text("utf-8")
    sizes = re.findall(r'cpu = (\d+), memory = "(\d+)(Gi|Mi)", instances = (\d+)', text)
    vcpu = sum(int(cpu) * int(instances) for cpu, _, _, instances in sizes)
    gib = sum(int(size) * int(instances) / (1024 if unit == "Mi" else 1) for _, size, unit, instances in sizes)
    assert len(sizes) == len(TOPOLOGY.functions)
    assert f"functions {vcpu} vCPU and {gib:g} GiB" in TEXT
