from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adaptml.protocol import Fenced
from schemas.run import Metrics, Owner
from schemas.run_states import RunState
from tests.training import Desk
from trainer import attempt as attempts
from trainer import meanwhile as waiting
from trainer.attempt import Attempt, Stopped
from trainer.meanwhile import meanwhile

WITHIN_S = 60.0


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks and reports as often as it can."""
    monkeypatch.setattr(waiting, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(attempts, "pause_between_reports", lambda _: 0.0)


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """Ends uploads that nobody waits for any more."""
    event = threading.Event()
    yield event
    event.set()


def evaluated(desk: Desk) -> Attempt:
    attempt = desk.begin()
    attempt.enter(RunState.TRAINING, "")
    attempt.enter(RunState.EVALUATING, "")
    return attempt


def commit(attempt: Attempt, folder: Path) -> None:
    (folder / "SHA256SUMS").write_text("")
    attempt.commit(folder, {"SHA256SUMS": ""}, Metrics())


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_slow_upload_keeps_the_heartbeat(tmp_path: Path) -> None:
    desk = Desk()
    attempt = evaluated(desk)
    seen = set()

    def has_beaten() -> bool:
        seen.add(desk.run.heartbeat_at)
        return len(seen) > 3

    desk.bucket.before_upload = lambda _: wait_for(has_beaten)
    commit(attempt, tmp_path)
    assert desk.run.state is RunState.SUCCEEDED


def test_a_fenced_attempt_does_not_wait_for_its_upload(tmp_path: Path, released: threading.Event) -> None:
    desk = Desk()
    attempt = evaluated(desk)

    def lose(_: str) -> None:
        desk.document.run = desk.run.model_copy(update={"owner": Owner(execution="another")})
        released.wait(WITHIN_S)

    desk.bucket.before_upload = lose
    with pytest.raises(Fenced):
        commit(attempt, tmp_path)
    assert not released.is_set()
    assert desk.run.artifacts is None
    assert not desk.bucket.objects.keys() - {"train.jsonl"}


def test_a_cancelled_attempt_does_not_wait_either(tmp_path: Path, released: threading.Event) -> None:
    desk = Desk()
    attempt = evaluated(desk)

    def cancel(_: str) -> None:
        desk.document.run = desk.run.model_copy(update={"cancel_requested": True})
        released.wait(WITHIN_S)

    desk.bucket.before_upload = cancel
    with pytest.raises(Stopped):
        commit(attempt, tmp_path)
    assert desk.run.state is RunState.CANCELLED


@pytest.mark.parametrize("error", [OSError("gone"), KeyboardInterrupt()])
def test_what_the_work_raises_is_raised(error: BaseException) -> None:
    def work() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        meanwhile(work, lambda: None)
    assert raised.value is error


def test_work_that_is_quick_is_not_asked_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "LOOK_EVERY_S", WITHIN_S)
    done: list[str] = []
    meanwhile(lambda: done.append("work"), lambda: done.append("alive"))
    assert done == ["work"]


def test_the_work_does_not_keep_the_process(released: threading.Event) -> None:
    def stop() -> None:
        raise Stopped("told to")

    with pytest.raises(Stopped):
        meanwhile(lambda: released.wait(WITHIN_S) and None, stop)  # type: ignore[arg-type]
    assert [one.daemon for one in threading.enumerate() if one.name == "meanwhile"] == [True]
