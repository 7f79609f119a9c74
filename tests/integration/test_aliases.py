"""Aliases of adapters, moved by files beside the drop."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from adaptml import adapters
from adaptml.adapters import Shown
from functions import promotions
from schemas import layout
from schemas.layout import DropPath
from schemas.run_states import RunState
from tests.cloud import ARTIFACTS, DROPS, TestCloud, chat_rows, eventually, manifest

S = RunState


def trained(cloud: TestCloud, folder: str, rows: int, **settings: Any) -> str:
    cloud.put(f"acme/{folder}/train.jsonl", chat_rows(rows))
    run_id = cloud.run_id("acme", folder, cloud.put(f"acme/{folder}/manifest.yaml", manifest(**settings)))
    assert cloud.wait(run_id, S.SUCCEEDED).state is S.SUCCEEDED
    return run_id


def answer(cloud: TestCloud, folder: str, generation: int) -> dict[str, Any]:
    """What ALIASES.json beside the drop answers to one file."""

    def read() -> dict[str, Any] | None:
        text = cloud.read(f"acme/{folder}/{layout.ALIASES}")
        said: dict[str, Any] = json.loads(text) if text else {}
        return said if said.get("answers", {}).get("generation") == generation else None

    return eventually(read)


def shown(cloud: TestCloud, name: str) -> Shown:
    return adapters.show(cloud.services, "acme", name)


def test_an_alias_is_moved_by_files_and_back(cloud: TestCloud) -> None:
    trained(cloud, "promoted", 12)
    trained(cloud, "promoted", 13)
    first = answer(cloud, "promoted", cloud.put("acme/promoted/PROMOTE", "prod v1\n"))
    assert (first["aliases"], first["latest"]) == ({"prod": "v1"}, "v2")
    assert first["answers"]["refused"] is None
    newest = cloud.put("acme/promoted/PROMOTE", "\n")
    assert answer(cloud, "promoted", newest)["aliases"] == {"prod": "v2"}
    back = answer(cloud, "promoted", cloud.put("acme/promoted/ROLLBACK", ""))
    assert back["aliases"] == {"prod": "v1"}
    further = answer(cloud, "promoted", cloud.put("acme/promoted/ROLLBACK", ""))
    assert further["answers"]["refused"]["code"] == "nothing_to_roll_back"

    served = json.loads(cloud.read(f"acme/promoted/{layout.ALIASES}", ARTIFACTS) or "")
    assert served["adapter"]["aliases"] == {"prod": 1}
    assert [(move["action"], move["to_version"]) for move in served["moves"]] == [
        ("promote", 1), ("promote", 2), ("roll_back", 1),
    ]  # fmt: skip
    assert shown(cloud, "promoted").version("latest").version.version == 2


def test_a_version_that_missed_its_gate_is_promoted_by_nobody(cloud: TestCloud) -> None:
    trained(cloud, "gated", 12, evaluation={"max_eval_loss": 0.0001})
    said = answer(cloud, "gated", cloud.put("acme/gated/PROMOTE", "v1"))
    assert said["answers"]["refused"]["code"] == "not_promotable"
    assert (said["aliases"], said["latest"]) == ({}, None)


def test_a_folder_without_an_adapter_says_so(cloud: TestCloud) -> None:
    said = answer(cloud, "nothing", cloud.put("acme/nothing/PROMOTE", ""))
    assert said["answers"]["refused"]["code"] == "unknown_adapter"


def test_events_that_come_twice_late_or_in_no_order_move_an_alias_once(cloud: TestCloud) -> None:
    for rows in (12, 13, 14):
        trained(cloud, "often", rows)
    path = DropPath(DROPS, "acme", "often", "PROMOTE")

    def landed(content: str) -> Callable[[], None]:
        generation = cloud.put("acme/often/PROMOTE", content)
        answer(cloud, "often", generation)
        pinned = cloud.services.objects.pin(DROPS, "acme/often/PROMOTE")
        assert pinned is not None
        return lambda: promotions.take(cloud.services, path, generation, pinned.created_at)

    one, two = landed("v1"), landed("v2")
    for event in (one, two, one, two, one):
        event()
    found = shown(cloud, "often")
    assert found.adapter.aliases == {"prod": 2}
    assert len(found.moves) == 2
    # A rollback that was asked for between the two, and whose event comes only now.
    rolled = DropPath(DROPS, "acme", "often", "ROLLBACK")
    with cloud.frozen("intake"):
        generation = cloud.put("acme/often/ROLLBACK", "")
        between = found.moves[-1].asked_at - timedelta(microseconds=1)
        promotions.take(cloud.services, rolled, generation, between)
        assert shown(cloud, "often").adapter.aliases == {"prod": 2}
