"""Who may use GPUs and who does: the documents behind the queue."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from schemas.run import Part


class Slot(Part):
    """One GPU in use."""

    tenant: str
    epoch: int
    """Dispatch number of the run that holds it."""
    since: datetime
    reserved_usd: float
    """What the attempt is expected to cost."""
    month: str
    """Whose budget it is reserved in, as 2026-11."""


class Pool(Part):
    """`pools/{accelerator}`: the GPUs that may run at a time, and the runs that hold them."""

    quota: int | None = None
    """GPUs at a time. None: the deployment's setting holds. An operator may set it in the console."""
    slots: dict[str, Slot] = Field(default_factory=dict)
    """Run id → its GPU."""
    last_tenant: str = ""
    """Who was served last; among tenants that hold equally many GPUs, the next after it comes first."""


class Limits(Part):
    """What an operator allows a tenant, set in the console; None is no limit."""

    max_running: int | None = None
    """Runs on a GPU at a time."""
    max_queued: int | None = None
    """Runs that wait for one."""
    monthly_budget_usd: float | None = None
    """In a calendar month, UTC."""
    over_budget: Literal["wait", "fail"] = "wait"
    """What becomes of a run that the rest of the month's budget does not cover."""


class Month(Part):
    """A tenant's money in one calendar month, UTC."""

    reserved_usd: float = 0.0
    """For attempts under way, at their estimates."""
    spent_usd: float = 0.0
    """Of attempts that ended, by the time they took."""


class Account(Part):
    """`tenants/{tenant}`: limits, and what was used of them."""

    tenant: str
    limits: Limits = Limits()
    months: dict[str, Month] = Field(default_factory=dict)
    """"2026-11" → that month."""
