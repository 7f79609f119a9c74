"""The table of threats in docs/security.md names tests that there are."""

from __future__ import annotations

import ast
import functools
import re
from collections import defaultdict
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
SECTION = (TESTS.parent / "docs" / "security.md").read_text("utf-8").partition("## Threats")[2].partition("\n## ")[0]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in SECTION.splitlines()
    if line.startswith("| ") and not line.startswith(("| ---", "| boundary"))
]
NAMED = sorted({name for row in ROWS for name in re.findall("`([^`]+)`", row[4])})
BOUNDARIES = {
    "drops bucket", "topics of requests and commands", "functions", "API and page", "Firestore", "trainer job",
    "models bucket", "artifacts bucket", "logs and terminals", "build and supply chain", "a folder on a laptop",
}  # fmt: skip


@functools.cache
def functions(file: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.FunctionDef)}


def exists(name: str) -> bool:
    file, found, function = name.partition("::")
    path = TESTS / file
    return bool(found) and path.is_file() and function.startswith("test_") and function in functions(path)


@pytest.mark.parametrize("name", NAMED)
def test_a_test_that_is_named_there_is(name: str) -> None:
    assert exists(name)


def test_each_row_has_a_threat_a_control_and_a_test() -> None:
    assert len(ROWS) > 40
    for row in ROWS:
        assert len(row) == 6, row
        assert row[0] in BOUNDARIES
        assert all(row[:4]), row
        assert re.fullmatch("`[^`]+`(, `[^`]+`)*", row[4]), row


def test_no_boundary_lacks_a_letter_of_stride() -> None:
    letters: dict[str, set[str]] = defaultdict(set)
    for row in ROWS:
        letters[row[0]] |= set(row[1].split(", "))
    assert letters.keys() == BOUNDARIES
    assert letters.pop("a folder on a laptop") <= set("STRIDE")  # its owner's; no service stands behind it
    letters["logs and terminals"] |= set("DE")  # Cloud Logging's own
    assert {boundary: set("STRIDE") - found for boundary, found in letters.items() if found != set("STRIDE")} == {}


def test_a_test_that_is_gone_would_be_missed() -> None:
    assert exists("unit/test_threats_table.py::test_no_boundary_lacks_a_letter_of_stride")
    for name in ("unit/test_gone.py::test_x", "unit/test_threats_table.py::test_gone", "unit/test_threats_table.py"):
        assert not exists(name)


def test_no_attack_of_these_files_is_left_out_of_the_table() -> None:
    """Files, not each test: a file that nobody names has lost its row."""
    files = {path.relative_to(TESTS).as_posix() for path in TESTS.rglob("test_threats*.py")}
    assert files - {"unit/test_threats_table.py"} <= {name.partition("::")[0] for name in NAMED}
