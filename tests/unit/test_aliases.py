from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptml import aliases
from adaptml.aliases import Asked, Numbered
from functions.promotions import words
from schemas.adapter import Action, Adapter, Move, is_alias, version_number
from schemas.errors import Refused
from schemas.layout import PROMOTE, ROLLBACK
from schemas.run import Artifacts, Version
from schemas.run_states import RunState
from tests.unit.test_protocol import run

NOW = datetime(2026, 11, 25, tzinfo=UTC)


def numbered(number: int, *, promotable: bool = True, readable: bool = True) -> Numbered:
    uri = f"gs://artifacts/acme/bot/v{number}/" if readable else None
    artifacts = Artifacts(version=number, staged="t/bot/.staging/r/e1t0/", uri=uri, size_bytes=1, sha256={})
    of = run(RunState.SUCCEEDED if readable else RunState.EVALUATING, artifacts=artifacts)
    reason = "" if promotable else "held-out loss rose"
    version = Version(version=number, run_id=of.run_id, claimed_at=NOW, promotable=promotable, promotable_reason=reason)
    return Numbered(version, of)


VERSIONS = [numbered(1), numbered(2), numbered(3, promotable=False), numbered(4, readable=False)]


def asked(action: Action = "promote", version: int | None = None, alias: str = "prod", minute: int = 0) -> Asked:
    return Asked(f"{action}-{alias}-{minute}", alias, action, version, NOW + timedelta(minutes=minute), "a test")


class Registry:
    """What `AdapterStore.move` does, without Firestore."""

    def __init__(self, versions: Sequence[Numbered] = VERSIONS) -> None:
        self.adapter = Adapter(tenant="acme", name="bot", last_version=len(versions))
        self.versions = versions
        self.moves: list[Move] = []

    def move(self, wish: Asked) -> Move | None:
        move = aliases.moved(self.adapter, self.versions, self.moves, wish, NOW)
        if move is not None:
            pointing = self.adapter.aliases | {move.alias: move.to_version}
            self.adapter = self.adapter.model_copy(update={"aliases": pointing, "alias_revision": move.revision})
            self.moves.append(move)
        return move


def refused(of: Registry, wish: Asked) -> str:
    with pytest.raises(Refused) as raised:
        of.move(wish)
    return raised.value.problems[0].code


def test_an_alias_is_promoted_rolled_back_and_promoted_again() -> None:
    registry = Registry()
    registry.move(asked(version=1, minute=0))
    registry.move(asked(version=2, minute=1))
    back = registry.move(asked("roll_back", minute=2))
    assert back is not None
    assert (back.from_version, back.to_version, back.revision) == (2, 1, 3)
    assert registry.adapter.aliases == {"prod": 1}
    assert refused(registry, asked("roll_back", minute=3)) == "nothing_to_roll_back"
    registry.move(asked(version=2, minute=4))
    assert registry.adapter.aliases == {"prod": 2}


def test_without_a_version_the_newest_that_may_be_is_promoted() -> None:
    registry = Registry()
    registry.move(asked())
    assert registry.adapter.aliases == {"prod": 2}
    assert aliases.latest(VERSIONS) == 2


@pytest.mark.parametrize(
    ("wish", "code"),
    [
        (asked(version=3), "not_promotable"),
        (asked(version=4), "version_not_ready"),
        (asked(version=9), "unknown_version"),
        (asked(version=1, alias="latest"), "bad_alias"),
        (asked(version=1, alias="v2"), "bad_alias"),
        (asked(version=1, alias="Prod\n"), "bad_alias"),
        (asked("roll_back"), "nothing_to_roll_back"),
    ],
)
def test_what_may_not_be_is_refused_with_its_code(wish: Asked, code: str) -> None:
    registry = Registry()
    assert refused(registry, wish) == code
    assert registry.adapter.aliases == {}


def test_where_no_version_may_be_promoted_that_is_said() -> None:
    assert refused(Registry([numbered(1, promotable=False)]), asked()) == "not_promotable"


def test_what_was_asked_for_earlier_and_comes_later_does_nothing() -> None:
    registry = Registry()
    registry.move(asked(version=2, minute=5))
    assert registry.move(asked(version=1, minute=4)) is None
    assert registry.move(asked("roll_back", minute=4)) is None
    assert registry.move(asked(version=1, alias="canary", minute=4)) is not None
    assert registry.adapter.aliases == {"prod": 2, "canary": 1}


def test_where_it_points_already_an_alias_is_not_moved() -> None:
    registry = Registry()
    registry.move(asked(version=2))
    assert registry.move(asked(version=2, minute=1)) is None
    assert len(registry.moves) == 1


@pytest.mark.parametrize(("named", "number"), [("v1", 1), ("2", 2), ("latest", 2), ("prod", 1)])
def test_a_version_is_found_by_number_and_by_alias(named: str, number: int) -> None:
    registry = Registry()
    registry.move(asked(version=1))
    assert aliases.resolved(registry.adapter, VERSIONS, named) == number


@pytest.mark.parametrize("named", ["v9", "canary", "", "v0", "../v1"])
def test_what_names_no_version_says_which_there_are(named: str) -> None:
    with pytest.raises(Refused) as raised:
        aliases.resolved(Registry().adapter, VERSIONS, named)
    assert raised.value.problems[0].code == "unknown_version"
    assert "v1, v2, v3, v4" in raised.value.problems[0].hint


STEPS = st.lists(
    st.tuples(st.sampled_from(["prod", "canary"]), st.sampled_from([None, 1, 2, 3, 4, "back"])), max_size=20
)


@given(STEPS)
def test_whatever_is_asked_for_an_alias_points_at_what_passed_and_can_be_read(steps: list[tuple[str, Any]]) -> None:
    registry = Registry()
    for minute, (alias, version) in enumerate(steps):
        before = dict(registry.adapter.aliases)
        try:
            if version == "back":
                registry.move(asked("roll_back", alias=alias, minute=minute))
            else:
                registry.move(asked(version=version, alias=alias, minute=minute))
        except Refused:
            assert registry.adapter.aliases == before
        assert set(registry.adapter.aliases.values()) <= {1, 2}
        for name, number in registry.adapter.aliases.items():
            assert aliases.been(registry.moves, name)[-1] == number
    assert [move.revision for move in registry.moves] == list(range(1, len(registry.moves) + 1))


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        (PROMOTE, b"", ("prod", None)),
        (PROMOTE, b"\n", ("prod", None)),
        (PROMOTE, b"canary", ("canary", None)),
        (PROMOTE, b"v3", ("prod", 3)),
        (PROMOTE, b" canary  v3 \r\n", ("canary", 3)),
        (PROMOTE, b"3 canary", ("canary", 3)),
        (ROLLBACK, b"", ("prod", None)),
        (ROLLBACK, b"canary\n", ("canary", None)),
    ],
)
def test_what_a_file_says(file: str, text: bytes, said: tuple[str, int | None]) -> None:
    assert words(file, text) == said


@pytest.mark.parametrize(
    ("file", "text"), [(PROMOTE, b"prod canary"), (PROMOTE, b"v1 v2"), (ROLLBACK, b"prod v1"), (PROMOTE, b" " * 300)]
)
def test_what_a_file_cannot_say(file: str, text: bytes) -> None:
    with pytest.raises(Refused) as raised:
        words(file, text)
    assert raised.value.problems[0].code == "bad_alias_command"


@given(st.binary(max_size=250))
def test_no_content_of_a_file_is_more_than_refused(text: bytes) -> None:
    try:
        alias, version = words(PROMOTE, text)
    except Refused:
        return
    assert version is None or version > 0
    assert is_alias(alias) or alias.isprintable() or refused(Registry(), asked(alias=alias)) == "bad_alias"


@given(st.text(max_size=40))
def test_no_alias_is_taken_for_a_version(text: str) -> None:
    assert not (is_alias(text) and version_number(text) is not None)
