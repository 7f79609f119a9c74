"""One run, as it is now: how far, how well, for how much, and what went wrong."""

from __future__ import annotations

import logging
import uuid
from datetime import timedelta

import streamlit as st
from google.auth.exceptions import GoogleAuthError

from adaptml import figures, run_log
from adaptml.clock import utc_now
from dashboard import session, words
from dashboard.elements import (
    badge,
    curve,
    dim,
    facts,
    heading,
    label,
    line,
    logged,
    nothing,
    problems,
    said,
    table,
    way,
)
from schemas import layout
from schemas.messages import RunCommand
from schemas.run import Run
from schemas.run_states import RunState

log = logging.getLogger(__name__)

RENEWED = timedelta(seconds=1.5)
LOG_RENEWED = timedelta(seconds=10)
"""Cloud Logging may be read sixty times a minute by all who look at the project."""
LINES = 300
CURVES = (
    ("Loss", "loss"),
    ("Learning rate", "learning_rate"),
    ("GPU use, %", "gpu_use_percent"),
    ("GPU memory, GB", "gpu_memory_gb"),
)
"""Heading → field of a point."""


def show() -> None:
    """Renewed until the run has ended."""
    run_id = st.query_params.get("run", "")
    if not layout.is_run_id(run_id):
        nothing("No run is named. Choose one of the list.")
        session.link("runs", "All runs")
        return
    run = session.own_run(run_id)
    if run is None and st.session_state.get("_asked_for") != run_id:
        st.title("Run")
        nothing("There is no such run.")
        session.link("runs", "All runs")
        return
    is_over = run is not None and run.state.is_final
    st.fragment(_live, run_every=None if is_over else RENEWED)(run_id, was_over=is_over)


def _live(run_id: str, *, was_over: bool) -> None:
    try:
        run = session.own_run(run_id)
        if run is None:
            st.title("On its way")
            st.info("The drop is in the bucket; its event is on the way to intake.", icon=":material/hourglass_top:")
            return
        if run.state.is_final and not was_over:
            st.rerun()
        _show(run)
    except session.UNANSWERED as error:
        session.unanswered(error)


def _show(run: Run) -> None:
    now = utc_now()
    heading(run.name)
    attempt = [label(f"attempt {run.attempt}", "waiting")] if run.attempt > 1 else []
    line(badge(run.state), *attempt, dim(words.ago(run.created_at, now)))
    said(run.state_reason)
    # Each in a place of its own, so that nothing moves up or down when one of them has something to say.
    for part in (_progress, _error, _actions, _money, _result, _curves, _happened, _log, _made_of):
        with st.container():
            part(run)


def _progress(run: Run) -> None:
    progress = run.progress
    if run.state.is_final and run.state is not RunState.SUCCEEDED and not progress.step:
        return
    if progress.total_steps:
        share = min(1.0, progress.step / progress.total_steps)
        left = "" if run.state.is_final else f", {words.span(progress.eta_s)} to go"
        st.progress(share, text=f"Step {progress.step:,} of {progress.total_steps:,}{left}")
    with st.container(horizontal=True):
        if progress.loss is not None:
            st.metric("Loss", f"{progress.loss:.3f}", width="content")
        if progress.tokens_per_s is not None:
            st.metric("Tokens/s", f"{progress.tokens_per_s:,.0f}", width="content")
        if progress.gpu_memory_gb is not None:
            st.metric("GPU memory", f"{progress.gpu_memory_gb:.1f} GB", width="content")


def _error(run: Run) -> None:
    error = run.error
    if error is None:
        return
    if error.details:
        total = sum(error.counts.values())
        st.subheader(f"{total:,} problem{'s' if total != 1 else ''}")
        problems(error.details, total)
    else:
        table(("error", "", "what to do"), [(error.code, error.message, error.hint)])


def _actions(run: Run) -> None:
    with st.container(horizontal=True):
        may_write = session.viewer().may_write(run.tenant)
        if may_write and not run.state.is_final and not run.cancel_requested:
            with st.popover("Cancel", icon=":material/stop_circle:"):
                st.write("It ends at once while it waits, after its present step on a GPU. The last checkpoint stays.")
                if st.button("Cancel this run", type="primary"):
                    _command(run, "cancel")
                    st.toast("Asked to end.")
        elif run.cancel_requested and not run.state.is_final:
            line(label("asked to end", "waiting"))
        is_resumable = may_write and run.state in {RunState.CANCELLED, RunState.FAILED}
        if is_resumable and st.button("Resume", icon=":material/replay:"):
            command_id = _command(run, "resume")
            resumed = layout.run_id(run.tenant, run.folder or run.name, "command", command_id)
            st.session_state["_asked_for"] = resumed
            session.go("run", run=resumed)
        is_there = run.artifacts is not None and run.artifacts.uri is not None
        if run.artifacts is not None and is_there and run.tenant == session.tenant():
            session.link("adapter", f"Version {run.artifacts.version}", name=run.name)
        if run.source.resumes:
            session.link("run", "The run that it goes on from", run=run.source.resumes)


def _command(run: Run, what: str) -> str:
    """Asks for it as any other system does; returns the command's id."""
    command = RunCommand(command_id=uuid.uuid4().hex, tenant=run.tenant, run_id=run.run_id, command=what)
    session.services().bus.publish("run-commands", command)
    return command.command_id


def _money(run: Run) -> None:
    estimate = run.estimate
    if estimate is None:
        return
    with st.container(horizontal=True):
        took = (run.finished_at - run.created_at).total_seconds() if run.finished_at else None
        st.metric("Cost so far" if took is None else "Cost", words.money(run.cost_usd), width="content")
        st.metric("Estimated", words.money(estimate.cost_usd), width="content")
        st.metric("Estimated time", words.span(estimate.duration_s), width="content")
        if took is not None:
            st.metric("From drop to end", words.span(took), width="content")


def _result(run: Run) -> None:
    measured = figures.held_out(run.metrics)
    if not measured:
        return
    st.subheader("On held-out data")
    rows = [(one.name, one.before, one.after) for one in measured]
    table(("", "base model", "with the adapter"), rows, {at: one.is_better for at, one in enumerate(measured)})
    st.caption(figures.basis(run.metrics))


def _curves(run: Run) -> None:
    points = session.services().runs.curve(run.run_id) if run.progress.step or run.state.is_final else []
    for title, field in CURVES:
        if any(point.get(field) is not None for point in points):
            st.subheader(title)
            curve(points, field, title.lower())


def _happened(run: Run) -> None:
    st.subheader("What happened")
    way(session.services().runs.events(run.run_id), utc_now())
    for letter in run.dead_letters:
        said(f"{letter.at:%Y-%m-%d %H:%M} a message on {letter.topic} was not taken: {letter.reason}")


def _log(run: Run) -> None:
    if not st.toggle("Log", key=f"log {run.run_id}", help="What functions and trainer logged of it; never its data."):
        return
    try:
        lines = _logged(run, run.run_id, run.state, run.execution)
    except (run_log.Unread, GoogleAuthError) as error:  # what it says may hold names of the project
        log.warning("the log of %s could not be read: %s", run.run_id, type(error).__name__)
        st.error("The log could not be read.", icon=":material/cloud_off:")
        return
    if lines:
        logged(lines)
    else:
        nothing("Nothing was logged yet.")


@st.cache_data(ttl=LOG_RENEWED, max_entries=100, show_spinner=False)
def _logged(_run: Run, run_id: str, state: RunState, execution: str | None) -> list[run_log.Line]:
    """Kept for a while, for all who look: what comes after the first argument tells one log from another."""
    return run_log.read(session.services().settings.project, _run, LINES)[-LINES:]


def _made_of(run: Run) -> None:
    data = run.dataset
    if data.warnings:
        with st.expander(f"{len(data.warnings)} warnings about the data"):
            problems(data.warnings, mild=True)
    with st.expander("Data, settings, names"):
        files = "\n".join(f"{file.name}, {words.size(file.size)}, generation {file.generation}" for file in data.files)
        facts(
            [
                ("run", run.run_id),
                ("training", words.training(run.manifest) if run.manifest else "–"),
                ("examples", f"{data.train_examples:,} to train on, {data.validation_examples:,} held out in files"),
                ("tokens", f"{data.tokens:,} an epoch" if data.tokens else "–"),
                ("files", files or "–"),
                ("came by", run.source.publisher),
                ("execution", run.execution or "–"),
                ("artifacts", (run.artifacts.uri if run.artifacts else None) or "–"),
            ]
        )
        if run.manifest is not None:
            st.code(run.manifest.model_dump_json(indent=2, by_alias=True), language="json")
