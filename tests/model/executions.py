"""Executions, what befalls them, and the publication of what they committed."""

from __future__ import annotations

from typing import Any

from schemas import layout
from schemas.run_states import RunState
from tests.model.core import Core
from tests.model.database import Op
from tests.model.decisions import FILES, NAME, TENANT, execution_of, name_of
from tests.model.state import BOUNDARIES, Job, Kind, Steps, World, identity, over, replaced, tallied, who


class Executions(Core):
    """The steps of executions, and those of publication, which the reconciler takes, too."""

    def _execution(self, w: World, job: Job, out: Steps) -> None:
        name = who(job)
        if job.is_told and not job.is_ended:
            out.append((f"Cloud Run ends {name}", Kind.OWN, self._ended(w, job)))
        if w.faults:
            self._mishaps(w, job, name, out)
        if job.is_hung:
            out.append((f"{name} wakes up", Kind.WAKE, replaced(w, job, job._replace(is_hung=0))))
            if job.at == "begin" and not job.is_told and not job.is_ended:
                out.append((f"Cloud Run ends {name}, whose time is up", Kind.OWN, self._ended(w, job)))
            return
        if job.held < 0 and job.at in BOUNDARIES:
            self._leaves(w, job, out)
        self._act(w, job, out)

    def _mishaps(self, w: World, job: Job, name: str, out: Steps) -> None:
        lost = w._replace(faults=w.faults - 1)
        out.append((f"{name} is killed", Kind.FAULT, self._killed(lost, job)))
        if not job.is_hung:
            out.append((f"{name} stands still", Kind.FAULT, replaced(lost, job, job._replace(is_hung=1))))
            if not job.is_told:
                told = replaced(lost, job, job._replace(is_told=1))
                out.append((f"the machine of {name} is taken away", Kind.FAULT, told))
            if job.held < 0 and job.at not in {"begin", "leave", "leave-saved", "crash"}:
                self._at_crash(*self._going(lost, job, "crash"), out, Kind.FAULT)
        if not job.is_ended:
            ghost = tallied(replaced(lost, job, job._replace(is_ended=1)), job.run, losses=self._loses(w, job))
            out.append((f"Cloud Run says that {name} ended, though it runs", Kind.FAULT, ghost))

    def _leaves(self, w: World, job: Job, out: Steps) -> None:
        """It sees that it is to stop, or that the run is no longer its own."""
        doc = self.facts(w.db, job.run)
        is_own = doc.owner == (execution_of(job.epoch, job.number), job.task) and doc.is_attempt
        if is_own and not doc.is_cancelled and not job.is_told:
            return
        self._at_leave(*self._going(w, job, "leave"), out)
        if is_own and job.is_told and not doc.is_cancelled and job.at != "train":
            self._at_leave(*self._going(w, job, "leave-saved"), out)

    def _going(self, w: World, job: Job, at: str) -> tuple[World, Job]:
        going = job._replace(at=at)
        return replaced(w, job, going), going

    def _leaving(self, w: World, job: Job, at: str) -> World:
        return self._going(w, job, at)[0]

    def _at_begin(self, w: World, job: Job, out: Steps) -> None:
        label = f"{who(job)} takes r{job.run}"
        if (done := self._call(w, job, ("own", job.run, *identity(job)), label, Kind.OWN, out)) is None:
            return
        answer, db = done
        if answer == "fenced" or self.facts(db, job.run).is_final:
            self._changed(w, job, over(job), db, f"{label}: {answer}", Kind.OWN, out)
            return
        at = "copy" if self.facts(db, job.run).version else "train"
        w = tallied(w, job.run, starts=at == "train", losses=at == "train" and job.is_ended)
        self._changed(w, job, job._replace(at=at, held=-1), db, label, Kind.OWN, out)

    def _at_train(self, w: World, job: Job, out: Steps) -> None:
        self._entered(w, job, "TRAINING", "evaluate", out)

    def _at_evaluate(self, w: World, job: Job, out: Steps) -> None:
        self._entered(w, job, "EVALUATING", "upload", out)

    def _entered(self, w: World, job: Job, to: str, then: str, out: Steps) -> None:
        label = f"{who(job)} enters {to}"
        if (done := self._call(w, job, ("enter", job.run, *identity(job), to), label, Kind.OWN, out)) is None:
            return
        answer, db = done
        after = job._replace(at=then, held=-1)
        if answer == "fenced":
            after = over(job)
        elif answer.startswith("illegal"):
            after = job._replace(at="crash", held=-1)
        self._changed(w, job, after, db, f"{label}: {answer}", Kind.OWN, out)

    def _at_upload(self, w: World, job: Job, out: Steps) -> None:
        self._uploaded(w, job, 0, "seal", out)

    def _at_seal(self, w: World, job: Job, out: Steps) -> None:
        self._uploaded(w, job, 1, "commit", out)

    def _uploaded(self, w: World, job: Job, file: int, then: str, out: Steps) -> None:
        """A file that is there already stays as it is."""
        prefix = self._prefixes(name_of(job.run), *identity(job))
        there = next((entry for entry in w.staged if entry[0] == prefix), (prefix, "", ""))
        files = list(there[1:])
        files[file] = files[file] or f"{execution_of(job.epoch, job.number)}.{job.task}"
        others = [entry for entry in w.staged if entry[0] != prefix]
        uploaded = w._replace(staged=tuple(sorted((*others, (prefix, files[0], files[1])))))
        label = f"{who(job)} uploads {FILES[file]}"
        out.append((label, Kind.OWN, replaced(uploaded, job, job._replace(at=then))))

    def _at_commit(self, w: World, job: Job, out: Steps) -> None:
        label = f"{who(job)} commits r{job.run}"
        if (done := self._call(w, job, ("commit", job.run, *identity(job)), label, Kind.OWN, out)) is None:
            return
        answer, db = done
        is_committed = answer != "fenced" and self.facts(db, job.run).version
        after = job._replace(at="copy", held=-1) if is_committed else over(job)
        out.append((f"{label}: {answer}", Kind.OWN, replaced(w._replace(db=db), job, after)))

    def _at_leave(self, w: World, job: Job, out: Steps) -> None:
        saves = job.at == "leave-saved"
        label = f"{who(job)} leaves" + (" with a new step saved" if saves else "")
        step = self.facts(w.db, job.run).next_step
        self._last(w, job, ("leave", job.run, *identity(job), saves, step if saves else 0), label, Kind.OWN, out)

    def _at_crash(self, w: World, job: Job, out: Steps, kind: Kind = Kind.OWN) -> None:
        self._last(w, job, ("crash", job.run, *identity(job)), f"{who(job)} fails by an exception", kind, out)

    def _last(self, w: World, job: Job, op: Op, label: str, kind: Kind, out: Steps) -> None:
        """The last that an execution does."""
        if (done := self._call(w, job, op, label, kind, out)) is None:
            return
        answer, db = done
        if db != w.db and self.facts(db, job.run).state in {RunState.QUEUED, RunState.FAILED}:
            w = tallied(w, job.run, losses=job.at != "leave-saved" and not job.is_ended)
        self._changed(w, job, over(job), db, f"{label}: {answer}", kind, out)

    def _at_copy(self, w: World, actor: Any, out: Steps) -> None:
        self._copied(w, actor, 0, "copy-sums", out)

    def _at_copy_sums(self, w: World, actor: Any, out: Steps) -> None:
        self._copied(w, actor, 1, "clear", out)

    def _copied(self, w: World, actor: Any, file: int, then: str, out: Steps) -> None:
        doc = self.facts(w.db, actor.run)
        versions = [*w.versions, *[("", "")] * (doc.version - len(w.versions))]
        staged = next((entry for entry in w.staged if entry[0] == doc.staged), ("", "", ""))
        there = versions[doc.version - 1]
        content = there[file] or staged[1 + file]
        if not content:
            lost = self._leaving(w, actor, "crash") if isinstance(actor, Job) else replaced(w, actor, None)
            out.append((f"{who(actor)} misses {FILES[file]} of r{actor.run}", Kind.OWN, lost))
            return
        versions[doc.version - 1] = (content, there[1]) if file == 0 else (there[0], content)
        copied = w._replace(versions=tuple(versions))
        label = f"{who(actor)} copies {FILES[file]} to v{doc.version}"
        out.append((label, Kind.OWN, replaced(copied, actor, actor._replace(at=then))))

    def _at_clear(self, w: World, actor: Any, out: Steps) -> None:
        below = layout.staged_by(TENANT, NAME, name_of(actor.run))
        cleared = w._replace(staged=tuple(entry for entry in w.staged if not entry[0].startswith(below)))
        label = f"{who(actor)} empties staging"
        out.append((label, Kind.OWN, replaced(cleared, actor, actor._replace(at="end"))))

    def _at_end(self, w: World, actor: Any, out: Steps) -> None:
        label = f"{who(actor)} ends r{actor.run}"
        if (done := self._call(w, actor, ("succeed", actor.run), label, Kind.OWN, out)) is not None:
            self._changed(w, actor, over(actor), done[1], label, Kind.OWN, out)
