from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from adaptml.objects import PinnedObject
from adaptml.quota import at_least_spent
from adaptml.rebuild import _begun, _claim, _with_epoch, history, pins_of, with_version
from adaptml.runs.outbox import audit_event
from adaptml.runs.versions import VersionClaim
from schemas.ledger import Account, Month
from schemas.manifest import Evaluation
from schemas.run import Artifacts, AuditEntry, DataFile, DatasetSummary, Metrics, Run, Source
from schemas.run_states import RunState
from tests.unit.test_protocol import MANIFEST, ME, run

S = RunState
NOV = datetime(2026, 11, 30, 23, 50, tzinfo=UTC)
DEC = NOV + timedelta(hours=1)


def trail(*steps: tuple[RunState, datetime, dict[str, Any]]) -> list[AuditEntry]:
    """A run's way; each step is a state, its time and what else changed."""
    entries: list[AuditEntry] = []
    before: Run | None = None
    for revision, (state, at, fields) in enumerate(steps, start=1):
        base = before or run(state, created_at=at)
        moved = {"state": state, "revision": revision, "updated_at": at, "state_since": at, "outbox_pending": True}
        after = base.model_copy(update=moved | fields)
        entries.append(AuditEntry(event=audit_event(before, after), run=after))
        before = after
    return entries


TRAINED = trail(
    (S.RECEIVED, NOV, {}),
    (S.VALIDATING, NOV, {}),
    (S.QUEUED, NOV, {}),
    (S.STARTING, NOV, {"epoch": 1}),
    (S.TRAINING, NOV, {"owner": ME, "started_at": NOV}),
    (S.QUEUED, DEC, {"cost_usd": 0.25}),
    (S.STARTING, DEC, {"epoch": 2}),
    (S.TRAINING, DEC, {"owner": ME, "started_at": DEC}),
    (S.FAILED, DEC, {"cost_usd": 0.75}),
)


def test_a_run_is_as_it_was_at_its_last_change_and_needs_no_announcement() -> None:
    found = history(list(reversed(TRAINED)))
    assert found is not None
    assert found.run.state is S.FAILED
    assert [event.revision for event in found.events] == list(range(1, 10))
    assert (found.run.outbox_pending, found.run.announced_revision) == (False, 9)


def test_an_attempt_is_paid_for_in_the_month_in_which_it_took_its_gpu() -> None:
    found = history(TRAINED)
    assert found is not None
    assert found.spent_usd == {"2026-11": 0.25, "2026-12": 0.5}


def test_entries_without_a_run_are_events_only() -> None:
    without = [entry.model_copy(update={"run": None}) for entry in TRAINED]
    holed = [TRAINED[0], *without[1:4], TRAINED[4], *without[5:8], TRAINED[8]]
    found = history(holed)
    assert found is not None
    assert found.run.state is S.FAILED
    assert len(found.events) == 9
    assert sum(found.spent_usd.values()) == pytest.approx(0.75)
    assert history(without) is None


def test_what_comes_after_the_last_known_run_is_left_to_be_done_again() -> None:
    cut = [*TRAINED[:5], TRAINED[5].model_copy(update={"run": None})]
    found = history(cut)
    assert found is not None
    assert found.run.state is S.TRAINING
    assert [event.revision for event in found.events] == [1, 2, 3, 4, 5]


PUBLISHED = Artifacts(version=3, staged="s/", uri="gs://b/acme/bot/v3/", size_bytes=1, sha256={"SHA256SUMS": "x"})


@pytest.mark.parametrize("length", [3, 4, 5])
def test_a_run_whose_version_is_whole_has_succeeded(length: int) -> None:
    found = history(TRAINED[:length])
    assert found is not None
    done = with_version(found, PUBLISHED, Metrics(train_loss=1.0), NOV + timedelta(minutes=5))
    assert done.run.state is S.SUCCEEDED
    assert done.run.artifacts == PUBLISHED
    assert done.run.finished_at == NOV + timedelta(minutes=5)
    assert [event.revision for event in done.events] == list(range(1, done.run.revision + 1))
    assert done.run.outbox_pending
    assert done.run.announced_revision == length


def test_what_the_last_attempt_took_is_paid_for_until_its_version_was_there() -> None:
    found = history(TRAINED[:5])
    assert found is not None
    done = with_version(found, PUBLISHED, Metrics(), NOV + timedelta(minutes=5))
    assert 0 < done.run.cost_usd < 0.2
    assert done.spent_usd == {"2026-11": done.run.cost_usd}


def test_a_run_that_is_uploaded_whole_is_committed_and_left_to_be_finished() -> None:
    found = history(TRAINED[:5])
    assert found is not None
    staged = PUBLISHED.model_copy(update={"uri": None})
    done = with_version(found, staged, Metrics(), None)
    assert done.run.state is S.EVALUATING
    assert done.run.artifacts == staged
    assert done.run.cost_usd == 0


@pytest.mark.parametrize(("after", "promotable"), [(0.9, True), (1.1, False)])
def test_the_gate_is_asked_again(after: float, promotable: bool) -> None:
    found = history(TRAINED[:5])
    assert found is not None
    assert found.run.manifest is not None
    strict = found.run.manifest.model_copy(update={"evaluation": Evaluation(max_eval_loss=1.0)})
    gated = replace(found, run=found.run.model_copy(update={"manifest": strict}))
    metrics = Metrics(eval_loss_before=2.0, eval_loss_after=after)
    done = with_version(gated, PUBLISHED, metrics, NOV + timedelta(minutes=5))
    assert done.run.artifacts is not None
    assert done.run.artifacts.promotable is promotable


def test_a_versions_own_provenance_says_whether_it_may_be_promoted() -> None:
    assert _claim({"run_id": "r", "promotable": True, "promotable_reason": ""}, NOV) == VersionClaim("r", NOV)
    assert _claim({"run_id": "r", "promotable_reason": "missed"}, NOV) == VersionClaim("r", NOV, False, "missed")
    assert _claim({"run_id": "r"}, NOV) == VersionClaim("r", NOV)
    assert _claim({}, NOV) is None


def test_an_epoch_that_cloud_run_knows_is_not_given_again() -> None:
    open_, ended = history(TRAINED[:5]), history(TRAINED)
    assert open_ is not None
    assert ended is not None
    assert _with_epoch(open_, 4).run.epoch == 4
    assert _with_epoch(open_, 0).run.epoch == 1
    assert _with_epoch(ended, 4) == ended


def file(name: str, generation: int) -> DataFile:
    return DataFile(name=name, object=name, generation=generation, size=1, crc32c="", role="train")


def dropped(run_id: str, minute: int, *files: DataFile, **fields: Any) -> Run:
    at = NOV + timedelta(minutes=minute)
    base: dict[str, Any] = {
        "run_id": run_id, "created_at": at, "manifest": MANIFEST, "folder": "bot",
        "dataset": DatasetSummary(files=list(files)),
    }  # fmt: skip
    return run(S.QUEUED).model_copy(update=base | fields)


def test_a_folder_has_the_pins_of_its_last_drop_that_had_all_its_data() -> None:
    first, second = dropped("r1", 0, file("a", 1)), dropped("r2", 1, file("a", 2))
    waiting = dropped("r3", 2, file("a", 3), state=S.AWAITING_DATA)
    partial = dropped("r4", 3)
    resumed = dropped("r5", 4, file("a", 1), source=Source(bucket="b", publisher="resume"))
    pins = pins_of([resumed, partial, second, waiting, first])
    assert pins.keys() == {("t", "bot")}
    assert (pins["t", "bot"].run_id, pins["t", "bot"].generations) == ("r2", {"a": 2})


def test_spending_is_raised_and_never_lowered() -> None:
    account = Account(tenant="t", months={"2026-11": Month(spent_usd=2.0, reserved_usd=1.0)})
    after = at_least_spent(account, {"2026-11": 1.0, "2026-12": 3.0})
    assert after.months == {"2026-11": Month(spent_usd=2.0, reserved_usd=1.0), "2026-12": Month(spent_usd=3.0)}
    assert at_least_spent(after, {"2026-12": 3.0}) == after


def objects(**content: str) -> dict[str, PinnedObject]:
    return {name: PinnedObject("b", name, 1, 1, crc, NOV) for name, crc in content.items()}


@pytest.mark.parametrize(
    ("versions", "claim", "begun"),
    [
        ({}, None, None),
        ({2: objects(README="r")}, None, 2),
        ({2: objects(README="other")}, None, None),
        ({2: objects(README="r", SHA256SUMS="s")}, None, None),
        ({2: objects(README="r")}, "somebody-else", None),
        ({2: objects(README="r")}, "me", 2),
    ],
)
def test_a_copy_that_was_begun_is_known_by_its_content(
    versions: dict[int, Any], claim: str | None, begun: int | None
) -> None:
    claims = {2: VersionClaim(claim, NOV) if claim else None}
    assert _begun("me", versions, claims, objects(README="r", SHA256SUMS="s")) == begun
