from __future__ import annotations

import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adaptml.traceparent import Traceparent, parse

GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_the_example_of_the_recommendation() -> None:
    found = parse(GIVEN)
    assert found == Traceparent(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, True)
    assert str(found) == GIVEN


@pytest.mark.parametrize(
    ("flags", "is_sampled"), [("00", False), ("01", True), ("02", False), ("03", True), ("ff", True)]
)
def test_of_the_flags_only_the_last_counts(flags: str, is_sampled: bool) -> None:
    found = parse(GIVEN[:-2] + flags)
    assert found is not None
    assert found.is_sampled is is_sampled


@pytest.mark.parametrize(
    "value",
    [
        None, "", 7, b"x", [], {"traceparent": GIVEN}, GIVEN.encode(), GIVEN.upper(), f" {GIVEN}", f"{GIVEN}\n",
        GIVEN * 2, f"{GIVEN}-more", "01" + GIVEN[2:], "ff" + GIVEN[2:], GIVEN.replace("-", "_"),
        GIVEN.replace("0a", "\u0660a"),
        f"00-{'0' * 32}-b7ad6b7169203331-01", f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
    ],
)  # fmt: skip
def test_what_is_not_exactly_of_the_form_is_as_if_it_were_not_there(value: object) -> None:
    assert parse(value) is None


def of(trace_id: int, span_id: int, is_sampled: bool) -> str:
    return str(Traceparent(trace_id, span_id, is_sampled))


@given(
    st.one_of(
        st.text(),
        st.binary(),
        st.from_regex(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}.?", fullmatch=True),
        st.builds(of, st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans()),
    )
)
@example("00-" + "9" * 10**6)
def test_whatever_is_sent_what_is_taken_of_it_is_of_the_form_and_no_more(value: object) -> None:
    found = parse(value)
    if found is None:
        return
    assert isinstance(value, str)
    assert str(found)[:53] == value[:53]
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", str(found))
    line = json.dumps(found.log_fields("p"))
    assert re.fullmatch(r"[\x20-\x7e]+", line)


def test_a_line_of_the_log_as_cloud_logging_reads_it() -> None:
    found = parse(GIVEN)
    assert found is not None
    assert found.log_fields("my-project") == {
        "logging.googleapis.com/trace": "projects/my-project/traces/0af7651916cd43dd8448eb211c80319c",
        "logging.googleapis.com/spanId": "b7ad6b7169203331",
        "logging.googleapis.com/trace_sampled": True,
    }
