"""What users, other systems, operators and machines do in one schedule."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from schemas import layout
from schemas.layout import run_id as run_id_of  # as it is, also where a mutation changes it in the product
from schemas.messages import RunCommand, RunRequest
from schemas.run_states import RunState
from tests.simulation import cloud_run, pubsub
from tests.simulation.cloud import DROPS, Cloud
from tests.simulation.world import Faults, World

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
TENANTS = ("acme", "beta", "cargo", "delta")
RUNS = 20
ASKED_WITHIN_S = 1200.0
FAULTS_END_S = 2400.0


def _rows(count: int, mark: str) -> str:
    turns = [{"role": "user", "content": f"Question {mark}?"}, {"role": "assistant", "content": f"Answer {mark}."}]
    return "".join(json.dumps({"id": i, "messages": turns}) + "\n" for i in range(count))


GOOD = [_rows(count, mark) for count in (1, 2, 3) for mark in "abc"]
HELD_OUT = _rows(1, "held out")
BAD = ['{"messages": []}\n', "no json\n", '{"messages": [{"role": "user", "content": ""}]}\n']


def _manifest(**settings: Any) -> str:
    return json.dumps({"base_model": MODEL, "dataset": {"train": ["train.jsonl"]}} | settings)


PLAIN = [
    _manifest(),
    _manifest(compute={"max_attempts": 1}),
    _manifest(compute={"max_attempts": 2}),
    _manifest(compute={"timeout": "90s"}),
    _manifest(compute={"timeout": "120s", "max_attempts": 2}),
    _manifest(name="shared"),
    _manifest(name="shared", compute={"max_attempts": 2}),
]
DRY = [_manifest(dry_run=True)]
TWO_FILES = [_manifest(dataset={"train": ["train.jsonl"], "validation": ["val.jsonl"]})]
UNREADABLE = ["base_model: [", "[]", _manifest(lora={"rank_of": 3}), _manifest(base_model="nobody/nothing"), ""]
COSTLY = [_manifest(compute={"max_cost_usd": 0.02, "max_attempts": 5})]


@dataclass
class Asked:
    """What was asked for, for the checks at the end."""

    drops: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Run id of each generation of each manifest → object and generation."""
    requests: dict[str, str] = field(default_factory=dict)
    resumes: set[str] = field(default_factory=set)
    """Run ids of RESUME files and commands; not each comes to be a run."""
    cancelled: set[object] = field(default_factory=set)
    """Run ids, and folders as (tenant, folder), that somebody cancelled who may."""
    doomed: set[str] = field(default_factory=set)
    """Runs that cannot succeed: what was asked for is wrong."""


class Scenario:
    """Draws a schedule's events and puts them on the agenda."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.world: World = cloud.world
        self.asked = Asked()
        self._dice = self.world.random
        self._folders = 0
        self._requests = 0
        self._tenants = TENANTS[: self._dice.randint(2, len(TENANTS))]

    def begin(self) -> None:
        """Everything that will happen, the end of the faults included."""
        self._set_faults()
        self._set_limits()
        left = RUNS
        while left > 0:
            left -= self._ask(self._dice.uniform(0, ASKED_WITHIN_S), left)
        for _ in range(self._dice.randint(0, 4)):
            self._at(self._dice.uniform(0, FAULTS_END_S), self._cancel_any)
        for _ in range(self._dice.randint(0, 3)):
            self._at(self._dice.uniform(300, FAULTS_END_S), self._resume_any)
        if self._dice.random() < 0.3:
            self._at(self._dice.uniform(0, FAULTS_END_S), self._change_quota)
        self._at(FAULTS_END_S, self._end_faults)

    # Machines

    def _set_faults(self) -> None:
        dice, world, cloud = self._dice, self.world, self.cloud
        severity = dice.choice((0.0, 0.3, 1.0, 1.0, 2.0))
        world.began = world.began.replace(hour=dice.choice((20, 21, 22, 23)), minute=dice.randint(0, 59))
        world.faults = Faults(
            crash=severity * dice.choice((0.0, 0.004, 0.012)),
            refuse=severity * dice.choice((0.0, 0.002, 0.008)),
            lose=severity * dice.choice((0.0, 0.002, 0.008)),
            slow=severity * dice.choice((0.0, 0.01, 0.03)),
            stall=severity * dice.choice((0.0, 0.001, 0.004)),
        )
        cloud.database.contended = severity * dice.choice((0.0, 0.0, 0.01))
        cloud.database.outlived = dice.choice((0.0, 0.3))
        cloud.topics.hazards = pubsub.Hazards(
            duplicated=severity * dice.choice((0.0, 0.1, 0.4)), late=severity * dice.choice((0.0, 0.05, 0.2))
        )
        cloud.event_hazards = pubsub.Hazards(
            duplicated=severity * dice.choice((0.0, 0.1, 0.4)),
            late=severity * dice.choice((0.0, 0.05, 0.2)),
            lost=severity * dice.choice((0.0, 0.05, 0.2)),
        )
        cloud.jobs.hazards = cloud_run.Hazards(
            slow_start=dice.choice((0.0, 0.1, 0.5)),
            die_in_start=severity * dice.choice((0.0, 0.05, 0.2)),
            told_to_go=severity * dice.choice((0.0, 0.1, 0.3)),
            told_late=severity * dice.choice((0.0, 0.1, 0.3)),
            listed_late=severity * dice.choice((0.0, 0.1, 0.3)),
            ends_told=dice.choice((0.0, 0.7, 1.0)),
            denied=severity * dice.choice((0.0, 0.0, 0.01)),
            unanswered=severity * dice.choice((0.0, 0.0, 0.1)),
            forgotten=severity * dice.choice((0.0, 0.0, 0.1)),
            task_retries=dice.choice((0, 0, 0, 1)),
        )
        cloud.topics.functions["reconcile"].is_serial = dice.random() < 0.8

    def _end_faults(self) -> None:
        cloud = self.cloud
        self.world.faults = Faults()
        cloud.database.contended = 0.0
        cloud.topics.hazards = cloud.event_hazards = pubsub.Hazards()
        cloud.jobs.hazards = cloud_run.Hazards()
        self.world.note("", "the faults end")

    # Operators

    def _set_limits(self) -> None:
        dice = self._dice
        for tenant in self._tenants:
            limits: dict[str, Any] = {}
            if dice.random() < 0.4:
                limits["max_running"] = dice.randint(1, 2)
            if dice.random() < 0.2:
                limits["max_queued"] = dice.randint(1, 4)
            if dice.random() < 0.4:
                limits["monthly_budget_usd"] = round(dice.uniform(0.005, 0.15), 4)
                limits["over_budget"] = dice.choice(("wait", "fail"))
            if limits:
                self.cloud.services.runs._documents.client.collection("tenants").document(tenant).set(
                    {"tenant": tenant, "limits": limits}
                )

    def _change_quota(self) -> None:
        pool = self.cloud.services.runs._documents.client.collection("pools").document("nvidia-l4")
        quota = {"quota": self._dice.randint(1, 3)}
        self.world.note("operator", "sets the quota", str(quota))
        if self.cloud.document("pools", "nvidia-l4"):
            pool.update(quota)
        else:
            pool.set(quota)

    # Users

    def _ask(self, at_s: float, left: int) -> int:
        """Asks for a few runs from one moment on; returns for how many."""
        kinds: list[tuple[float, Callable[[float, int], int]]] = [
            (8, self._drop),
            (3, self._drop_again),
            (1.5, self._drop_without_data),
            (1, self._drop_bad_data),
            (1, self._drop_unreadable),
            (1, self._dry),
            (2, self._request_by_text),
            (1, self._request_by_uri),
            (0.7, self._request_of_another),
        ]
        kind = self._dice.choices([ask for _, ask in kinds], [weight for weight, _ in kinds])[0]
        return kind(at_s, left)

    def _drop(self, at_s: float, _left: int) -> int:
        text = self._dice.choice((*PLAIN, *TWO_FILES, *COSTLY))
        self._copy(self._folder(), at_s, text, self._dice.choice(GOOD))
        return 1

    def _drop_again(self, at_s: float, left: int) -> int:
        """The same folder copied several times, with other data or the same."""
        folder, times = self._folder(), min(left, self._dice.randint(2, 3))
        for _ in range(times):
            self._copy(folder, at_s, self._dice.choice(PLAIN), self._dice.choice((*GOOD, None)))
            at_s += self._dice.choice((1.0, 20.0, 60.0, 300.0)) * self._dice.random()
        return times

    def _drop_without_data(self, at_s: float, _left: int) -> int:
        """Its data comes too late, or never."""
        folder = self._folder()
        self._at(at_s, lambda: self._put_manifest(folder, self._dice.choice(PLAIN)))
        if self._dice.random() < 0.5:
            data = self._dice.choice(GOOD)
            self._at(at_s + 800 + 200 * self._dice.random(), lambda: self._put(folder, "train.jsonl", data))
        return 1

    def _drop_bad_data(self, at_s: float, _left: int) -> int:
        self._copy(self._folder(), at_s, self._dice.choice(PLAIN), self._dice.choice(BAD), is_doomed=True)
        return 1

    def _drop_unreadable(self, at_s: float, _left: int) -> int:
        self._copy(self._folder(), at_s, self._dice.choice(UNREADABLE), self._dice.choice(GOOD), is_doomed=True)
        return 1

    def _dry(self, at_s: float, _left: int) -> int:
        self._copy(self._folder(), at_s, DRY[0], self._dice.choice(GOOD), is_doomed=True)
        return 1

    def _request_by_text(self, at_s: float, _left: int) -> int:
        tenant, data = self._dice.choice(self._tenants), self._dice.choice(GOOD)
        folder = (tenant, f"given{self._number()}")
        text = json.dumps({"name": "asked", "base_model": MODEL})
        uris = [layout.uri(DROPS, f"{tenant}/{folder[1]}/train.jsonl")]
        self._at(at_s + 30 * self._dice.random(), lambda: self._put(folder, "train.jsonl", data))
        self._request(at_s, tenant, manifest=text, dataset_uris=uris)
        return 1

    def _request_by_uri(self, at_s: float, _left: int) -> int:
        """For a folder whose manifest also starts a run of its own."""
        folder = self._folder()
        self._copy(folder, at_s, self._dice.choice(PLAIN), self._dice.choice(GOOD))
        uri = layout.uri(DROPS, f"{folder[0]}/{folder[1]}/manifest.yaml")
        self._request(at_s + 100, folder[0], manifest_uri=uri)
        return 2

    def _request_of_another(self, at_s: float, _left: int) -> int:
        """One tenant asks for another one's data."""
        tenant, other = self._dice.sample(self._tenants, 2)
        folder = (other, f"secret{self._number()}")
        self._put_at(at_s, folder, "train.jsonl", self._dice.choice(GOOD))
        uris = [layout.uri(DROPS, f"{other}/{folder[1]}/train.jsonl")]
        text = json.dumps({"name": "stolen", "base_model": MODEL})
        self._request(at_s + 1, tenant, manifest=text, dataset_uris=uris, is_doomed=True)
        return 1

    def _request(
        self,
        at_s: float,
        tenant: str,
        *,
        manifest_uri: str = "",
        manifest: str = "",
        dataset_uris: list[str] | None = None,
        is_doomed: bool = False,
    ) -> None:
        self._requests += 1
        request = RunRequest(
            request_id=f"r{self._requests}",
            tenant=tenant,
            manifest_uri=manifest_uri,
            manifest=manifest,
            dataset_uris=dataset_uris or [],
        )
        run_id = run_id_of(tenant, request.request_id, "request", request.request_id)
        self.asked.requests[run_id] = request.request_id
        if is_doomed:
            self.asked.doomed.add(run_id)
        for _ in range(self._dice.choice((1, 1, 1, 2))):
            self._at(at_s + 60 * self._dice.random(), lambda: self.cloud.request(request))
        self._perhaps_cancelled(at_s, lambda: run_id, None)

    def _copy(
        self, folder: tuple[str, str], at_s: float, text: str, data: str | None, *, is_doomed: bool = False
    ) -> None:
        """A folder is copied: manifest and data in any order. Without data, only its manifest."""
        made: list[str] = []

        def put_manifest() -> None:
            made.append(self._put_manifest(folder, text))
            if is_doomed:
                self.asked.doomed.add(made[0])

        lag = self._dice.choice((0.5, 5.0, 25.0, 200.0))
        self._at(at_s + lag * self._dice.random(), put_manifest)
        for name in ("train.jsonl", "val.jsonl") if text in TWO_FILES else ("train.jsonl",):
            if data is not None:
                self._put_at(at_s + lag * self._dice.random(), folder, name, HELD_OUT if name == "val.jsonl" else data)
        self._perhaps_cancelled(at_s + lag, lambda: made[0] if made else None, folder)

    def _perhaps_cancelled(self, at_s: float, run_id: Callable[[], str | None], folder: tuple[str, str] | None) -> None:
        if self._dice.random() < 0.15:
            at_s += self._dice.choice((5.0, 100.0, 600.0)) * self._dice.random()
            self._at(at_s, lambda: self._cancel(run_id(), folder))
            if self._dice.random() < 0.5:
                self._at(at_s + 300 * self._dice.random(), lambda: self._resume(run_id(), folder))

    def _cancel_any(self) -> None:
        if (run := self._any_run(*(state.value for state in RunState if not state.is_final))) is not None:
            self._cancel(run["run_id"], (run["tenant"], run["folder"]) if run["folder"] else None)

    def _resume_any(self) -> None:
        if (run := self._any_run("CANCELLED", "FAILED")) is not None:
            self._resume(run["run_id"], (run["tenant"], run["folder"]) if run["folder"] else None)

    def _any_run(self, *states: str) -> dict[str, Any] | None:
        found = [run for run in self.cloud.database.documents("runs").values() if run["state"] in states]
        return self._dice.choice(found) if found else None

    def _cancel(self, run_id: str | None, folder: tuple[str, str] | None) -> None:
        """By file, by message, or by hand in the console."""
        run = self.cloud.document("runs", run_id) if run_id else None
        if run and self._dice.random() < 0.1:
            self._cancel_as_another(run)
            return
        self.asked.cancelled |= {run_id, folder}
        way = self._dice.choice(("file", "message", "console"))
        self.world.note("user", f"cancels by {way}", f"{run_id} {folder}")
        if way == "file" and folder is not None:
            self._put(folder, layout.CANCEL, "")
        elif run and way == "message":
            command = RunCommand(
                command_id=f"c{self._number()}", tenant=run["tenant"], run_id=run["run_id"], command="cancel"
            )
            self.cloud.command(command)
        elif run:
            self.cloud.services.runs._documents.client.collection("runs").document(run["run_id"]).update(
                {"cancel_requested": True}
            )

    def _cancel_as_another(self, run: dict[str, Any]) -> None:
        """Nobody ends the run of another tenant."""
        stranger = next(tenant for tenant in TENANTS if tenant != run["tenant"])
        self.world.note("user", "cancels as a stranger", run["run_id"])
        number = f"c{self._number()}"
        self.cloud.command(RunCommand(command_id=number, tenant=stranger, run_id=run["run_id"], command="cancel"))

    def _resume(self, run_id: str | None, folder: tuple[str, str] | None) -> None:
        run = self.cloud.document("runs", run_id) if run_id else None
        self.world.note("user", "resumes", f"{run_id} {folder}")
        if folder is not None and self._dice.random() < 0.6:
            generation = self._put(folder, layout.RESUME, "")
            identity = (DROPS, f"{folder[0]}/{folder[1]}/{layout.RESUME}", str(generation))
            self.asked.resumes.add(run_id_of(folder[0], folder[1], *identity))
        elif run:
            command_id = f"c{self._number()}"
            command = RunCommand(command_id=command_id, tenant=run["tenant"], run_id=run["run_id"], command="resume")
            label = run["folder"] or run["name"]
            self.asked.resumes.add(run_id_of(run["tenant"], label, "command", command_id))
            for _ in range(self._dice.choice((1, 1, 2))):
                self.cloud.command(command)

    def _folder(self) -> tuple[str, str]:
        return self._dice.choice(self._tenants), f"f{self._number()}"

    def _number(self) -> int:
        self._folders += 1
        return self._folders

    def _put(self, folder: tuple[str, str], file: str, body: str) -> int:
        name = f"{folder[0]}/{folder[1]}/{file}"
        self.world.note("user", "puts", name)
        return self.cloud.storage.put(DROPS, name, body.encode(), {}, None).generation

    def _put_at(self, at_s: float, folder: tuple[str, str], file: str, body: str) -> None:
        self._at(at_s, lambda: self._put(folder, file, body) and None)

    def _put_manifest(self, folder: tuple[str, str], text: str) -> str:
        generation = self._put(folder, "manifest.yaml", text)
        name = f"{folder[0]}/{folder[1]}/manifest.yaml"
        run_id = run_id_of(folder[0], folder[1], DROPS, name, str(generation))
        self.asked.drops[run_id] = (name, generation)
        return run_id

    def _at(self, at_s: float, do: Callable[[], Any]) -> None:
        self.world.after(max(0.0, at_s - self.world.time), do)
