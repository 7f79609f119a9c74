"""Intake and dispatcher, what calls them, and the user."""

from __future__ import annotations

from schemas.run_states import RunState
from tests.model.core import Core
from tests.model.state import IN_INTAKE, Kind, Steps, Thread, World, replaced, with_thread


class Functions(Core):
    """The steps of intake and dispatcher."""

    def _deliveries(self, w: World, out: Steps) -> None:
        for run, is_open in enumerate(w.events):
            at_work = sum(t.who == "intake" and t.run == run for t in w.threads)
            begun = Thread("intake", "create", run, is_called=1)
            if is_open and not at_work:
                out.append((f"the event of r{run} reaches intake", Kind.OWN, with_thread(w, begun)))
            elif self.scene.has_intake and w.faults and at_work < 2:
                again = with_thread(w._replace(faults=w.faults - 1), begun)
                out.append((f"the event of r{run} is delivered again", Kind.FAULT, again))
        if w.ready and self._may_dispatch(w):
            called = Thread("dispatcher", "look", is_called=1)
            self._begin(w._replace(ready=w.ready - 1), called, "run-ready reaches a dispatcher", Kind.OWN, out)
            if w.faults:
                again = w._replace(faults=w.faults - 1)
                self._begin(again, called, "run-ready reaches a dispatcher, and will come again", Kind.FAULT, out)

    def _begin(self, w: World, thread: Thread, label: str, kind: Kind, out: Steps) -> None:
        """A function begins: with a reading that may be out of date when it goes on, or with all until its first
        effect at once."""
        begun = with_thread(w, thread)
        if {"dispatcher": "look", "reconciler": "see"}[thread.who] in self._apart:
            out.append((label, kind, begun))
            return
        first: Steps = []
        self._act(begun, thread, first)
        for what, own_kind, after in first:
            if own_kind is not Kind.IDLE:
                out.append((f"{label}; {what}", kind if own_kind is Kind.OWN else own_kind, after))

    def _may_dispatch(self, w: World) -> bool:
        return sum(t.who == "dispatcher" for t in w.threads) < self.scene.dispatchers

    def _user(self, w: World, out: Steps) -> None:
        if not w.cancels:
            return
        for run in range(self.scene.runs):
            if not self.exists(w.db, run) or self.facts(w.db, run).is_final:
                continue
            asked = w._replace(cancels=w.cancels - 1)
            for word, how in (("cancel", "by command"), ("ask", "in the console")):
                _, db = self.calls.whole(w.db, (word, run))
                if db == w.db:
                    continue
                doc = self.facts(db, run)
                if doc.is_final:
                    out.append((f"r{run} is cancelled {how}", Kind.USER, asked._replace(db=self._quietly(db, run))))
                    if w.faults:
                        unannounced = asked._replace(db=db, faults=w.faults - 1)
                        out.append((f"r{run} is cancelled {how}, unannounced", Kind.FAULT, unannounced))
                else:
                    out.append((f"r{run} is asked to end {how}", Kind.USER, asked._replace(db=db)))

    def _thread(self, w: World, t: Thread, out: Steps) -> None:
        if w.faults:
            out.append((f"the {t.who} dies before {t.at!r}", Kind.FAULT, self._dead(w, t)))
        self._act(w, t, out)

    def _at_create(self, w: World, t: Thread, out: Steps) -> None:
        label = f"intake creates r{t.run}"
        if (done := self._call(w, t, ("create", t.run), label, Kind.OWN, out)) is None:
            return
        answer, db = done
        further = t._replace(at="further", held=-1)
        if answer == "created":
            self._changed(w, t, further, db, label, Kind.OWN, out)
            return
        doc = self.facts(db, t.run)
        if "finish" in self.scene.without:
            out.append((f"intake finds r{t.run} and leaves", Kind.OWN, self._acknowledged(w, t)))
        elif doc.is_pending and "announce" not in self._apart:
            made_up = replaced(self._announced(w, t.run), t, further)
            out.append((f"intake finds r{t.run} unannounced and makes up for it", Kind.OWN, made_up))
        elif doc.is_pending:
            announces = t._replace(at="publish", seen=doc.revision, held=-1)
            out.append((f"intake finds r{t.run} unannounced", Kind.OWN, replaced(w, t, announces)))
        else:
            out.append((f"intake finds r{t.run}", Kind.OWN, replaced(w, t, further)))

    def _at_further(self, w: World, t: Thread, out: Steps) -> None:
        label = f"the {t.who} takes r{t.run} further"
        if self.facts(w.db, t.run).state not in IN_INTAKE and t.held < 0:
            out.append((f"the {t.who} is done with r{t.run}", Kind.OWN, self._acknowledged(w, t)))
        elif (done := self._call(w, t, ("advance", t.run), label, Kind.OWN, out)) is not None:
            self._changed(w, t, t._replace(held=-1), done[1], label, Kind.OWN, out)

    def _acknowledged(self, w: World, t: Thread) -> World:
        events = tuple(0 if run == t.run and t.who == "intake" else is_open for run, is_open in enumerate(w.events))
        return replaced(w._replace(events=events), t, None)

    def _at_look(self, w: World, t: Thread, out: Steps) -> None:
        heads = self._heads(w.db)
        if not heads:
            kind = Kind.OWN if t.is_called else Kind.IDLE
            out.append(("the dispatcher finds nothing to start", kind, replaced(w, t, None)))
            return
        run, claims = heads[0], "claim" not in self.scene.without
        epoch = 0 if claims else self.facts(w.db, run).epoch + 1
        found = t._replace(at="claim" if claims else "start", run=run, epoch=epoch)
        if claims and "look" not in self._apart:
            self._at_claim(replaced(w, t, found), found, out)
            return
        out.append((f"the dispatcher finds r{run} waiting", Kind.OWN, replaced(w, t, found)))

    def _at_claim(self, w: World, t: Thread, out: Steps) -> None:
        label = f"the dispatcher claims r{t.run}"
        if (done := self._call(w, t, ("claim", t.run), label, Kind.OWN, out)) is None:
            return
        answer, db = done
        if answer == RunState.STARTING:
            taken = t._replace(at="start", epoch=self.facts(db, t.run).epoch, held=-1)
            if "claim" in self.scene.without:
                taken = t._replace(at="note", held=-1)
            self._changed(w, t, taken, db, label, Kind.OWN, out)
        elif db != w.db:  # it ended instead: `fill` looks again
            looks = Thread("dispatcher", "look", is_called=t.is_called)
            self._changed(w, t, looks, db, label, Kind.OWN, out)
        else:
            kind = Kind.OWN if t.is_called else Kind.IDLE
            out.append((f"{label}: it no longer waits, or no GPU is free", kind, replaced(w, t, None)))

    def _at_start(self, w: World, t: Thread, out: Steps) -> None:
        claimed, looks = "claim" not in self.scene.without, Thread("dispatcher", "look", is_called=t.is_called)
        then = t._replace(at="note" if claimed else "claim")
        started, number = self._started(w, t)
        out.append((f"RunJob for r{t.run}", Kind.OWN, replaced(started, t, then._replace(number=number))))
        if not w.faults:
            return
        lost = w._replace(faults=w.faults - 1)
        out.append(("RunJob fails", Kind.FAULT, replaced(lost, t, looks)))
        started, _ = self._started(lost, t)
        out.append(("RunJob succeeds, its answer is lost", Kind.FAULT, replaced(started, t, looks)))
        twice, number = self._started(started, t)
        noted = then._replace(number=number)
        out.append((f"RunJob starts two executions for r{t.run}", Kind.FAULT, replaced(twice, t, noted)))
        if claimed:
            out.append(("RunJob is refused for good", Kind.FAULT, replaced(lost, t, t._replace(at="refuse"))))

    def _at_note(self, w: World, t: Thread, out: Steps) -> None:
        label = f"the dispatcher notes the execution of r{t.run}"
        looks = Thread("dispatcher", "look", is_called=t.is_called)
        if (done := self._call(w, t, ("note", t.run, t.epoch, t.number), label, Kind.OWN, out)) is not None:
            out.append((label, Kind.OWN, replaced(w._replace(db=done[1]), t, looks)))

    def _at_refuse(self, w: World, t: Thread, out: Steps) -> None:
        label = f"the dispatcher ends r{t.run}"
        looks = Thread("dispatcher", "look", is_called=t.is_called)
        if (done := self._call(w, t, ("refuse", t.run, t.epoch), label, Kind.OWN, out)) is not None:
            self._changed(w, t, looks, done[1], label, Kind.OWN, out)

    def _at_publish(self, w: World, t: Thread, out: Steps) -> None:
        wakes = self._wakes(w.db, t.run)
        label = f"the {t.who} publishes run-ready" if wakes else f"the {t.who} announces r{t.run}"
        out.append((label, Kind.OWN, replaced(self._woken(w, t.run), t, t._replace(at="mark"))))

    def _at_mark(self, w: World, t: Thread, out: Steps) -> None:
        label = f"the {t.who} notes that r{t.run} is announced"
        if (done := self._call(w, t, ("mark", t.run, t.seen), label, Kind.OWN, out)) is None:
            return
        marked = w._replace(db=done[1])
        if t.who == "intake":
            further = t._replace(at="further", seen=0, held=-1)
            is_done = self.facts(marked.db, t.run).state not in IN_INTAKE
            after = self._acknowledged(marked, t) if is_done else replaced(marked, t, further)
        elif t.who == "dispatcher":
            then = "start" if t.epoch else "look"
            goes_on = Thread("dispatcher", then, t.run if t.epoch else -1, t.epoch, is_called=t.is_called)
            after = replaced(marked, t, goes_on)
        else:
            after = replaced(marked, t, None)
        out.append((label, Kind.OWN, after))
