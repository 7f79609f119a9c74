from __future__ import annotations

import re

import pytest

from adaptml.planning import bill
from adaptml.planning.estimate import PRICES, cost_usd
from adaptml.settings import Settings
from docs.generate import ROOT
from docs.prices import prices


def test_the_jobs_three_prices_are_what_the_estimator_counts_with() -> None:
    assert sum(line.usd for line in bill.job(3600)) == pytest.approx(cost_usd("nvidia-l4", 3600))


def test_what_is_counted_is_billed_and_each_price_says_of_when_it_is() -> None:
    used = bill.total(bill.of_run(600, 200), bill.of_idle_month())
    assert used.keys() <= PRICES["services"].keys()
    for price in PRICES["services"].values():
        assert set(price) == {"service", "what", "usd", "per", "free", "as_of", "source"}
        assert price["as_of"] == "undated" or re.fullmatch(r"20\d\d(-\d\d)?", price["as_of"])


def test_a_bill_is_numbers_times_prices() -> None:
    lines = dict(bill.bill({"firestore_reads": 200_000, "firestore_writes": 100_000, "storage_writes": 1000}))
    assert lines["Firestore"] == pytest.approx(2 * 0.03 + 0.09)
    assert lines["Cloud Storage"] == pytest.approx(0.005)
    assert lines["Pub/Sub"] == 0


def test_a_longer_run_costs_more_and_its_services_hardly_more() -> None:
    def services(seconds: float) -> float:
        return sum(line.usd for line in bill.bill(bill.of_run(seconds, 200)))

    assert services(600) < services(3600) < 1.2 * services(600)


def test_checkpoints_are_counted_as_often_as_they_are_made() -> None:
    assert Settings.model_fields["checkpoint_every_s"].default == bill.CHECKPOINT_EVERY_S


def test_functions_are_billed_for_the_machines_that_terraform_asks_for() -> None:
    text = (ROOT / "terraform" / "functions.tf").read_text("utf-8")
    for name in ("intake", "reconcile"):
        size = re.search(rf"{name} += {{ cpu = (\d+), memory = \"(\d+)Gi\"", text)
        assert size is not None
        assert (int(size[1]), int(size[2])) == (bill._INSTANCE_VCPU, bill._INSTANCE_GIB)


def test_no_price_stands_anywhere_else_in_the_documents() -> None:
    """A second list would be forgotten when the first is renewed."""
    for path in (ROOT / "docs").glob("*.md"):
        if path.name != "prices.md":
            assert not re.findall(
                r"\$0\.\d+ (?:per|a|for) (?:100,000|1,000|million|GB|GiB|vCPU)", path.read_text("utf-8")
            )
    assert "| Firestore | documents read | 0.03 for 100,000 |" in prices()
