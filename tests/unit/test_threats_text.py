"""What others wrote, where a person or a program reads it: logs, terminals, Markdown, pages, spreadsheets."""

from __future__ import annotations

import io
import json
import logging
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console
from typer.testing import CliRunner

from adaptml import watch
from adaptml.cli import app
from adaptml.commands import operate
from adaptml.logs import CloudFormatter
from schemas.errors import problem
from schemas.manifest import is_safe_file_name
from schemas.run import DataFile, DatasetSummary, DeadLetter, RunError
from schemas.run_states import RunState
from schemas.text import html, markdown, printable, visible
from tests.unit.test_protocol import run
from trainer.card import _data_files

OBEYED = [
    "\x1b[2J", "\x1b]0;title\x07", "\x1b]8;;https://example.org\x1b\\", "\x9b31m", "\x90q", "\r", "\x08", "\x00",
    "\u202e", "\u2066", "\u2028", "\ud800",
]  # fmt: skip
"""What a terminal or a viewer does instead of showing it."""
UNSEEN = ["\u200b", "\u200d", "\u2060", "\ufeff", "\xad", "\u061c", "\u180e", "\u206a", "\ufff9", "\U000e0041"]
"""What makes two names look alike."""
FORMULAS = ["=1+1", "=cmd|' /C calc'!A0", "+1", "-1+1", "@SUM(A1)", "\t=1+1", "\r=1+1", "＝1+1"]
PATH = Path(__file__).parents[2]


# Logs


@pytest.mark.parametrize("text", ["\n", *OBEYED, *UNSEEN])
def test_a_line_of_the_log_is_one_line_of_plain_ascii(text: str) -> None:
    record = logging.LogRecord(
        "adaptml", logging.INFO, "x.py", 1, "file %s", (f'a{text}b"}}\n{{"severity": "ALERT"',), None
    )
    written = CloudFormatter({"run_id": f"r{text}"}).format(record)
    assert written.isascii()
    assert written.isprintable()
    assert json.loads(written)["severity"] == "INFO"


# Terminals


@pytest.mark.parametrize("text", [*OBEYED, *UNSEEN])
def test_what_is_not_seen_names_no_file_and_is_shown_in_no_message(text: str) -> None:
    assert not is_safe_file_name(f"a{text}b.jsonl")
    assert printable(f"a{text}b").isprintable()
    assert text not in printable(f"a{text}b")
    found = problem("unsafe_path", file=f"a{text}", field=f"/{text}", name=f"x{text}y")
    assert text not in str(found)


@pytest.mark.parametrize("text", OBEYED)
def test_a_text_of_the_data_is_shown_with_its_lines_and_nothing_that_is_obeyed(text: str) -> None:
    shown = visible(f"first\n\tsecond{text}third 👩‍👧 שלום")
    assert shown.startswith("first\n\tsecond�")
    assert shown.endswith("third 👩‍👧 שלום")
    assert text not in shown


def drawn(shown: Any) -> str:
    target = io.StringIO()
    Console(file=target, width=200, force_terminal=False, color_system=None).print(shown)
    return target.getvalue()


@pytest.mark.parametrize("text", OBEYED[:-1])
def test_a_document_that_was_written_by_hand_does_nothing_to_the_terminal_that_watches_it(text: str) -> None:
    error = RunError(code="cancelled", message=f"m{text}", hint=f"h{text}")
    edited = run(RunState.FAILED, run_id=f"r{text}", state_reason=f"because{text}", error=error)
    for seen in (drawn(watch.view(edited, [])), watch.line(edited)):
        assert text not in seen
        assert "because" in seen


@pytest.mark.parametrize("text", OBEYED[:-1])
def test_a_dead_letter_does_nothing_to_the_terminal_that_lists_it(text: str) -> None:
    letter = DeadLetter(
        topic=f"t{text}", message_id=f"i{text}", payload_uri="", reason=f"r{text}", count=1, at=datetime.now(UTC)
    )
    assert text not in drawn(operate._table([letter]))


@pytest.mark.parametrize("text", ["\x1b[2J", "\x1b]0;title\x07", "\u202e", "\u200b"])
@pytest.mark.parametrize("has_manifest", [True, False])
def test_a_folder_may_be_called_what_it_likes(tmp_path: Path, text: str, has_manifest: bool) -> None:
    folder = tmp_path / f"bot{text}"
    folder.mkdir()
    if has_manifest:
        (folder / "manifest.yaml").write_text(
            "name: bot\nbase_model: google/gemma-2b\ndataset: {train: [gone.jsonl]}\n"
        )
    result = CliRunner().invoke(app, ["check", str(folder)], env={"COLUMNS": "1000", "NO_COLOR": "1"})
    assert result.exit_code == 1
    assert text not in result.stdout
    missing = CliRunner().invoke(app, ["check", str(folder / "gone")], env={"COLUMNS": "1000", "NO_COLOR": "1"})
    assert missing.exit_code == 2
    assert text not in missing.output


# Markdown and pages


class Page(HTMLParser):
    """What a browser makes of a page: its text, and everything that is more."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: list[str] = []
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.feed(page)
        self.close()

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))


HOSTILE = st.text(alphabet="ab<>&\"'/=!-`[]()#;: \u202e\x1b\n", max_size=40)


@given(HOSTILE)
def test_in_a_page_a_text_is_text_and_an_attribute_is_an_attribute(text: str) -> None:
    page = Page(f'<p title="{html(text)}">{html(text)}</p>')
    assert page.tags == [("p", [("title", visible(text))])]
    assert "".join(page.texts) == visible(text)


def rendered(text: str) -> Page:
    return Page(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text))


@given(st.text(alphabet="ab<>&\"'/=!-`[]()#;:|*_~\\ ", min_size=1, max_size=40))
def test_in_markdown_a_line_is_a_line_of_text(text: str) -> None:
    page = rendered(f"- **{markdown(f'a{text}b')}**: x")
    assert {tag for tag, _ in page.tags} == {"ul", "li", "strong"}
    assert f"a{text}b" in "".join(page.texts)


NAMES = [
    "<script>alert(1)</script>.jsonl", "`</code><img src=x onerror=alert(1)>`.jsonl", "``a``|b.jsonl", "[a](x).jsonl",
    "a | b | c.jsonl", "&lt;b&gt;.jsonl", "--><script>.jsonl", "`.jsonl", "``.jsonl",
    *(f"{formula.strip()}.csv" for formula in FORMULAS),
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_one_cell_of_the_model_card_whatever_it_is_called(name: str) -> None:
    file = DataFile(name=name, object=f"acme/bot/{name}", generation=7, size=1, crc32c="AAAA", role="train")
    table = _data_files(DatasetSummary(files=[file]))
    page = rendered(f"| file | role | bytes | generation | crc32c |\n| --- | --- | --- | --- | --- |\n{table}")
    tags = [tag for tag, _ in page.tags]
    assert (tags.count("th"), tags.count("td"), tags.count("code")) == (5, 5, 2)
    assert set(tags) <= {"table", "thead", "tbody", "tr", "th", "td", "code"}
    assert name.replace("`", "'") in "".join(page.texts)


# Spreadsheets


@pytest.mark.parametrize("formula", FORMULAS)
def test_no_cell_of_a_table_begins_as_a_formula_does(formula: str) -> None:
    """Who pastes the model card into a spreadsheet gets texts: a name stands in quotes of its own."""
    name = f"{formula.strip()}.csv"
    table = _data_files(DatasetSummary(files=[DataFile(
        name=name, object=name, generation=7, size=1, crc32c="=A1", role="train"
    )]))  # fmt: skip
    cells = [cell.strip() for cell in table.strip("|\n ").split(" | ")]
    assert len(cells) == 5
    assert not [cell for cell in cells if re.match(r"[=+\-@\t\r＝]", cell)]


def test_nothing_that_is_written_for_people_is_a_table_for_spreadsheets() -> None:
    """A spreadsheet takes cells of CSV for formulas. None is written: reports are JSON and Markdown."""
    sources = [
        path
        for part in ("schemas", "adaptml", "functions", "trainer")
        for path in (PATH / part).rglob("*.py")
        if re.search(r"csv\.(writer|DictWriter)|write_csv|to_csv|to_excel|text/csv", path.read_text("utf-8"))
    ]
    assert sources == []
