from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptml import quota
from adaptml.planning.estimate import cost_usd
from adaptml.quota import Ledger, Refuse, Wait
from schemas.ledger import Account, Limits, Month, Pool
from schemas.run import Estimate, Run
from schemas.run_states import RunState
from tests.unit.test_protocol import NOW, run


def waiting(tenant: str = "acme", name: str = "r", usd: float = 0.5, **fields: Any) -> Run:
    estimate = Estimate(gpu_memory_gb=5, duration_s=100, cost_usd=usd)
    return run(RunState.QUEUED, tenant=tenant, run_id=f"{tenant}-{name}", estimate=estimate, **fields)


def ledger(pool: Pool | None = None, tenant: str = "acme", **limits: Any) -> Ledger:
    return Ledger(pool or Pool(), Account(tenant=tenant, limits=Limits(**limits)))


def holding(*tenants: str, quota_: int | None = None, last: str = "") -> Pool:
    held = ledger(Pool(quota=quota_))
    for i, tenant in enumerate(tenants):
        held = quota.take(held, waiting(tenant, f"held-{i}"), NOW)
    return held.pool.model_copy(update={"last_tenant": last})


def test_the_pool_s_own_quota_goes_before_the_deployment_s() -> None:
    assert quota.free_slots(holding("a", "b"), 3) == 1
    assert quota.free_slots(holding("a", "b", quota_=5), 3) == 3
    assert quota.free_slots(holding("a", "b", quota_=1), 3) == 0


def test_whoever_holds_fewest_gpus_is_next() -> None:
    order = quota.in_turn(holding("a", "a", "b"), [waiting("a"), waiting("b"), waiting("c")])
    assert [r.tenant for r in order] == ["c", "b", "a"]


def test_among_equals_the_turn_goes_round() -> None:
    heads = [waiting("a"), waiting("b"), waiting("c")]
    assert [r.tenant for r in quota.in_turn(holding(last="b"), heads)] == ["c", "a", "b"]


def test_a_tenant_with_many_runs_holds_up_another_by_one_run_at_most() -> None:
    pool, left, starts = Pool(), {"big": 50, "small": 2}, []
    while any(left.values()):
        heads = [waiting(tenant, str(count)) for tenant, count in left.items() if count]
        chosen = quota.in_turn(pool, heads)[0]
        left[chosen.tenant] -= 1
        starts.append(chosen.tenant)
        taken = quota.take(ledger(pool), chosen, NOW)
        pool = quota.give_back(taken, chosen.run_id, 0.1).pool
    assert starts[:4].count("small") == 2


def test_without_a_free_gpu_nobody_starts() -> None:
    found = quota.admission(waiting(), ledger(holding("x")), 1, NOW)
    assert isinstance(found, Wait)
    assert not found.is_personal


def test_a_tenant_s_own_limit_of_running_runs() -> None:
    found = quota.admission(waiting(), ledger(holding("acme"), max_running=1), 3, NOW)
    assert isinstance(found, Wait)
    assert found.is_personal
    assert "its limit is 1" in found.reason
    assert quota.admission(waiting(), ledger(holding("other"), max_running=1), 3, NOW) is None


@pytest.mark.parametrize(
    ("spent", "needed", "over_budget", "expected"),
    [
        (0.0, 0.5, "wait", None),
        (9.5, 0.5, "wait", None),
        (9.6, 0.5, "wait", Wait),
        (9.6, 0.5, "fail", Refuse),
        (0.0, 10.5, "wait", Refuse),
    ],
)
def test_a_run_waits_for_budget_or_ends(spent: float, needed: float, over_budget: str, expected: type | None) -> None:
    account = Account(
        tenant="acme",
        limits=Limits.model_validate({"monthly_budget_usd": 10, "over_budget": over_budget}),
        months={"2026-01": Month(spent_usd=spent)},
    )
    found = quota.admission(waiting(usd=needed), Ledger(Pool(), account), 3, NOW)
    assert found is None if expected is None else isinstance(found, expected)
    if isinstance(found, Refuse):
        assert found.problem.code == "over_budget"
    if isinstance(found, Wait):
        assert "$0.50" in found.reason
        assert "2026-01" in found.reason
        assert quota.admission(waiting(usd=needed), Ledger(Pool(), account), 3, NOW + timedelta(days=31)) is None


def test_what_is_reserved_counts_against_the_budget() -> None:
    taken = quota.take(ledger(monthly_budget_usd=1.0), waiting(name="one", usd=0.7), NOW)
    assert isinstance(quota.admission(waiting(name="two", usd=0.5), taken, 3, NOW), Wait)


def test_a_run_whose_attempts_cost_too_much_does_not_start_again() -> None:
    found = quota.admission(waiting(cost_usd=2.0), ledger(), 3, NOW)
    assert isinstance(found, Refuse)
    assert found.problem.code == "cost_limit_reached"


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 20_000), st.integers(0, 20_000)), max_size=40))
def test_money_adds_up_whatever_the_order(events: list[tuple[int, int, int]]) -> None:
    """A slot is taken where it is free and given back where it is held; the month always says what is held."""
    held: dict[int, Any] = {}
    now, spent = ledger(), 0
    for number, reserved, used in events:
        run_ = waiting(name=str(number), usd=reserved / 1e4)
        if number in held:
            now, spent = quota.give_back(now, run_.run_id, used / 1e4), spent + used
            del held[number]
        else:
            now = quota.take(now, run_, NOW)
            held[number] = reserved
        month = now.account.months["2026-01"]
        assert month.reserved_usd == pytest.approx(sum(held.values()) / 1e4)
        assert month.spent_usd == pytest.approx(spent / 1e4)
        assert len(now.pool.slots) == len(held)


def test_what_was_paid_is_not_reserved_again() -> None:
    assert quota.expected_usd(waiting(usd=0.5, cost_usd=0.2)) == pytest.approx(0.3)
    assert quota.expected_usd(waiting(usd=0.5, cost_usd=0.9)) == 0


def test_giving_back_twice_is_giving_back_once() -> None:
    taken = quota.take(ledger(), waiting(), NOW)
    once = quota.give_back(taken, "acme-r", 0.3)
    assert quota.give_back(once, "acme-r", 0.3) == once


def test_an_attempt_that_never_began_costs_nothing() -> None:
    later = NOW + timedelta(seconds=100)
    assert quota.used_usd(run(RunState.STARTING), later) == 0
    began = run(RunState.TRAINING, started_at=NOW)
    assert quota.used_usd(began, later) == pytest.approx(cost_usd("nvidia-l4", 100), abs=1e-6)
    assert quota.used_usd(began, NOW - timedelta(seconds=5)) == 0


@pytest.mark.parametrize(("amount", "text"), [(0, "0.00"), (0.0123, "0.0123"), (0.5, "0.50"), (12, "12.00")])
def test_amounts_for_people(amount: float, text: str) -> None:
    assert quota.usd(amount) == text
