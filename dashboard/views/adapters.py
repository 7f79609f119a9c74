"""The adapters of a tenant."""

from __future__ import annotations

import streamlit as st

from adaptml import adapters as registry
from dashboard import session
from dashboard.elements import dim, label, line, nothing


def show() -> None:
    """By name, each with where its aliases point."""
    st.title("Adapters")
    found = registry.of_tenant(session.services(), session.tenant())
    if not found:
        nothing("No adapter yet: the first run that succeeds makes one.")
        session.link("new", "Fine-tune a model")
    for adapter in found:
        with st.container(border=True, gap=None):
            session.link("adapter", adapter.name, name=adapter.name)
            pointing = [label(f"{alias} → v{version}", "live") for alias, version in sorted(adapter.aliases.items())]
            line(dim(f"last version {adapter.last_version}"), *pointing)
