"""What fuzzing starts from, and what it has found, without the fuzzer: nothing is raised or said in two ways."""

from __future__ import annotations

import pytest

from adaptml.dataset.terms import Terms
from tests.fuzz.__main__ import NAMES
from tests.fuzz.corpus import CRASHES, seeds, words
from tests.fuzz.targets import TARGETS
from tests.unit.rows import checked, jsonl


@pytest.mark.parametrize("target", TARGETS)
def test_no_seed_goes_wrong(target: str) -> None:
    for seed in seeds(target):
        TARGETS[target](seed)


@pytest.mark.parametrize(("target", "what"), [(target, what) for target in CRASHES for what in CRASHES[target]])
def test_what_once_went_wrong_does_so_no_more(target: str, what: str) -> None:
    TARGETS[target](CRASHES[target][what])


def test_every_target_can_be_asked_for() -> None:
    assert set(NAMES) == set(TARGETS) >= set(CRASHES)
    assert all(words(target) for target in TARGETS)


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"text": "a", 'say "hi"': 1}, {}),
        ({"text": "a", "b\\c": 1}, {}),
        ({"a\nb": "a"}, {"text": "a\nb"}),
        ({"prompt": "a", "completion": "b"}, {"system": "prompt"}),
        ({"messages": [{"a": "user"}, {"a": "assistant"}]}, {"role": "a", "content": "a"}),
    ],
)
def test_columns_may_have_any_names(row: dict[str, object], columns: dict[str, str]) -> None:
    checked(jsonl([row]), terms=Terms("auto", columns))
