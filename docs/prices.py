"""docs/prices.md: the price list, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from adaptml.planning import bill
from adaptml.planning.bill import Line
from adaptml.planning.estimate import PRICES, estimate, tokens_of_characters
from schemas.manifest_reading import parse_manifest
from trainer.attempt import pause_between_reports

_DEMO = Path(__file__).resolve().parent.parent / "demo" / "support-bot"
_HOUR_S, _MONTHLY_RUN_S, _MONTHLY_RUNS = 3600.0, 600.0, 1000
_NOTHING = 0.00005
"""USD that are not worth a digit."""
_PAGE = """\
# Prices, and what a run costs in each service

In USD, at list price of {region}, without free quotas. All prices stand in
[prices.yaml](../adaptml/planning/prices.yaml), which the estimator and budgets read, too. **None was compared with
Google's own page on the day of writing**: the date says how old what was read is.

## The price list

{prices}
## One run

`demo/support-bot` as the planner expects it, and a run that has an L4 for one hour. Its version is kept for a month;
what it leaves is swept. What is counted: [costs.md](costs.md).

{run}
## A month

The first column is what a deployment costs that nobody uses: a tick a minute. Free quotas cover nearly all of it. Not
in it: images (Artifact Registry), base models in their bucket, backups of Firestore.

{month}"""


def prices() -> str:
    """The document."""
    examples = sum(1 for _ in (_DEMO / "train.jsonl").open("rb"))
    tokens = tokens_of_characters(len((_DEMO / "train.jsonl").read_text("utf-8")))
    manifest = parse_manifest((_DEMO / "manifest.yaml").read_bytes(), file="manifest.yaml", folder="support-bot")
    demo_s = estimate(manifest, tokens, examples).duration_s
    columns = {f"the demo's drop, {demo_s:.0f} s": _of_run(demo_s), "one hour": _of_run(_HOUR_S)}
    idle = bill.of_idle_month()
    busy = bill.times(bill.of_run(_MONTHLY_RUN_S, _reports(_MONTHLY_RUN_S)), _MONTHLY_RUNS)
    month = {
        "nobody trains": [*bill.job(0), *bill.bill(idle)],
        f"{_MONTHLY_RUNS:,} runs of {_MONTHLY_RUN_S / 60:.0f} minutes": [
            *bill.job(_MONTHLY_RUN_S * _MONTHLY_RUNS),
            *bill.bill(bill.total(idle, busy)),
        ],
    }
    return _PAGE.format(region=PRICES["region"], prices=_price_list(), run=_table(columns), month=_table(month))


def _of_run(seconds: float) -> list[Line]:
    return [*bill.job(seconds), *bill.bill(bill.of_run(seconds, _reports(seconds)))]


def _reports(seconds: float) -> int:
    return round(seconds / pause_between_reports(seconds))


def _price_list() -> str:
    gpu, as_of = PRICES["accelerators"]["nvidia-l4"], PRICES["as_of"]
    source = "SKUs of the Cloud Billing Catalog API, quoted in a public repository"
    rows = [
        ("job", "seconds of an NVIDIA L4, without zonal redundancy", f"{gpu['usd_per_second']:.7f}", "", as_of, source),
        ("job", "vCPU-seconds (an L4 needs 4)", _digits(PRICES["vcpu_usd_per_second"]), "", as_of, source),
        ("job", "GiB-seconds (an L4 needs 16)", _digits(PRICES["memory_gib_usd_per_second"]), "", as_of, source),
    ]
    for price in PRICES["services"].values():
        per = "" if price["per"] == 1 else f" for {price['per']:,}"
        usd = _digits(price["usd"]) + per
        rows.append((price["service"], price["what"], usd, price["free"], price["as_of"], price["source"]))
    head = "| service | what | USD | free each month | as of | read in |\n| --- | --- | ---: | --- | --- | --- |\n"
    return head + "".join(f"| {' | '.join(map(str, row))} |\n" for row in rows)


def _digits(usd: float) -> str:
    return f"{usd:.7f}".rstrip("0").rstrip(".")


def _table(columns: Mapping[str, Sequence[Line]]) -> str:
    """A row for each service, and their sums."""
    head = f"| | {' | '.join(columns)} |\n| --- |{' ---: |' * len(columns)}\n"
    bills = list(columns.values())
    rows = [(lines[0].service, [line.usd for line in lines]) for lines in zip(*bills, strict=True)]
    rows.append(("**together**", [sum(line.usd for line in lines) for lines in bills]))
    rows.append(
        ("… without the job", [sum(line.usd for line in lines if "job:" not in line.service) for lines in bills])
    )
    return head + "".join(f"| {service} | {' | '.join(map(_usd, usd))} |\n" for service, usd in rows)


def _usd(usd: float) -> str:
    if usd == 0:
        return "0"
    return "< 0.0001" if usd < _NOTHING else f"{usd:,.2f}" if usd >= 1 else f"{usd:.4f}"
