"""Who this browser is, whose things it looks at, and the services behind the page."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import NoReturn, cast

import requests
import streamlit as st
from google.api_core.exceptions import GoogleAPICallError, RetryError

from adaptml.services import Services
from adaptml.tokens.bucket import in_bucket
from adaptml.tokens.store import Find
from dashboard import viewer as viewers
from dashboard.viewer import NotAllowed, Viewer
from schemas.run import Run
from schemas.text import markdown, printable

UNANSWERED = (GoogleAPICallError, RetryError, TimeoutError, ConnectionError)
"""What a service that does not answer raises."""


def services() -> Services:
    """One set of clients for all sessions; they are made to be shared by threads."""
    return Services.from_env()


@st.cache_resource
def tokenizers() -> Find:
    """Finds tokenizers, and keeps those that were read."""
    found = services()
    return in_bucket(found.objects, found.settings.models_bucket)


@st.cache_data(ttl=timedelta(minutes=10), show_spinner=False)
def _certificates() -> Mapping[str, str]:
    answer = requests.get(viewers.CERTIFICATES, timeout=10)
    answer.raise_for_status()
    return cast(Mapping[str, str], answer.json())


def viewer() -> Viewer:
    """Who looks. The proxy's word comes with the connection and is looked at once for each: it is good for minutes,
    and a page is open for hours. Stops the page for somebody who may see nothing."""
    try:
        return _viewer()
    except NotAllowed as refused:
        st.title("Nothing to see")
        st.text(str(refused))
        st.stop()


def _viewer() -> Viewer:
    if (open_to := os.environ.get(viewers.OPEN_TO)) is not None:
        return viewers.everybody(open_to)
    audience = os.environ.get(viewers.AUDIENCE)
    if not audience:
        raise NotAllowed(f"This page cannot tell who you are: {viewers.AUDIENCE} is not set.")
    token = st.context.headers.get(viewers.ASSERTION)
    known = st.session_state.get("_viewer")
    if known is not None and known[0] == token:
        return cast(Viewer, known[1])
    email = viewers.signed_in(token, _certificates(), audience)
    found = viewers.member(email, services().settings.api_members)
    st.session_state["_viewer"] = (token, found)
    return found


def tenant() -> str:
    """Whose things are looked at; chosen in the sidebar."""
    return cast(str, st.session_state["tenant"])


def may_write() -> bool:
    """Whether the viewer may change something of the tenant that is looked at."""
    return viewer().may_write(tenant())


def own_run(run_id: str | None) -> Run | None:
    """The run, if there is one and the viewer may see it: to others it is not there."""
    run = services().runs.find(run_id) if run_id else None
    return run if run is not None and viewer().may_see(run.tenant) else None


def unanswered(error: Exception) -> None:
    """Says that a service did not answer. Its own text may hold names of projects and is for the log."""
    st.error(f"A service did not answer ({type(error).__name__}). Reload in a moment.", icon=":material/cloud_off:")


def guarded(page: Callable[[], None]) -> Callable[[], None]:
    """The page, which says so where a service does not answer."""

    def show() -> None:
        try:
            page()
        except UNANSWERED as error:
            unanswered(error)

    show.__name__ = page.__name__
    return show


def go(page: str, **query: str) -> NoReturn:
    """To another page."""
    st.switch_page(st.session_state["_pages"][page], query_params=query)


def link(page: str, text: str, **query: str) -> None:
    """A link to another page."""
    st.page_link(st.session_state["_pages"][page], label=markdown(printable(text)), query_params=query)
