"""All runs of a tenant, newest first, as they are now."""

from __future__ import annotations

from datetime import timedelta

import streamlit as st

from adaptml.clock import utc_now
from adaptml.runs.documents import UnknownRun
from dashboard import session, words
from dashboard.elements import badge, dim, line, nothing
from schemas.manifest import is_drop_name
from schemas.run import Run
from schemas.run_states import ACTIVE_STATES, RunState

A_PAGE = 15
RENEWED = timedelta(seconds=4)
KINDS: dict[str, tuple[RunState, ...]] = {
    "All": (),
    "Under way": ACTIVE_STATES,
    "Succeeded": (RunState.SUCCEEDED, RunState.VALIDATED),
    "Failed": (RunState.FAILED, RunState.REJECTED, RunState.EXPIRED),
    "Cancelled": (RunState.CANCELLED,),
}


def show() -> None:
    """Filters, runs, and the way to older ones."""
    st.title("Runs")
    kind = st.pills("Which", list(KINDS), default="All", required=True, label_visibility="collapsed", key="kind")
    name = st.text_input("Adapter", placeholder="Of one adapter: its name", label_visibility="collapsed").strip()
    if name and not is_drop_name(name):
        st.warning("Names of adapters are lower-case letters, digits and hyphens.")
        return
    of = (session.tenant(), kind, name)
    if st.session_state.get("_listed") != of:
        st.session_state["_listed"], st.session_state["_pages_before"] = of, []
    _list(kind or "All", name or None)


@st.fragment(run_every=RENEWED)
def _list(kind: str, name: str | None) -> None:
    before: list[str] = st.session_state.get("_pages_before", [])
    try:
        page = session.services().runs.queries.of_tenant(
            session.tenant(), states=KINDS[kind], name=name, after=before[-1] if before else None, at_most=A_PAGE
        )
    except UnknownRun:
        st.session_state["_pages_before"] = []
        st.rerun(scope="fragment")
    except session.UNANSWERED as error:
        session.unanswered(error)
        return
    if not page.runs:
        _say_nothing(is_filtered=kind != "All" or name is not None or bool(before))
    for run in page.runs:
        _row(run)
    with st.container(horizontal=True):
        if before and st.button("Newer", icon=":material/arrow_back:"):
            st.session_state["_pages_before"] = before[:-1]
            st.rerun(scope="fragment")
        if page.has_more and st.button("Older", icon=":material/arrow_forward:"):
            st.session_state["_pages_before"] = [*before, page.runs[-1].run_id]
            st.rerun(scope="fragment")


def _say_nothing(*, is_filtered: bool) -> None:
    if is_filtered:
        nothing("No run is like that.")
        return
    nothing("No runs yet. A folder that is copied into the drops bucket becomes one, and so does what you upload here.")
    session.link("new", "Fine-tune a model")


def _row(run: Run) -> None:
    now = utc_now()
    with st.container(border=True, gap=None):
        session.link("run", run.name if run.name == run.folder else f"{run.name} · {run.folder}", run=run.run_id)
        cost = words.money(run.cost_usd) if run.cost_usd else ""
        line(
            badge(run.state),
            *(dim(text) for text in (words.standing(run), words.ago(run.created_at, now), cost) if text),
        )
