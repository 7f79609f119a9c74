"""What pages are made of. What others wrote (data, names of files, messages that quote them) comes here as text and
leaves escaped, or goes into elements that interpret nothing; Streamlit's Markdown never sees it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import streamlit as st

from adaptml.run_log import Line
from dashboard import words
from schemas.errors import Problem
from schemas.run import Event
from schemas.run_states import RunState
from schemas.text import html, markdown, printable

COLOUR = "#0b6e6e"
PREVIEW_CHARACTERS = 2000
PROBLEMS_SHOWN = 20

STYLE = Path(__file__).with_name("style.css")


def heading(name: str) -> None:
    """A name as the page's title. A run is named after its folder until its manifest is read, and a folder may be
    called anything."""
    st.title(markdown(printable(name)))


def badge(state: RunState) -> str:
    """A state, coloured."""
    return label(state.value, words.tone(state))


def label(text: str, tone: str) -> str:
    """A short word, coloured."""
    return f'<span class="am-badge am-{tone}">{html(text)}</span>'


def line(*parts: str) -> None:
    """Pieces of HTML of ours in a row that wraps between them."""
    st.html(f'<div class="am-row">{"".join(parts)}</div>')


def dim(text: str) -> str:
    """What matters less."""
    return f'<span class="am-dim am-wrap">{html(text)}</span>'


def said(text: str) -> None:
    """A text of somebody's, as it is."""
    st.html(f'<div class="am-wrap">{html(text)}</div>')


def facts(rows: Iterable[tuple[str, str]]) -> None:
    """Names and what there is to say."""
    st.html(f'<dl class="am-facts">{"".join(f"<dt>{html(n)}</dt><dd>{html(text)}</dd>" for n, text in rows)}</dl>')


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], better: Mapping[int, bool | None] | None = None) -> None:
    """Cells of text. `better` says of a row whether its last cell is good news."""
    tones = {True: ' class="am-better"', False: ' class="am-worse"', None: ""}
    body = []
    for number, row in enumerate(rows):
        tone = tones[(better or {}).get(number)]
        cells = [f"<td{tone if at == len(row) - 1 else ''}>{html(cell)}</td>" for at, cell in enumerate(row)]
        body.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(f"<th>{html(name)}</th>" for name in heads)
    st.html(f'<div class="am-scroll"><table class="am-table"><tr>{head}</tr>{"".join(body)}</table></div>')


def problems(found: Sequence[Problem], total: int | None = None, *, mild: bool = False) -> None:
    """Each with its place, what was expected and what to do."""
    entries = [_problem(one, mild=mild) for one in found[:PROBLEMS_SHOWN]]
    left = (total or len(found)) - len(entries)
    if left > 0:
        entries.append(f'<p class="am-dim">… and {left:,} more; validation-report.json lists up to a hundred.</p>')
    st.html("".join(entries))


def _problem(found: Problem, *, mild: bool) -> str:
    line = f"line {found.line}" if found.line else ""
    place = html(" ".join(part for part in (found.file, line, found.field) if part))
    where = f"<strong>{place}</strong>: " if place else ""
    expected = f"<p>Expected: {html(found.expected)}.</p>" if found.expected else ""
    return (
        f'<div class="am-problem{" am-mild" if mild else ""}"><p>{where}{html(found.message)} '
        f'<code>{html(found.code)}</code></p>{expected}<p class="am-dim">{html(found.hint)}</p></div>'
    )


def preview(entry: Mapping[str, Any]) -> None:
    """An example as the model reads it; what it is trained on is marked."""
    pieces, left = [], PREVIEW_CHARACTERS
    for segment in entry["segments"]:
        text = segment["text"][:left]
        left -= len(text)
        tag = "mark" if segment["trained"] else "span"
        if text:
            pieces.append(f"<{tag}>{html(text)}</{tag}>")
    if left <= 0:
        pieces.append("<span> …</span>")
    counted = f"{entry['trained_tokens']:,} of {entry['tokens']:,} tokens trained on"
    too_long = "; longer than the sequence length" if entry["exceeds_max_seq_length"] else ""
    st.html(
        f'<p class="am-dim">{html(entry["file"])} line {entry["line"]}: {counted}{too_long}</p>'
        f'<div class="am-preview" data-testid="preview">{"".join(pieces)}</div>'
    )


def way(events: Sequence[Event], now: datetime) -> None:
    """The states of a run, the newest first."""
    entries = []
    for event in reversed(events):
        again = f", attempt {event.attempt}" if event.attempt > 1 else ""
        entries.append(
            f'<li class="am-{words.tone(event.to_state)}"><strong>{event.to_state}</strong> '
            f'<span class="am-dim">{words.at(event.at, now)} UTC{again}</span>'
            f'<div class="am-dim am-wrap">{html(event.reason)}</div></li>'
        )
    st.html(f'<ol class="am-way" data-testid="way">{"".join(entries)}</ol>')


def logged(lines: Iterable[Line]) -> None:
    """Lines of a log, the newest last."""
    tones = {"WARNING": "am-mild", "ERROR": "am-worse", "CRITICAL": "am-worse"}
    entries = [
        f'<div class="{tones.get(one.severity, "")}"><span>{html(one.time[11:19])} {html(one.where)}</span> '
        f"{html(one.message)}</div>"
        for one in lines
    ]
    st.html(f'<div class="am-log" data-testid="log">{"".join(entries)}</div>')


def nothing(text: str) -> None:
    """What stands where there is nothing yet. The text is ours."""
    st.info(text, icon=":material/inbox:")


def curve(points: Sequence[Mapping[str, Any]], field: str, title: str) -> None:
    """A figure over the steps. Drawn by Vega-Lite from plain numbers: that spares the seconds that Altair takes
    to load."""
    values = [{"step": point["step"], "value": point[field]} for point in points if point.get(field) is not None]
    _chart(values, {"type": "line", "point": len(values) == 1, "interpolate": "linear"}, "step", "quantitative", title)


def bars(values: Sequence[tuple[str, float]], title: str) -> None:
    """A figure for each name."""
    marked = [{"step": name, "value": value} for name, value in values]
    _chart(marked, {"type": "bar", "width": {"band": 0.6}}, "", "ordinal", title)


def _chart(values: list[dict[str, Any]], mark: dict[str, Any], below: str, kind: str, title: str) -> None:
    shown = {"field": "value", "type": "quantitative", "title": title, "scale": {"zero": mark["type"] == "bar"}}
    spec = {
        "data": {"values": values},
        "mark": mark | {"color": COLOUR, "tooltip": True},
        "encoding": {
            "x": {
                "field": "step",
                "type": kind,
                "title": below or None,
                "axis": {"grid": False, "labelAngle": 0, "tickMinStep": 1},
            },
            "y": shown | {"axis": {"tickCount": 4}},
        },
        "height": 190,
    }
    st.vega_lite_chart(spec=spec, width="stretch")
