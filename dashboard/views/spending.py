"""What a tenant has spent, month by month, against its budget."""

from __future__ import annotations

import streamlit as st

from adaptml import quota
from adaptml.clock import utc_now
from dashboard import session, words
from dashboard.elements import bars, nothing, table
from schemas.ledger import Account, Month

MONTHS_SHOWN = 12


def show() -> None:
    """This month large, those before it in a table."""
    st.title("Spending")
    account = session.services().runs.ledger.account(session.tenant())
    this = quota.month_of(utc_now())
    _month(account, account.months.get(this, Month()), this)
    _limits(account)
    if not account.months:
        nothing("Nothing was spent yet.")
        return
    shown = sorted(account.months)[-MONTHS_SHOWN:]
    st.subheader("By month")
    bars([(name, account.months[name].spent_usd) for name in shown], "USD")
    table(
        ("month", "spent", "reserved", "of the budget"),
        [_row(name, account.months[name], account.limits.monthly_budget_usd) for name in reversed(shown)],
    )
    st.caption("At list price, without discounts and taxes; reserved is what attempts under way are expected to cost.")


def _month(account: Account, month: Month, name: str) -> None:
    budget = account.limits.monthly_budget_usd
    used = month.spent_usd + month.reserved_usd
    with st.container(horizontal=True):
        st.metric(f"Spent in {name}", words.money(month.spent_usd), width="content")
        st.metric("Reserved", words.money(month.reserved_usd), width="content")
        st.metric("Budget", words.money(budget) if budget is not None else "no limit", width="content")
        if budget is not None:
            st.metric("Left", words.money(max(0.0, budget - used)), width="content")
    if budget:
        st.progress(min(1.0, used / budget), text=f"{used / budget:.0%} of the budget")


def _limits(account: Account) -> None:
    limits = account.limits
    said = [
        *([f"{limits.max_running} runs on GPUs at a time"] if limits.max_running is not None else []),
        *([f"{limits.max_queued} runs that wait"] if limits.max_queued is not None else []),
        *(["what the budget does not cover " + {"wait": "waits", "fail": "fails"}[limits.over_budget]]
          if limits.monthly_budget_usd is not None else []),
    ]  # fmt: skip
    if said:
        st.caption(f"Limits: {', '.join(said)}.")


def _row(name: str, month: Month, budget: float | None) -> tuple[str, str, str, str]:
    share = f"{(month.spent_usd + month.reserved_usd) / budget:.0%}" if budget else "–"
    return name, words.money(month.spent_usd), words.money(month.reserved_usd), share
