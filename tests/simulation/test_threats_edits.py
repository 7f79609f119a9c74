"""A run's document that somebody edited into what cannot be: other runs go on, and it is not trained twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from schemas import layout
from schemas.run import Run
from schemas.run_states import RunState
from tests.simulation.cloud import ARTIFACTS, DROPS, Cloud
from tests.simulation.scenario import GOOD, PLAIN
from tests.simulation.stage import Stage, installed
from tests.simulation.training import Nature
from tests.simulation.world import World

S = RunState
LONG_AGO, NEVER = World(0).began - timedelta(days=9000), World(0).began + timedelta(days=9000)
ANOTHER = "(another's)"
COUNTERS = ("epoch", "attempt", "deaths", "revision", "announced_revision")
TIMES = ("state_since", "updated_at", "heartbeat_at", "started_at")
ARTIFACT = {"version": 7, "staged": "other/bot/.staging/x/", "uri": None, "size_bytes": 1, "sha256": {"a": "0"}}
FOREIGN = {"step": 10**9, "object": "other/theirs/.checkpoints/x/e1-s1.safetensors", "saved_at": LONG_AGO}

ODD: dict[str, Any] = {"owner": {}, "execution": 7, "artifacts": {}, "dead_letters": [{"topic": "x"}], "folder": "a/b"}
EDITS: dict[str, dict[str, Any]] = {
    **{f"{name} of another kind": {name: ODD.get(name, ["x"])} for name in Run.model_fields if name not in {
        "tenant", "created_at", "revision", "sweep_at"  # the simulated Firestore compares like with like only
    }},
    **{f"no {name}": {name: None} for name in ("state", "manifest", "dataset", "source", "owner", "run_id")},
    **{f"state {state.value}": {"state": state.value} for state in RunState},
    **{f"{name} {value}": {name: value} for name in COUNTERS for value in (-5, 0, 99, 2**63 - 1)},
    **{f"{name} {value}": {name: value} for name in TIMES for value in ("2020-01-01T00:00:00", LONG_AGO, NEVER)},
    "state unknown": {"state": "BOGUS"},
    "state in small letters": {"state": "queued"},
    "owned by another": {"owner": {"execution": "another"}},
    "owned by a later task": {"owner": {"execution": "x1", "task_attempt": 99}},
    "owned while it waits": {"state": "QUEUED", "owner": {"execution": "x1"}, "execution": "x1", "epoch": 1},
    "started anew with an old epoch": {"state": "QUEUED", "epoch": 0},
    "on a GPU without an epoch": {"state": "TRAINING", "epoch": 0, "owner": None, "execution": None},
    "an execution that is gone": {"execution": "gone"},
    "an execution that is a path": {"execution": "../../x"},
    "another model": {"manifest": {"name": "bot", "base_model": "evil/model", "dataset": {"train": ["x.jsonl"]}}},
    "no files": {"dataset": {"files": []}},
    "a version": {"artifacts": ARTIFACT},
    "a version while it waits": {"artifacts": ARTIFACT, "state": "QUEUED"},
    "a version of another's": {"artifacts": ARTIFACT, "state": "EVALUATING"},
    **{f"cost {value}": {"cost_usd": value} for value in (-1e9, float("nan"), float("inf"), 1e9)},
    "another's id": {"run_id": ANOTHER},
    "an id that is a path": {"run_id": "a/b"},
    "a name that is a path": {"name": "../../other/theirs"},
    "another tenant": {"tenant": "other"},
    "no tenant": {"tenant": ""},
    "another's checkpoint": {"checkpoint": FOREIGN},
    "a document of its own": {"tenant": "acme", "anything": {"nested": [1, {"deep": None}]}},
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def stage() -> Iterator[None]:
    Stage.world = World(0)
    with installed():
        yield


class Played:
    """A run is edited when it comes to a state; two others, one of its tenant, were asked for a moment later."""

    def __init__(self, edit: dict[str, Any], when: str, *, whole: bool = False) -> None:
        world = Stage.world = World(0)
        self.cloud = cloud = Cloud.of(world, gpu_quota=1)
        self.raised: list[str] = []
        Stage.unexpected = lambda where, error: None
        for name in ("dispatch", "reconcile"):
            self._function(name).raised = lambda who, error: self.raised.append(
                f"{who}: {type(error).__name__} {error}"
            )
        self.victim = ""
        self.bystanders: list[str] = []
        self._edit, self._when, self._whole = edit, when, whole
        self._is_edited = False
        cloud.database.observers.append(lambda _: self._look())
        for at, folder in ((0.0, "acme/victim"), (20.0, "acme/mine"), (21.0, "other/theirs")):
            world.after(at, lambda folder=folder: self._copy(folder))
        world.play(self._is_over)
        world.end()

    def _raised(self, who: str, error: BaseException) -> None:
        self.raised.append(f"{who}: {type(error).__name__} {error}")

    def _function(self, name: str) -> Any:
        return next(one for one in self.cloud.topics.functions.values() if one.name == name)

    def _copy(self, folder: str) -> None:
        storage = self.cloud.storage
        storage.put(DROPS, f"{folder}/train.jsonl", GOOD[0].encode(), {}, None)
        manifest = storage.put(DROPS, f"{folder}/manifest.yaml", PLAIN[2].encode(), {}, None)
        tenant, name = folder.split("/")
        run_id = layout.run_id(tenant, name, DROPS, manifest.name, str(manifest.generation))
        self.cloud.trainers.natures[run_id] = Nature(steps=3, pace_s=30.0, saves=True, failing=0.0, refuses=False)
        if folder == "acme/victim":
            self.victim = run_id
        else:
            self.bystanders.append(run_id)

    def _look(self) -> None:
        if not self._is_edited and self.cloud.document("runs", self.victim).get("state") == self._when:
            self._is_edited = True
            later = 25.0 if ANOTHER in self._edit.values() else 1.0
            self.cloud.world.after(later, self._do_edit)

    def _do_edit(self) -> None:
        edit = {name: self.bystanders[0] if value == ANOTHER else value for name, value in self._edit.items()}
        reference = self.cloud.services.runs._documents.runs.document(self.victim)
        reference.set(edit) if self._whole else reference.update(edit)

    def _is_over(self) -> bool:
        states = {self.cloud.document("runs", run_id).get("state") for run_id in self.bystanders}
        done = len(self.bystanders) == 2 and states <= {state.value for state in S if state.is_final}
        return (done and self.cloud.world.time > 1800) or self.cloud.world.time > 4 * 3600

    def ended(self) -> list[str]:
        return [self.cloud.document("runs", run_id)["state"] for run_id in self.bystanders]

    def check(self) -> None:
        """The others went on, nothing broke that serves all, and there is one version of it at most."""
        assert self._is_edited
        assert self.ended() == ["SUCCEEDED", "SUCCEEDED"]
        assert self.raised == []
        claimed = Counter(claim["run_id"] for path, held in self.cloud.database.collections.items()
                          if path.endswith("/versions") for claim in held.values())  # fmt: skip
        assert claimed[self.victim] <= 1
        assert sum(run.run_id == self.victim for run in self.cloud.jobs.executions.values()) <= 12
        strange = [name for name in self.cloud.storage.present.get(ARTIFACTS, {}) if ".." in name.split("/")]
        assert strange == []


AT = [(edit, when) for edit in EDITS for when in ("QUEUED", "TRAINING")]
AFTER = [(edit, "SUCCEEDED") for edit in EDITS if edit.startswith(("state", "owned", "started", "on a GPU", "no "))]


@pytest.mark.parametrize(("edit", "when"), [*AT, *AFTER])
def test_a_document_that_cannot_be_harms_no_other_run_and_is_not_trained_twice(edit: str, when: str) -> None:
    Played(EDITS[edit], when, whole=edit == "a document of its own").check()
