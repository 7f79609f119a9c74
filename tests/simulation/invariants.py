"""What must hold: after each commit, at each object that is written, and in the end (docs/simulation.md)."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from typing import Any

from google.api_core.exceptions import GoogleAPICallError, RetryError

from adaptml.jobs import ExecutionState
from adaptml.publishing import CHECKSUMS
from schemas import layout
from schemas.run_states import TRANSITIONS, RunState
from tests.simulation import cloud_run, storage
from tests.simulation.cloud import ARTIFACTS, DROPS, Cloud
from tests.simulation.firestore import Stored, Written
from tests.simulation.scenario import FAULTS_END_S, Asked
from tests.simulation.training import SimulatedError

_VERSION = re.compile(r"([^/]+)/([^/]+)/v(\d+)/(.+)")
_LEFT = re.compile(r"([^/]+)/([^/]+)/\.(staging|checkpoints)/([^/]+)/.+")
OUTLIVES_EXECUTIONS_S = 4000
"""Longer than any execution lasts, and than what is on its way when it ends."""
_EXPECTED = (GoogleAPICallError, RetryError, TimeoutError, SimulatedError)
_CENT = 1e-4
_STATES = {state.value: state for state in RunState}
_ATTEMPTS = frozenset(state for state in RunState if state.is_attempt)
_FINAL = frozenset(state for state in RunState if state.is_final)
FAILURES = {
    "attempts_exhausted",
    "dispatch_exhausted",
    "over_budget",
    "cost_limit_reached",
    "job_start_refused",
    "nothing_to_train_on",
}


class Invariants:
    """Watches a cloud. The first thing that is wrong ends the play."""

    def __init__(self, cloud: Cloud, asked: Asked) -> None:
        self.cloud, self.world, self.asked = cloud, cloud.world, asked
        self.claims: dict[tuple[str, int], float] = {}
        """(run, epoch) → when it was claimed."""
        self.starts: dict[tuple[str, int], cloud_run.Run] = {}
        self.holding: dict[str, Stored] = {}
        """Runs that hold a GPU."""
        self.events: dict[str, list[Stored]] = defaultdict(list)
        self.versions: dict[tuple[str, int], str] = {}
        """(adapter, version) → run."""
        self.delivered: set[str] = set()
        """Objects of versions."""
        cloud.database.observers.append(self._committed)
        cloud.storage.touched.append(self._touched)
        cloud.storage.finalized.append(self._written)
        cloud.storage.deleted.append(self._deleted)
        cloud.jobs.started.append(self._started)

    def broken(self, what: str) -> None:
        """Ends the play."""
        if self.world.broken is None:
            self.world.note("INVARIANT", what)
            self.world.broken = f"{what}, at {self.world.time:.3f} s"

    def unexpected(self, where: str, error: BaseException) -> None:
        """The product raised something that no service raises."""
        if not isinstance(error, _EXPECTED):
            self.broken(f"{where}: {type(error).__name__}: {error}")

    # After each commit

    def _committed(self, writes: list[Written]) -> None:
        touches_ledger = False
        for written in writes:
            path = written.path
            if path == "runs":
                self._run_written(written)
                touches_ledger = True
            elif path == "pools":
                self._pool_written(written)
                touches_ledger = True
            elif path == "tenants":
                touches_ledger = True
            elif path.endswith("/events"):
                self._event_written(written)
            elif path.endswith("/versions"):
                self._version_written(written)
        if touches_ledger:
            self._check_slots()
            for written in writes:
                if written.path == "tenants":
                    self._check_reserved(written.after)

    def _run_written(self, written: Written) -> None:
        before, after, run_id = written.before, written.after, written.id
        state = _STATES[after["state"]]
        if state in _ATTEMPTS:
            self.holding[run_id] = after
        else:
            self.holding.pop(run_id, None)
        if before is None:
            if state is not RunState.RECEIVED or after["revision"] != 1:
                self.broken(f"{run_id} is created as {state}")
            return
        self._check_change(run_id, before, after, _STATES[before["state"]], state)
        self._check_writer(run_id, before, after)
        if after["deaths"] > after["manifest"]["compute"]["max_attempts"] if after["manifest"] else 0:
            self.broken(f"{run_id} has died more often than it may")

    def _check_change(self, run_id: str, before: Stored, after: Stored, left: RunState, entered: RunState) -> None:
        moved = after["revision"] - before["revision"]
        if moved not in (0, 1):
            self.broken(f"revisions of {run_id} jump from {before['revision']} to {after['revision']}")
        if moved and entered not in TRANSITIONS[left]:
            self.broken(f"{run_id} goes from {left} to {entered}")
        if not moved and left is not entered:
            self.broken(f"{run_id} goes from {left} to {entered} without an event")
        if left in _FINAL and any(before[name] != after[name] for name in ("state", "artifacts", "cost_usd", "epoch")):
            self.broken(f"{run_id} is changed after it ended {left}")
        if entered is RunState.STARTING and left is RunState.QUEUED:
            self._claimed(run_id, before, after)
        elif before["epoch"] != after["epoch"]:
            self.broken(f"{run_id} gets another epoch without a claim")
        if left in _ATTEMPTS and entered is RunState.QUEUED and before["owner"] and after["deaths"] == before["deaths"]:
            step = (after["checkpoint"] or {}).get("step", 0)
            if step <= (before["resumed_step"] or 0):
                self.broken(f"an attempt at {run_id} came to nothing and is not counted")
        if left is RunState.RECEIVED and entered is RunState.VALIDATING:
            self._check_taken_up(run_id, after)
        if before["dataset"] is not after["dataset"]:
            self._check_pins(run_id, before["dataset"]["files"], after["dataset"]["files"])
        if before["artifacts"] is not None:
            for name in ("version", "staged", "sha256"):
                if after["artifacts"] is None or before["artifacts"][name] != after["artifacts"][name]:
                    self.broken(f"{run_id} is committed twice")
        if entered is RunState.SUCCEEDED and left is not entered:
            self._check_whole(run_id, after)

    def _check_pins(self, run_id: str, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
        """What was pinned once is what is checked and trained on."""
        pins = {(file["role"], file["name"]): file["generation"] for file in after}
        for file in before:
            if pins.get((file["role"], file["name"])) != file["generation"]:
                self.broken(f"{run_id} loses the pinned generation of {file['name']}")

    def _claimed(self, run_id: str, before: Stored, after: Stored) -> None:
        if after["epoch"] != before["epoch"] + 1 or (run_id, after["epoch"]) in self.claims:
            self.broken(f"{run_id} is claimed twice under epoch {after['epoch']}")
        if before["cancel_requested"]:
            self.broken(f"{run_id} gets a GPU after it was cancelled")
        self.claims[run_id, after["epoch"]] = self.world.time
        self._check_called_off(run_id, after)

    def _check_called_off(self, run_id: str, run: Stored) -> None:
        """A file CANCEL is heeded, if not at once then after a sweep."""
        name = layout.drop_prefix(run["tenant"], run["folder"] or run["name"]) + layout.CANCEL
        held = self.cloud.storage.present[DROPS].get(name)
        if held is None or held.time_created < run["source"]["asked_at"] or self.world.time < FAULTS_END_S + 900:
            return
        if (self.world.now() - held.time_created).total_seconds() > 900:
            self.broken(f"{run_id} is started, and its folder has been called off since {held.time_created:%H:%M:%S}")

    def _check_writer(self, run_id: str, before: Stored, after: Stored) -> None:
        """Only the owner's own execution moves an attempt on."""
        owner, new = before["owner"], after["owner"]
        if new is not None and new != owner:
            run = self.cloud.jobs.executions.get(new["execution"])
            if run is None or (run.run_id, run.epoch) != (run_id, after["epoch"]):
                self.broken(f"{run_id} is owned by an execution of another dispatch")
            if owner is not None and (owner["execution"], owner["task_attempt"]) >= (
                new["execution"],
                new["task_attempt"],
            ):
                self.broken(f"{run_id} is taken from {owner} by {new}")
        writer = self.world.current.execution if self.world.current else None
        if writer is None or _STATES[before["state"]] not in _ATTEMPTS:
            return
        changed = {name for name in after if after[name] != before[name]}
        if writer.run_id == run_id and after["state"] in {"QUEUED", "FAILED", "CANCELLED"}:
            writer.gave_up = True
        if not changed - {"announced_revision", "outbox_pending"}:
            return
        if writer.run_id != run_id:
            if after["state"] not in {"STARTING", "CANCELLED", "FAILED"} and changed != {"execution"}:
                self.broken(f"{writer.name}, a trainer of {writer.run_id}, changes {run_id}: {sorted(changed)}")
            return
        is_published = after["state"] == "SUCCEEDED" and before["artifacts"] is not None
        if not is_published and (
            before["epoch"] != writer.epoch or (owner is not None and owner["execution"] != writer.name)
        ):
            self.broken(f"{writer.name}, which does not own {run_id}, changes {sorted(changed)}")

    def _pool_written(self, written: Written) -> None:
        before = written.before.get("slots", {}) if written.before else {}
        after = written.after.get("slots", {})
        taken = [slot for run_id, slot in after.items() if run_id not in before]
        if not taken:
            return
        quota = written.after.get("quota") or self.cloud.settings.gpu_quota
        if len(after) > quota:
            self.broken(f"{len(after)} GPUs are held, {quota} are allowed")
        for slot in taken:
            limits = self.cloud.document("tenants", slot["tenant"]).get("limits", {})
            held = sum(other["tenant"] == slot["tenant"] for other in after.values())
            if limits.get("max_running") is not None and held > limits["max_running"]:
                self.broken(f"{slot['tenant']} holds {held} GPUs")
            self._check_budget(slot, limits.get("monthly_budget_usd"))

    def _check_budget(self, slot: dict[str, Any], budget: float | None) -> None:
        month = self.cloud.document("tenants", slot["tenant"])["months"][slot["month"]]
        if budget is not None and month["reserved_usd"] + month["spent_usd"] > budget + _CENT:
            self.broken(f"{slot['tenant']} has promised more than its budget")

    def _check_slots(self) -> None:
        slots = self.cloud.document("pools", "nvidia-l4").get("slots", {})
        if {run_id: slot["epoch"] for run_id, slot in slots.items()} != {
            run_id: run["epoch"] for run_id, run in self.holding.items()
        }:
            self.broken(f"slots are held by {sorted(slots)}, GPUs by {sorted(self.holding)}")

    def _check_reserved(self, account: Stored) -> None:
        reserved: Counter[str] = Counter()
        for slot in self.cloud.document("pools", "nvidia-l4").get("slots", {}).values():
            if slot["tenant"] == account["tenant"]:
                reserved[slot["month"]] += slot["reserved_usd"]
        for name, month in account.get("months", {}).items():
            if abs(month["reserved_usd"] - reserved[name]) > _CENT:
                self.broken(f"{account['tenant']} has {month['reserved_usd']} reserved, its slots {reserved[name]}")

    def _event_written(self, written: Written) -> None:
        events = self.events[written.path.split("/")[1]]
        events.append(written.after)
        if written.before is not None or written.id != f"{len(events):06d}" or written.after["revision"] != len(events):
            self.broken(f"{written.path}/{written.id} is not the next audit event")

    def _version_written(self, written: Written) -> None:
        adapter, version = written.path.split("/")[1], written.after["version"]
        numbered = [number for name, number in self.versions if name == adapter]
        if version != len(numbered) + 1 or written.before is not None:
            self.broken(f"{adapter} gets version {version} after {len(numbered)}")
        if written.after["run_id"] in self.versions.values():
            self.broken(f"{written.after['run_id']} gets a second version")
        self.versions[adapter, version] = written.after["run_id"]

    # Objects and GPUs

    def _touched(self, bucket: str, name: str, what: str) -> None:
        process = self.world.current
        if process is None or process.tenant is None or (bucket, name) == (ARTIFACTS, layout.AUDIT):
            return
        if not name.removeprefix(layout.AUDIT).startswith(f"{process.tenant}/"):
            self.broken(f"{process.name}, which works for {process.tenant}, does {what} {bucket}/{name}")

    def _written(self, held: storage.Held) -> None:
        if held.bucket != ARTIFACTS or (match := _VERSION.fullmatch(held.name)) is None:
            return
        tenant, adapter, version, file = match.groups()
        run_id = self.versions.get((f"{tenant}~{adapter}", int(version)))
        if run_id is None:
            self.broken(f"{held.name} is written, whose version nobody has claimed")
            return
        if run_id.encode() not in held.body and file != CHECKSUMS:
            self.broken(f"{held.name} belongs to {run_id} and holds {held.body!r}")
        if held.name in self.delivered:
            self.broken(f"{held.name} is written twice")
        self.delivered.add(held.name)
        if file == CHECKSUMS:
            self._check_files(run_id, f"{tenant}/{adapter}/v{version}/", self.cloud.document("runs", run_id))

    def _deleted(self, bucket: str, name: str) -> None:
        """Nothing goes that anybody may still need, whoever deletes it."""
        if bucket != ARTIFACTS:
            return
        match = _LEFT.fullmatch(name)
        if match is None:
            self.broken(f"{name} is deleted")
            return
        kind, run_id = match[3], match[4]
        run = self.cloud.document("runs", run_id)
        if _STATES[run["state"]] not in _FINAL and run["artifacts"] is None:
            self.broken(f"{name} is deleted, and {run_id} is {run['state']}")
        if kind == "checkpoints":
            self._check_unneeded(name, run["artifacts"] is not None)

    def _check_unneeded(self, name: str, is_published: bool) -> None:
        """No run goes on, or may yet be taken up, from a checkpoint that is deleted."""
        folder = name.rpartition("/")[0] + "/"
        for run_id, run in self.cloud.database.documents("runs").items():
            held = (run["checkpoint"] or {}).get("object", "")
            if not held.startswith(folder) or (is_published and f"/{run_id}/" in name):
                continue
            if run["finished_at"] is None:
                self.broken(f"{name} is deleted, and {run_id}, which is {run['state']}, goes on from there")
            elif (self.world.now() - run["finished_at"]).total_seconds() < self.cloud.settings.checkpoints_kept_s:
                self.broken(f"{name} is deleted, and {run_id} may still be resumed")

    def _check_taken_up(self, run_id: str, run: Stored) -> None:
        """What a run is to go on from is there."""
        held = (run["checkpoint"] or {}).get("object")
        if held is not None and held not in self.cloud.storage.present.get(ARTIFACTS, {}):
            self.broken(f"{run_id} takes up {held}, which is gone")

    def _started(self, run: cloud_run.Run) -> None:
        key = (run.run_id, run.epoch)
        if key not in self.claims:
            self.broken(f"RunJob for {run.run_id} epoch {run.epoch}, which was not claimed")
        if key in self.starts:
            self.broken(f"RunJob twice for {run.run_id} epoch {run.epoch}")
        self.starts[key] = run

    def _check_whole(self, run_id: str, run: Stored) -> None:
        artifacts = run["artifacts"]
        if artifacts is None:
            self.broken(f"{run_id} succeeded without a version")
            return
        prefix = layout.version_prefix(run["tenant"], run["name"], artifacts["version"])
        names = {name.removeprefix(prefix) for name in self.cloud.storage.names(ARTIFACTS, prefix)}
        if names != set(artifacts["sha256"]):
            self.broken(f"{run_id} succeeded with {sorted(names)}")
            return
        self._check_files(run_id, prefix, run)

    def _check_files(self, run_id: str, prefix: str, run: Stored) -> None:
        """Every file that the version names is there and is what it names."""
        present = self.cloud.storage.present.get(ARTIFACTS, {})
        for name, digest in run["artifacts"]["sha256"].items():
            held = present.get(prefix + name)
            if held is None or hashlib.sha256(held.body).hexdigest() != digest:
                self.broken(f"{prefix}{name} of {run_id} is not what was committed")

    # In the end

    def check_silence(self) -> None:
        """Nobody holds a GPU for long without a sign of life. Only meaningful once the faults have ended."""
        longest = self.cloud.settings.hung_after_s + 600
        for run_id, run in self.holding.items():
            since = run["heartbeat_at"] or run["state_since"]
            if (self.world.now() - since).total_seconds() > longest:
                self.broken(f"{run_id} holds a GPU and has been silent since {since:%H:%M:%S}")

    def is_quiet(self) -> bool:
        """Nothing is under way and nothing is owed."""
        runs = self.cloud.database.documents("runs").values()
        return (
            self.world.pending == 0
            and all(_STATES[run["state"]] in _FINAL and not run["outbox_pending"] for run in runs)
            and all(not self.cloud.jobs.is_alive(run) for run in self.cloud.jobs.executions.values())
        )

    def next_sweep_s(self) -> float | None:
        """When the next run that has ended is to be looked at again; None where nothing is left to sweep."""
        due = [run["sweep_at"] for run in self.cloud.database.documents("runs").values() if run["sweep_at"] is not None]
        return (min(due) - self.world.began).total_seconds() if due else None

    def only_budgets_are_waited_for(self) -> bool:
        """What is left waits for another month."""
        runs = self.cloud.database.documents("runs").values()
        left = [run for run in runs if _STATES[run["state"]] not in _FINAL]
        first: dict[str, Stored] = {}
        for run in left:
            if run["tenant"] not in first or run["created_at"] < first[run["tenant"]]["created_at"]:
                first[run["tenant"]] = run
        return (
            bool(left)
            and all(run["state"] == "QUEUED" for run in left)
            and all(run["state_reason"].startswith("waiting for budget") for run in first.values())
        )

    def unfinished(self) -> list[str]:
        """What is still under way."""
        runs = self.cloud.database.documents("runs").items()
        return [
            f"{run_id} is {run['state']} ({run['state_reason']})" + (", unannounced" if run["outbox_pending"] else "")
            for run_id, run in runs
            if run["outbox_pending"] or _STATES[run["state"]] not in _FINAL or run["sweep_at"] is not None
        ]

    def check_end(self) -> None:
        """Of a cloud in which all is quiet."""
        runs = self.cloud.database.documents("runs")
        self._check_asked(runs)
        for run_id, run in runs.items():
            self._check_announced(run_id, run)
            self._check_outcome(run_id, run)
            self._check_starts(run_id, run)
        self._check_money(runs)
        self._check_objects(runs)

    def _check_asked(self, runs: dict[str, Stored]) -> None:
        functions = self.cloud.topics.functions
        undelivered = {json.loads(one.body)["request_id"] for one in functions["run-requests"].dead_letters}
        requested = {run_id for run_id, request_id in self.asked.requests.items() if request_id not in undelivered}
        owed = self.asked.drops.keys() | requested
        if missing := owed - runs.keys():
            self.broken(f"nobody took in {sorted(missing)}")
        if strangers := runs.keys() - self.asked.drops.keys() - self.asked.resumes - self.asked.requests.keys():
            self.broken(f"nobody asked for {sorted(strangers)}")
        sources = Counter(
            (run["source"]["manifest_object"], run["source"]["manifest_generation"])
            for run in runs.values()
            if run["source"]["publisher"] == "drop"
        )
        if twice := [source for source, count in sources.items() if count > 1]:
            self.broken(f"several runs of {twice}")

    def _check_announced(self, run_id: str, run: Stored) -> None:
        if len(self.events[run_id]) != run["revision"]:
            self.broken(f"{run_id} has {len(self.events[run_id])} audit events and revision {run['revision']}")
        for event in self.events[run_id]:
            if self._announced.get(event["event_id"]) != {(event["from_state"] or "", event["to_state"])}:
                self.broken(f"{event['event_id']} was announced as {self._announced.get(event['event_id'])}")

    @property
    def _announced(self) -> dict[str, set[tuple[str, str]]]:
        if not hasattr(self, "_told"):
            self._told: dict[str, set[tuple[str, str]]] = defaultdict(set)
            for published in self.cloud.topics.published.get("run-events", ()):
                message = json.loads(published.body)
                self._told[message["event_id"]].add((message["from"], message["to"]))
        return self._told

    def _check_outcome(self, run_id: str, run: Stored) -> None:
        code = (run["error"] or {}).get("code")
        if run["state"] == "FAILED" and code not in FAILURES:
            self.broken(f"{run_id} failed with {code}")
        if run["state"] == "CANCELLED" and not {run_id, (run["tenant"], run["folder"])} & self.asked.cancelled:
            self.broken(f"{run_id} was cancelled by nobody")
        if run["state"] == "SUCCEEDED" and run_id in self.asked.doomed:
            self.broken(f"{run_id} succeeded, and what it was asked for is wrong")
        if run["state"] != "SUCCEEDED" and code is None and run["state"] != "VALIDATED":
            self.broken(f"{run_id} is {run['state']} without a reason")
        if run["state"] == "FAILED" and code == "attempts_exhausted":
            bad = sum(
                one.task_attempt + (one.state is not ExecutionState.SUCCEEDED or one.gave_up or one.is_forgotten)
                for one in self._executions_of(run_id)
            )
            if bad < run["deaths"]:
                self.broken(f"{run_id} is said to have died {run['deaths']} times, {bad} executions did")

    def _executions_of(self, run_id: str) -> list[cloud_run.Run]:
        return [one for one in self.cloud.jobs.executions.values() if one.run_id == run_id]

    def _check_starts(self, run_id: str, run: Stored) -> None:
        """A GPU is asked for again only where the last dispatch came to nothing."""
        patience = self.cloud.settings.stuck_after_s
        for epoch in range(1, run["epoch"]):
            start = self.starts.get((run_id, epoch))
            claimed_again = self.claims[run_id, epoch + 1]
            if start is None or start.answer_lost or start.listed_s - self.claims[run_id, epoch] > patience:
                continue
            if start.ended_s > claimed_again and not start.gave_up and not start.is_forgotten:
                self.broken(f"{run_id} is started again while {start.name} is at work")

    def _check_money(self, runs: dict[str, Stored]) -> None:
        if slots := self.cloud.document("pools", "nvidia-l4").get("slots"):
            self.broken(f"slots are left: {slots}")
        cost: Counter[str] = Counter()
        for run in runs.values():
            cost[run["tenant"]] += run["cost_usd"]
        for tenant in cost:
            months = self.cloud.document("tenants", tenant).get("months", {}).values()
            if any(abs(month["reserved_usd"]) > _CENT for month in months):
                self.broken(f"{tenant} has money reserved")
            if abs(sum(month["spent_usd"] for month in months) - cost[tenant]) > _CENT:
                self.broken(f"{tenant} has spent {list(months)}, its runs cost {cost[tenant]}")

    def _check_objects(self, runs: dict[str, Stored]) -> None:
        for (adapter, version), run_id in self.versions.items():
            run, prefix = runs[run_id], f"{adapter.replace('~', '/')}/v{version}/"
            if run["state"] != "SUCCEEDED":
                self.broken(f"{run_id} has version {version} and is {run['state']}")
            elif self.cloud.storage.names(ARTIFACTS, run["artifacts"]["staged"]):
                self.broken(f"{run['artifacts']['staged']} was not emptied")
            self._check_files(run_id, prefix, run)
        if self.cloud.settings.leftovers_after_s >= OUTLIVES_EXECUTIONS_S:
            left = [name for name in self.cloud.storage.present.get(ARTIFACTS, {}) if _LEFT.fullmatch(name)]
            if left:
                self.broken(f"left for ever: {left}")
        newest: dict[str, Stored] = {}
        for run in runs.values():
            folder = layout.drop_prefix(run["tenant"], run["folder"] or run["name"])
            if folder not in newest or run["created_at"] > newest[folder]["created_at"]:
                newest[folder] = run
        for folder, run in newest.items():
            self._check_rejection(folder, run)
            held = self.cloud.storage.present[DROPS].get(folder + layout.STATUS)
            told = json.loads(held.body) if held is not None else {}
            if (told.get("run_id"), told.get("state")) != (run["run_id"], run["state"]):
                self.broken(f"{folder}STATUS.json says {told.get('state')} of {told.get('run_id')}; {run['run_id']} "
                            f"is {run['state']}")  # fmt: skip

    def _check_rejection(self, folder: str, run: Stored) -> None:
        """REJECTED.md speaks of the folder's newest run, where that was refused, and of none where it was not."""
        held = self.cloud.storage.present[DROPS].get(folder + layout.REJECTED)
        if run["state"] in {"REJECTED", "EXPIRED"}:
            if held is None or run["run_id"] not in held.body.decode():
                self.broken(f"{folder}REJECTED.md does not tell of {run['run_id']}, which is {run['state']}")
        elif held is not None and run["state"] in {"SUCCEEDED", "VALIDATED"}:
            self.broken(f"{folder}REJECTED.md is there, and {run['run_id']} is {run['state']}")
