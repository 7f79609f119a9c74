"""What AdaptML writes beside a drop: REJECTED.md for a person, validation-report.json for a program."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from schemas.errors import Problem, Severity
from schemas.run import Estimate, Run, TokenFigures
from schemas.text import markdown

if TYPE_CHECKING:  # who only ends runs needs none of the check's libraries
    from adaptml.verdict import Verdict

REPORT_VERSION = 1


def rejection_report(run: Run) -> str:
    """REJECTED.md of a run that was refused or given up."""
    error = run.error
    if error is None:
        return f"# {run.state}\n"
    what = "refused" if run.state == "REJECTED" else "given up"
    facts = (
        f"Run `{run.run_id}`, manifest generation {run.source.manifest_generation or 'none'}, "
        f"{run.updated_at:%Y-%m-%d %H:%M:%S} UTC. Nothing was trained and nothing was charged."
    )
    return rejected_markdown(what, facts, error.details, error.counts)


def rejected_markdown(what: str, facts: str, problems: Sequence[Problem], counts: Mapping[str, int]) -> str:
    """Markdown; everything that comes from the drop is escaped. `counts` holds all problems, also those not given."""
    total = sum(counts.values())
    lines = [
        f"# This drop was {what}",
        "",
        facts,
        "",
        f"{total} problem{'s' if total != 1 else ''}: "
        + ", ".join(f"{count} × `{code}`" for code, count in sorted(counts.items()))
        + ".",
        "",
        *(_entry(found) for found in problems),
    ]
    if total > len(problems):
        lines.append(f"- … and {total - len(problems)} more.")
    lines += ["", "Correct these and copy the folder again; the manifest's arrival starts a new run.", ""]
    return "\n".join(lines)


def validation_report(verdict: Verdict) -> dict[str, Any]:
    """validation-report.json: everything that was found out. It holds no text of the data."""
    report, manifest = verdict.report, verdict.manifest
    return _document(
        accepted=verdict.is_accepted,
        problems=[*verdict.errors, *report.of(Severity.WARNING), *report.of(Severity.NOTE)],
        counts=verdict.counts,
    ) | {
        "set_aside": _problems(verdict.set_aside),
        "manifest": manifest.model_dump(mode="json", by_alias=True),
        "data": {
            "format": report.shape,
            "rows": dict(report.rows),
            "examples": dict(report.examples),
            "invalid_rows": report.invalid_rows,
            "characters": report.characters,
        },
        "tokens": _tokens(verdict.measured.figures if verdict.measured else None),
        "plan": _plan(verdict.plan),
    }


def manifest_report(problems: Sequence[Problem]) -> dict[str, Any]:
    """validation-report.json of a drop whose manifest was refused: no data was looked at."""
    counts: dict[str, int] = {}
    for found in problems:
        counts[found.code] = counts.get(found.code, 0) + 1
    return _document(accepted=False, problems=problems, counts=counts)


def to_json(document: Mapping[str, Any]) -> str:
    """As the file holds it."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _document(*, accepted: bool, problems: Sequence[Problem], counts: Mapping[str, int]) -> dict[str, Any]:
    return {
        "report_version": REPORT_VERSION,
        "accepted": accepted,
        "counts": dict(sorted(counts.items())),
        "problems": _problems(problems),
    }


def _problems(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    return [found.model_dump(mode="json", exclude_none=True) for found in problems]


def _tokens(figures: TokenFigures | None) -> dict[str, Any] | None:
    return figures.model_dump(mode="json") if figures is not None else None


def _plan(plan: Estimate | None) -> dict[str, Any] | None:
    return plan.model_dump(mode="json") if plan is not None else None


def _entry(found: Problem) -> str:
    place = " ".join(
        part for part in (found.file, f"line {found.line}" if found.line else "", found.field or "") if part
    )
    where = f"**{markdown(place)}**: " if place else ""
    expected = f"  \n  Expected: {markdown(found.expected)}." if found.expected else ""
    return f"- {where}{markdown(found.message)} \\[{found.code}\\]{expected}  \n  {markdown(found.hint)}"
