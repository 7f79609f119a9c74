"""Who is next on a GPU, and what it may cost. Pure.

A run takes a slot of the pool and reserves its estimate in the tenant's month with the change that makes it STARTING;
it gives the slot back and settles what it used with the change that ends the attempt. Each is one atomic commit with
the run itself, so that slots, money and runs cannot tell different stories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from adaptml.planning.estimate import PRICES, cost_usd
from schemas.errors import Problem, problem
from schemas.ledger import Account, Month, Pool, Slot
from schemas.run import Run

ACCELERATORS: tuple[str, ...] = tuple(PRICES["accelerators"])
"""Each has a pool."""


@dataclass(frozen=True)
class Wait:
    """The run stays QUEUED."""

    reason: str
    is_personal: bool = True
    """False where no run of any tenant could start."""


@dataclass(frozen=True)
class Refuse:
    """Waiting would not help."""

    problem: Problem


@dataclass(frozen=True)
class Ledger:
    """What a pool and an account say at one moment."""

    pool: Pool
    account: Account


def free_slots(pool: Pool, default_quota: int) -> int:
    """GPUs that nobody holds; never negative, also when the quota was lowered."""
    quota = default_quota if pool.quota is None else pool.quota
    return max(0, quota - len(pool.slots))


def in_turn(pool: Pool, heads: Sequence[Run]) -> list[Run]:
    """Waiting runs, one of each tenant, in the order in which they may have the next GPU.

    Tenants that hold fewest GPUs come first; among equals the one after who was served last, in the order of their
    names and round again. So a tenant with 500 runs holds up another by one run at most.
    """
    held = [slot.tenant for slot in pool.slots.values()]
    return sorted(heads, key=lambda run: (held.count(run.tenant), run.tenant <= pool.last_tenant, run.tenant))


def admission(run: Run, ledger: Ledger, default_quota: int, now: datetime) -> Wait | Refuse | None:
    """Why the run cannot have a GPU now; None when it can."""
    pool, limits = ledger.pool, ledger.account.limits
    if not free_slots(pool, default_quota):
        return Wait(f"waiting for a GPU: all {len(pool.slots)} are in use", is_personal=False)
    running = [slot.tenant for slot in pool.slots.values()].count(run.tenant)
    if limits.max_running is not None and running >= limits.max_running:
        return Wait(f"waiting: {running} runs of {run.tenant} are on GPUs, its limit is {limits.max_running}")
    if run.manifest and run.cost_usd >= run.manifest.compute.max_cost_usd:
        return Refuse(problem("cost_limit_reached", spent=usd(run.cost_usd), limit=run.manifest.compute.max_cost_usd))
    return _of_budget(run, ledger.account, now)


def _of_budget(run: Run, account: Account, now: datetime) -> Wait | Refuse | None:
    budget, needed, month = account.limits.monthly_budget_usd, expected_usd(run), month_of(now)
    if budget is None:
        return None
    used = account.months.get(month, Month())
    left = budget - used.spent_usd - used.reserved_usd
    if needed <= left:
        return None
    if needed > budget or account.limits.over_budget == "fail":
        short = usd(max(0.0, left))
        return Refuse(problem("over_budget", needed=usd(needed), left=short, budget=usd(budget), month=month))
    return Wait(
        f"waiting for budget: needs ${usd(needed)}, ${usd(max(0.0, left))} of ${usd(budget)} for {month} are left"
    )


def take(ledger: Ledger, run: Run, now: datetime) -> Ledger:
    """The ledger once the run, which was claimed by this epoch, holds a GPU."""
    month, reserved = month_of(now), expected_usd(run)
    slot = Slot(tenant=run.tenant, epoch=run.epoch, since=now, reserved_usd=reserved, month=month)
    pool = ledger.pool.model_copy(update={"slots": ledger.pool.slots | {run.run_id: slot}, "last_tenant": run.tenant})
    return Ledger(pool, _booked(ledger.account, month, reserved=reserved))


def give_back(ledger: Ledger, run_id: str, used_usd: float) -> Ledger:
    """The ledger once a run's attempt has ended, for what it really took. Called twice, it changes nothing more."""
    slot = ledger.pool.slots.get(run_id)
    if slot is None:
        return ledger
    slots = {other: held for other, held in ledger.pool.slots.items() if other != run_id}
    account = _booked(ledger.account, slot.month, reserved=-slot.reserved_usd, spent=used_usd)
    return Ledger(ledger.pool.model_copy(update={"slots": slots}), account)


def at_least_spent(account: Account, spent_usd: Mapping[str, float]) -> Account:
    """The account with no month below what is known to have been spent in it."""
    months = dict(account.months)
    for name, spent in spent_usd.items():
        before = months.get(name, Month())
        months[name] = before.model_copy(update={"spent_usd": round(max(before.spent_usd, spent), 6)})
    return account.model_copy(update={"months": months})


def _booked(account: Account, month: str, *, reserved: float, spent: float = 0.0) -> Account:
    before = account.months.get(month, Month())
    after = Month(reserved_usd=round(before.reserved_usd + reserved, 6), spent_usd=round(before.spent_usd + spent, 6))
    return account.model_copy(update={"months": account.months | {month: after}})


def expected_usd(run: Run) -> float:
    """What is expected to be paid for the run from here on."""
    return round(max(0.0, run.estimate.cost_usd - run.cost_usd), 6) if run.estimate else 0.0


def used_usd(run: Run, until: datetime) -> float:
    """List price of the present attempt, from its beginning; 0 for one that never began."""
    if run.started_at is None or run.manifest is None:
        return 0.0
    seconds = max(0.0, (until - run.started_at).total_seconds())
    return round(cost_usd(run.manifest.compute.accelerator, seconds), 6)


def accelerator_of(run: Run) -> str:
    """Whose pool the run takes its GPU from."""
    return run.manifest.compute.accelerator if run.manifest else "nvidia-l4"


def month_of(now: datetime) -> str:
    """The calendar month, as budgets count it."""
    return f"{now:%Y-%m}"


def usd(amount: float) -> str:
    """An amount for people, to the cent; smaller ones to the hundredth of a cent."""
    return f"{amount:.2f}" if amount >= 0.1 or amount == 0 else f"{amount:.4f}"
