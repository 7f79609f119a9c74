"""What a run costs in each service, at list price: prices.yaml times what docs/costs.md counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from adaptml.planning.estimate import PRICES

Usage = dict[str, float]
"""Key of `services` in prices.yaml → how many."""

KB, GIB, TIB = 1000, 1 << 30, 1 << 40

# Counted at the clients' interfaces by benchmarks/growth.py: manifest to QUEUED, to RunJob, training without reports.
_RUN: Usage = {"firestore_reads": 41, "firestore_writes": 34, "storage_writes": 24, "storage_reads": 23}
_REPORT: Usage = {"firestore_reads": 2, "firestore_writes": 2, "storage_writes": 1, "storage_reads": 1}
_CHECKPOINT: Usage = {"storage_writes": 2}
# Two looks at what attempts left: the run, RESUMEs, who goes on from its checkpoints; then two folders.
_SWEPT: Usage = {"firestore_reads": 8, "firestore_writes": 2, "storage_writes": 2}
_TICK: Usage = {"firestore_reads": 6}
_MESSAGES, _FILES = 9, 6
"""Of a run: published messages, and objects of its drop and beside it whose events call intake, without STATUS.json's
renewals."""
_LOG_BYTES, _SPANS = 50 * KB, 40
"""About, of a run."""

# terraform/functions.tf: two vCPUs and 2 GiB where drops are taken in, and for the reconciler. Seconds are expected.
_INSTANCE_VCPU, _INSTANCE_GIB = 2, 2
_CALL_S, _IDLE_CALL_S = 0.5, 0.1
"""Of a call that does something; of one that finds that the event is of a file of ours, the least that is billed."""

CHECKPOINT_EVERY_S = 120
TICKS_A_MONTH = 30 * 24 * 60
VERSION_GB = 0.015


class Line(NamedTuple):
    """A service's part of a bill."""

    service: str
    usd: float


def of_run(seconds: float, reports: int) -> Usage:
    """What one run that has that long on its GPU asks of the services, its version kept for a month."""
    events = _MESSAGES + _FILES + reports
    rest: Usage = {
        "eventarc_events": events,
        "pubsub_tib": 2 * KB * events / TIB,
        "storage_gb_months": VERSION_GB,
        "log_gib": _LOG_BYTES / GIB,
        "trace_spans": _SPANS,
    }
    checkpoints = int(seconds // CHECKPOINT_EVERY_S) + 1
    calls = total(_calls(_MESSAGES + _FILES, _CALL_S), _calls(reports, _IDLE_CALL_S))
    return total(_RUN, times(_REPORT, reports), times(_CHECKPOINT, checkpoints), _SWEPT, calls, rest)


def of_idle_month() -> Usage:
    """What a deployment asks of the services in a month in which nobody trains: ticks."""
    rest: Usage = {
        "pubsub_tib": 2 * KB * TICKS_A_MONTH / TIB,
        "log_gib": TICKS_A_MONTH * KB / GIB,
        "scheduler_jobs": 2,
    }
    return total(times(_TICK, TICKS_A_MONTH), _calls(TICKS_A_MONTH, _CALL_S), rest)


def job(seconds: float, accelerator: str = "nvidia-l4") -> list[Line]:
    """The job's own bill: GPU, vCPU and memory are three prices."""
    price = PRICES["accelerators"][accelerator]
    return [
        Line("job: GPU", seconds * price["usd_per_second"]),
        Line("job: vCPU", seconds * price["vcpu"] * PRICES["vcpu_usd_per_second"]),
        Line("job: memory", seconds * price["memory_gib"] * PRICES["memory_gib_usd_per_second"]),
    ]


def bill(usage: Mapping[str, float]) -> list[Line]:
    """A line for each service of the price list, in its order."""
    usd: dict[str, float] = {}
    for key, price in PRICES["services"].items():
        usd[price["service"]] = usd.get(price["service"], 0.0) + usage.get(key, 0) * price["usd"] / price["per"]
    return [Line(service, cost) for service, cost in usd.items()]


def total(*usages: Usage) -> Usage:
    """All of them together."""
    keys = dict.fromkeys(key for usage in usages for key in usage)
    return {key: sum(usage.get(key, 0) for usage in usages) for key in keys}


def times(usage: Usage, number: int) -> Usage:
    """So many times the same."""
    return {key: count * number for key, count in usage.items()}


def _calls(number: int, seconds: float) -> Usage:
    """Calls of a function that take that long each."""
    return {
        "function_calls": number,
        "function_vcpu_s": number * seconds * _INSTANCE_VCPU,
        "function_gib_s": number * seconds * _INSTANCE_GIB,
    }
