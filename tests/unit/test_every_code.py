from __future__ import annotations

import re
from pathlib import Path

import pytest

from schemas.errors import CODES

TESTS = "\n".join(
    path.read_text("utf-8") for path in Path(__file__).parent.parent.rglob("test_*.py") if path != Path(__file__)
)


@pytest.mark.parametrize("code", CODES)
def test_a_test_names_the_code(code: str) -> None:
    assert re.search(rf"\b{code}\b", TESTS)
