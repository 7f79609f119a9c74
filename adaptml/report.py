"""REJECTED.md: why a drop was refused, for a person who only has gsutil."""

from __future__ import annotations

import re

from schemas.errors import Problem
from schemas.run import Run

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+!|~&])")


def rejection_report(run: Run) -> str:
    """Markdown; everything that comes from the drop is escaped."""
    error = run.error
    if error is None:
        return f"# {run.state}\n"
    total = sum(error.counts.values())
    lines = [
        f"# This drop was {'refused' if run.state == 'REJECTED' else 'given up'}",
        "",
        f"Run `{run.run_id}`, manifest generation {run.source.manifest_generation or 'none'}, "
        f"{run.updated_at:%Y-%m-%d %H:%M:%S} UTC. Nothing was trained and nothing was charged.",
        "",
        f"{total} problem{'s' if total != 1 else ''}: "
        + ", ".join(f"{count} × `{code}`" for code, count in sorted(error.counts.items()))
        + ".",
        "",
        *(_entry(found) for found in error.details),
    ]
    if total > len(error.details):
        lines.append(f"- … and {total - len(error.details)} more.")
    lines += ["", "Correct these and copy the folder again; the manifest's arrival starts a new run.", ""]
    return "\n".join(lines)


def _entry(found: Problem) -> str:
    place = " ".join(
        part for part in (found.file, f"line {found.line}" if found.line else "", found.field or "") if part
    )
    where = f"**{_escape(place)}**: " if place else ""
    return f"- {where}{_escape(found.message)} \\[{found.code}\\]  \n  {_escape(found.hint)}"


def _escape(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", text)
