from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptml.dataset import native
from adaptml.dataset.chunk import Chunk
from adaptml.dataset.examine import Examiner, Form
from adaptml.dataset.fingerprints import TEXT_SEED, Prints, fingerprint
from adaptml.dataset.native import NativeRows
from adaptml.dataset.read import row_of_line
from adaptml.dataset.shapes import SHAPES
from adaptml.dataset.terms import Terms
from adaptml.dataset.typed import TypedRows
from adaptml.dataset.usual import MOST_COLUMNS, UNKNOWN, Setup, usual_form
from tests.unit import native_hammer
from tests.unit.rows import good_row, jsonl

SOURCE = Path(native.__file__).parent / "_certify.c"
HEADERS = Path(sysconfig.get_path("include"))
COMPILER = shutil.which("cc")

compiled = pytest.mark.skipif(native.certify is None, reason="nothing was compiled here")
compiling = pytest.mark.skipif(
    COMPILER is None or not (HEADERS / "Python.h").exists(), reason="no C compiler here, or not what it needs of Python"
)
TEXT = usual_form(Setup("text", ("text",), Terms()))


def text_prints(data: bytes) -> Prints:
    return NativeRows(TEXT).prints(Chunk(1, data))


@compiling
def test_it_is_there_where_it_can_be_compiled() -> None:
    assert native.certify is not None, "not compiled: rm .venv/.ready; make .venv/.ready"


@compiling
def test_it_is_compiled_without_a_warning(tmp_path: Path) -> None:
    strict = ["-Wall", "-Wextra", "-Wconversion", "-Wno-sign-conversion", "-Wshadow", "-Werror"]
    command = [str(COMPILER), "-O3", "-fPIC", *strict, f"-I{HEADERS}", "-c", str(SOURCE), "-o", str(tmp_path / "x.o")]
    subprocess.run(command, check=True, timeout=120)


@compiling
@pytest.mark.skipif(sys.platform != "linux", reason="how sanitizers are loaded is another matter elsewhere")
def test_no_broken_line_makes_it_touch_what_is_not_its_own(tmp_path: Path) -> None:
    module = tmp_path / "_certify.so"
    sanitized = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command = [str(COMPILER), *sanitized, "-shared", "-fPIC", f"-I{HEADERS}", str(SOURCE), "-o", str(module)]
    subprocess.run(command, check=True, timeout=120)
    asked = [str(COMPILER), "-print-file-name=libasan.so"]
    library = subprocess.run(asked, check=True, capture_output=True, text=True, timeout=10).stdout.strip()
    environment = os.environ | {"LD_PRELOAD": library, "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc"}
    hammer = [sys.executable, str(Path(native_hammer.__file__)), str(module), "20000"]
    ended = subprocess.run(hammer, env=environment, capture_output=True, text=True, timeout=250, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]


@compiled
@pytest.mark.parametrize("is_ascii", [True, False])
def test_every_sign_is_read_counted_and_known_as_white_space_or_not(is_ascii: bool) -> None:
    signs = [chr(i) for i in range(0x110000) if not 0xD800 <= i <= 0xDFFF]
    lines = [json.dumps({"text": sign}, ensure_ascii=is_ascii) for sign in signs]
    prints = text_prints("\n".join(lines).encode())
    assert (prints["characters"] == [UNKNOWN if sign.isspace() else 1 for sign in signs]).all()
    hashes = np.fromiter((xxhash.xxh64_intdigest(sign.encode()) for sign in signs), np.uint64, len(signs))
    is_seen = prints["characters"] == 1
    assert ((prints["row"] ^ np.uint64(TEXT_SEED)) == hashes)[is_seen].all()


@compiled
def test_bytes_that_are_not_utf8_are_refused_and_all_others_are_not() -> None:
    edges = (0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0)
    texts = [
        bytes([first, *rest])
        for length in range(4)
        for first in range(0x80, 0x100)
        for rest in itertools.product(edges, repeat=length)
    ]
    prints = text_prints(b"\n".join(b'{"text": "x' + text + b'"}' for text in texts))

    def is_good(text: bytes) -> bool:
        try:
            return bool(text.decode())
        except UnicodeDecodeError:
            return False

    assert ((prints["characters"] > 0) == list(map(is_good, texts))).all()


@compiled
@given(text=st.text(max_size=200), is_ascii=st.booleans())
@settings(deadline=None)
def test_a_text_has_the_hash_and_the_length_that_python_gives_it(text: str, is_ascii: bool) -> None:
    (found,) = text_prints(json.dumps({"text": "x" + text}, ensure_ascii=is_ascii).encode())
    assert found["row"] ^ TEXT_SEED == xxhash.xxh64_intdigest(("x" + text).encode())
    assert found["characters"] == 1 + len(text)


COMMON: tuple[tuple[str, dict[str, Any], dict[str, str]], ...] = (
    *((shape, {}, {}) for shape in SHAPES),
    ("sharegpt", {"system": "Be brief."}, {}),
    ("alpaca", {"input": "of this", "system": "Be brief."}, {}),
    ("alpaca", {"input": ""}, {}),
    ("prompt_completion", {"prompt": "", "system": "Be brief."}, {"system": "frage"}),
    ("messages", {"tools": None, "id": {"a": [1, -0.5, "x", {}, [], None]}}, {"role": "from", "content": "größe"}),
)


def renamed(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {names.get(key, key): renamed(item, names) for key, item in value.items()}
    return [renamed(item, names) for item in value] if isinstance(value, list) else value


@compiled
@pytest.mark.parametrize(("shape", "more", "names"), COMMON)
def test_both_ways_say_the_same_of_a_good_row(shape: str, more: dict[str, Any], names: dict[str, str]) -> None:
    rows = [renamed(good_row(shape, i) | more, names) for i in range(3)]
    form = usual_form(Setup(shape, tuple(rows[0]), Terms(columns=names)))
    chunk = Chunk(1, jsonl(rows))
    prints = NativeRows(form).prints(chunk)
    assert (prints["characters"] > 0).all()
    assert prints.tolist() == TypedRows(form).prints(chunk).tolist()


def damaged(line: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(line) + 1)
    more = rng.choice([b"", rng.choice(native_hammer.STUFF), bytes([rng.randrange(11, 256)]), line[at:]])
    return line[:at] + more + line[at + rng.randint(0, 2) :]


@compiled
@pytest.mark.parametrize(("shape", "more", "names"), COMMON)
def test_of_what_it_certifies_an_examination_has_nothing_to_say(
    shape: str, more: dict[str, Any], names: dict[str, str]
) -> None:
    """Damaged rows: most are broken, others say something else, or the same in another way."""
    rng, terms = Random(7), Terms(columns=names)
    row = renamed(good_row(shape, 1) | more, names)
    natively = NativeRows(usual_form(Setup(shape, tuple(row), terms)))
    examiner = Examiner(terms, Form(shape, tuple(row)))
    certified = 0
    for _ in range(3000):
        text = json.dumps(row, ensure_ascii=rng.random() < 0.5, separators=rng.choice([(",", ":"), (", ", ": ")]))
        line = damaged(text.encode(), rng).replace(b"\n", b" ")
        (found,) = natively.prints(Chunk(1, line or b"{}"))
        if found["characters"] == UNKNOWN:
            continue
        certified += 1
        decoded = row_of_line(line, "train.jsonl", 1)
        assert decoded is not None
        examined = examiner.examine(decoded, "train.jsonl")
        assert examined.example is not None, line
        assert not examined.problems, line
        assert tuple(found[["row", "answer", "characters"]]) == fingerprint(examined.example), line
    assert 0 < certified < 3000


@compiled
@pytest.mark.parametrize(
    "number", ["0", "-0", "7", "-1.25", "0.84374827146530151234", "1e5", "1E-05", "-1.5e+10", "9" * 99]
)
def test_numbers_in_a_column_that_is_not_read_are_no_reason_to_look_closer(number: str) -> None:
    assert number_prints(number)["characters"] == 1


@compiled
@pytest.mark.parametrize(
    "number",
    [
        *("01", "-", "--1", "+1", "1.", ".5", "1.e5", "1e", "1e+", "0x1", "1_000", "1.5.2", "1e400", "9" * 400),
        *("NaN", "Infinity", "-Infinity", "nul", "True", "truefalse", ""),
    ],
)
def test_what_is_no_number_is_looked_at(number: str) -> None:
    assert number_prints(number)["characters"] == UNKNOWN


def number_prints(number: str) -> np.void:
    """Of a row with the number in a column that is not read."""
    rows = NativeRows(usual_form(Setup("text", ("text", "n"), Terms())))
    (found,) = rows.prints(Chunk(1, b'{"text": "x", "n": %s}' % number.encode()))
    return found


@compiled
@pytest.mark.parametrize("is_ascii", [True, False])
def test_names_beyond_ascii_may_be_written_in_both_ways(is_ascii: bool) -> None:
    names = {"messages": "对话", "role": "rôle", "content": "größe 😀"}
    row = renamed(good_row("messages", 1) | {"分类": "x"}, names)
    form = usual_form(Setup("messages", tuple(row), Terms(columns=names)))
    (found,) = NativeRows(form).prints(Chunk(1, json.dumps(row, ensure_ascii=is_ascii).encode()))
    assert found["characters"] > 0


@compiled
def test_rows_of_very_many_kinds_of_turns_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_MOST_SEEDS", 3)
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}]
    rows = [{"messages": turns * count} for count in (1, 2, 3, 4, 5, 1, 5)] + [{"messages": turns[:1]}]
    form = usual_form(Setup("messages", ("messages",), Terms()))
    prints = NativeRows(form).prints(Chunk(1, jsonl(rows)))
    assert prints[:-1].tolist() == TypedRows(form).prints(Chunk(1, jsonl(rows)))[:-1].tolist()
    assert len(set(prints["row"][:5].tolist())) == 5
    assert prints["characters"][-1] == UNKNOWN


KEY = (b'"text"', b'"text"')
COLUMN = (KEY, 1, 5)


@compiled
@pytest.mark.parametrize(
    ("ends", "columns", "roles", "room"),
    [
        ([5], (COLUMN,), (), 1),
        ([3, 2], (COLUMN,), (), 2),
        ([-1], (COLUMN,), (), 1),
        ([4], (COLUMN,), (), 2),
        ([4], (), (), 1),
        ([4], (COLUMN,) * (MOST_COLUMNS + 1), (), 1),
        ([4], ((KEY, 5, 5),), (), 1),
        ([4], ((KEY, 1, 6),), (), 1),
        ([4], (COLUMN,), (b'"user"',) * 33, 1),
    ],
)
def test_what_would_lead_it_astray_is_refused(ends: list[int], columns: Any, roles: Any, room: int) -> None:
    with pytest.raises(ValueError, match=r"the lines do not fit|too many columns|no such kind"):
        native.certify(b"abcd", np.array(ends, np.int64), columns, KEY, KEY, roles, np.empty(room, "4i8"))
