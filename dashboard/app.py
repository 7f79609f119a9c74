"""The page: who looks, at whose things, and which part of it."""

from __future__ import annotations

import sys
from pathlib import Path

import streamlit as st

if (_ROOT := str(Path(__file__).resolve().parent.parent)) not in sys.path:  # Streamlit runs this file by itself
    sys.path.insert(0, _ROOT)

from dashboard import session
from dashboard.elements import STYLE, facts
from dashboard.viewer import Viewer
from dashboard.views import adapter, adapters, new, playground, run, runs, spending


def main() -> None:
    """Runs anew for whatever somebody clicks."""
    st.set_page_config(page_title="AdaptML", page_icon=":material/tune:", layout="wide")
    st.html(STYLE)
    viewer = session.viewer()
    pages = {
        "runs": st.Page(
            session.guarded(runs.show), title="Runs", icon=":material/list:", url_path="runs", default=True
        ),
        "new": st.Page(session.guarded(new.show), title="Fine-tune", icon=":material/add_circle:", url_path="new"),
        "adapters": st.Page(
            session.guarded(adapters.show), title="Adapters", icon=":material/extension:", url_path="adapters"
        ),
        "playground": st.Page(
            session.guarded(playground.show), title="Playground", icon=":material/chat:", url_path="playground"
        ),
        "spending": st.Page(
            session.guarded(spending.show), title="Spending", icon=":material/payments:", url_path="spending"
        ),
        "run": st.Page(session.guarded(run.show), title="Run", url_path="run", visibility="hidden"),
        "adapter": st.Page(session.guarded(adapter.show), title="Adapter", url_path="adapter", visibility="hidden"),
    }
    st.session_state["_pages"] = pages
    chosen = st.navigation(list(pages.values()))
    _choose_tenant(viewer)
    chosen.run()


def _choose_tenant(viewer: Viewer) -> None:
    """It stays chosen while somebody goes from page to page, and is never one of somebody else's."""
    tenants = viewer.tenants
    if st.session_state.get("tenant") not in tenants:
        st.session_state["tenant"] = tenants[0]
    with st.sidebar:
        if len(tenants) > 1:
            st.selectbox("Tenant", tenants, key="tenant")
        facts([("tenant", session.tenant()), ("you", viewer.name), ("role", viewer.roles[session.tenant()])])


main()
