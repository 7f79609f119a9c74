"""Alerts as a plan has them, for docs/operations.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.terraform.deployment import deployment
from tests.terraform.sources import ROOT

OPERATIONS = ROOT / "docs" / "operations.md"
_BEGIN, _END = "<!-- alerts: made by `python -m tests.terraform.generate` -->\n", "<!-- end of alerts -->"
_SEVERITIES = ("CRITICAL", "ERROR", "WARNING")
_SECONDS = {86400: "a day", 3600: "an hour", 60: "a minute"}


@dataclass(frozen=True)
class Alert:
    """One policy."""

    name: str
    severity: str
    when: str
    to_do: str


def alerts() -> list[Alert]:
    """The worst first."""
    found = []
    for resource in deployment().resources("google_monitoring_alert_policy"):
        row = resource.values
        name = row["display_name"].removeprefix("AdaptML: ")
        to_do = row["documentation"][0]["content"].partition("\n")[0]
        found.append(Alert(name, row["severity"], _when(row["conditions"][0]), to_do))
    return sorted(found, key=lambda alert: (_SEVERITIES.index(alert.severity), alert.name))


def _when(condition: dict[str, list[dict[str, Any]]]) -> str:
    if absent := condition.get("condition_absent"):
        return f"nothing for {_time(absent[0]['duration'])}"
    [threshold] = condition["condition_threshold"]
    [aggregation] = threshold["aggregations"]
    when = f"more than {_amount(threshold['threshold_value'])} in {_time(aggregation['alignment_period'])}"
    return when if threshold["duration"] == "0s" else f"{when}, for {_time(threshold['duration'])}"


def _amount(value: float) -> str:
    """What is large is a time, in seconds."""
    if value < 600:
        return f"{value:g}"
    return f"{value / 3600:g} hours" if value >= 3600 else _time(value)


def _time(text: object) -> str:
    seconds = int(float(str(text).removesuffix("s")))
    return _SECONDS.get(seconds) or (f"{seconds // 60} minutes" if seconds % 60 == 0 else f"{seconds} s")


def anchor(name: str) -> str:
    """Of a heading, as GitHub makes it."""
    return "".join(c for c in name.lower().replace(" ", "-") if c.isalnum() or c == "-")


def with_alerts() -> str:
    """docs/operations.md with the table as it should be."""
    rows = (f"| [{one.name}](#{anchor(one.name)}) | {one.severity} | {one.when} | {one.to_do} |\n" for one in alerts())
    table = "| alert | severity | when | what it says |\n| --- | --- | --- | --- |\n" + "".join(rows)
    text = OPERATIONS.read_text("utf-8")
    before, begin, rest = text.partition(_BEGIN)
    assert begin, "docs/operations.md has no place for the table"
    return before + _BEGIN + table + _END + rest.partition(_END)[2]
