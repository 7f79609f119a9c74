from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import yaml_strict
from schemas.errors import Refused


def refusal(text: str | bytes) -> tuple[str, int | None]:
    with pytest.raises(Refused) as caught:
        yaml_strict.load(text if isinstance(text, bytes) else text.encode(), file="manifest.yaml")
    (problem,) = caught.value.problems
    return problem.code, problem.line


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("a: 1\nb: &x 2\n", "manifest_unsafe_yaml", 2),
        ("a: 1\nb: *x\n", "manifest_unsafe_yaml", 2),
        ("a: !!python/object/apply:os.system [id]\n", "manifest_unsafe_yaml", 1),
        ("a: !mine 3\n", "manifest_unsafe_yaml", 1),
        ("? [a, b]\n: 1\n", "manifest_unsafe_yaml", 1),
        ("[" * 5000, "manifest_unsafe_yaml", 1),
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "manifest_duplicate_key", 4),
        ('{"a": 1, "a": 2}', "manifest_duplicate_key", 1),
        ("a: [1, 2\nb: 3\n", "manifest_syntax", 2),
        ("a: 'open\n", "manifest_syntax", 2),
        ("a: 1\n---\nb: 2\n", "manifest_second_document", 2),
        ("%YAML 1.1\n---\na: no\n", "manifest_unsafe_yaml", 2),
        ("a: 1\n<<: {b: 2}\n", "manifest_unsafe_yaml", 2),
        ("a: 1\n2: b\n", "manifest_key_not_text", 2),
        ("a: 1\nb: .nan\n", "manifest_bad_number", 2),
        ("a: [1,\n -.inf]\n", "manifest_bad_number", 2),
        ("a: 1e999\n", "manifest_bad_number", 1),
        ("a: 1\nb: " + "9" * 5000, "manifest_bad_number", 2),
        ('{"a": 1,\n"b": "\\ud800"}', "manifest_syntax", 2),
        ('a: "\\UFFFFFFFF"', "manifest_syntax", None),
        (b"\xff\xfe\x00", "manifest_not_text", 1),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "manifest_not_text", 1),
        (b"a: 1\nb: \xe9\n", "manifest_not_text", 2),
        (b"a: 1\nb: \x00", "manifest_not_text", 2),
        (b"a" * (64 * 1024 + 1), "manifest_too_large", None),
    ],
)
def test_unsafe_or_broken_text_is_refused_with_its_line(text: str | bytes, code: str, line: int | None) -> None:
    assert refusal(text) == (code, line)


def test_a_billion_laughs_is_refused_before_it_grows() -> None:
    bomb = "a: &a [x,x]\n" + "".join(f"{c}: &{c} [*{p},*{p}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True))
    assert refusal(bomb) == ("manifest_unsafe_yaml", 1)


def test_scalars_are_those_of_yaml_1_2() -> None:
    value, _ = yaml_strict.load(b"a: 2e-4\nb: no\nc: 0x10\nd: 1_000\ne: 2024-01-01\nf: ~\ng: true\n", file="m")
    assert value == {"a": 2e-4, "b": "no", "c": 16, "d": 1000, "e": "2024-01-01", "f": None, "g": True}


def test_every_value_has_its_line() -> None:
    _, lines = yaml_strict.load(b"a: 1\nb:\n  c: [x,\n    y]\nd/e: 2\n", file="m")
    assert lines["/a"] == 1
    assert lines["/b/c"] == 3
    assert lines["/b/c/1"] == 4
    assert lines["/d~1e"] == 5


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs", "Cc"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcxyz_", min_size=1), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_json_is_read_as_json(value: object) -> None:
    assert yaml_strict.load(json.dumps(value).encode(), file="m")[0] == value


@given(st.binary(max_size=300))
def test_no_input_raises_anything_but_refused(data: bytes) -> None:
    with contextlib.suppress(Refused):
        yaml_strict.load(data, file="m")


@given(json_values, st.sampled_from([None, 2, "\t"]))
def test_json_may_be_indented_as_it_likes(value: object, indent: int | str | None) -> None:
    assert yaml_strict.load(json.dumps(value, indent=indent).encode(), file="m")[0] == value


@given(st.text("ab:-[]{}#&*!|>'\"%@`,?\n\t ~0.<", max_size=60))
def test_no_text_raises_anything_but_refused(text: str) -> None:
    with contextlib.suppress(Refused):
        yaml_strict.load(text.encode(), file="m")
