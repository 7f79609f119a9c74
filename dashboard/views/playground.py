"""Base model and adapter, asked the same."""

from __future__ import annotations

import streamlit as st

from adaptml import adapters as registry
from adaptml import playground
from adaptml.aliases import Numbered
from adaptml.playground import Unanswered
from dashboard import session
from dashboard.elements import nothing, said
from schemas.playground import LONGEST_PROMPT, Answers, Question

LENGTHS = (24, 48, 96, 192, 384)


def show() -> None:
    """Which adapter, what to ask, and both answers side by side."""
    st.title("Playground")
    address = playground.url()
    if address is None:
        nothing("This deployment has no playground: its service is not set up.")
        return
    names = [adapter.name for adapter in registry.of_tenant(session.services(), session.tenant())]
    if not names:
        nothing("No adapter yet: the first run that succeeds makes one.")
        session.link("new", "Fine-tune a model")
        return
    left, right = st.columns(2)
    name = left.selectbox("Adapter", names)
    found = registry.show(session.services(), session.tenant(), name)
    readable = {one.version.version: one for one in reversed(found.versions) if one.is_readable}
    if not readable:
        nothing("No version of it can be read yet.")
        return
    version = right.selectbox("Version", list(readable), format_func="v{}".format)
    with st.form("question", border=False):
        prompt = st.text_area("Ask", max_chars=LONGEST_PROMPT, height=110)
        system = st.text_input("System prompt", max_chars=LONGEST_PROMPT, placeholder="none")
        length = st.select_slider("Longest answer, tokens", LENGTHS, LENGTHS[1])
        if st.form_submit_button("Ask both", type="primary") and prompt.strip():
            st.session_state["_answered"] = _asked(address, _question(readable[version], prompt, system, length))
    _show(st.session_state.get("_answered"))


def _question(one: Numbered, prompt: str, system: str, length: int) -> Question:
    run = one.run
    method = run.manifest.method if run is not None and run.manifest is not None else "qlora"
    name = run.name if run is not None else ""
    return Question(
        tenant=session.tenant(),
        name=name,
        version=one.version.version,
        method=method,
        prompt=prompt,
        system=system,
        max_new_tokens=length,
    )


def _asked(address: str, question: Question) -> tuple[Question, Answers | str]:
    with st.spinner("Both are answering; the first question of a while takes longest …"):
        try:
            return question, playground.ask(address, question)
        except Unanswered as why:
            return question, str(why)


def _show(answered: tuple[Question, Answers | str] | None) -> None:
    if answered is None or answered[0].tenant != session.tenant():
        return
    question, answers = answered
    if isinstance(answers, str):
        st.error("There is no answer.", icon=":material/cloud_off:")
        said(answers)
        return
    for column, heading, text in zip(
        st.columns(2),
        ("Base model", f"{question.name} v{question.version}"),
        (answers.base, answers.adapter),
        strict=True,
    ):
        with column, st.container(border=True):
            st.caption(heading)
            said(text or "(it said nothing)")
    st.caption(f"To: {len(question.prompt):,} characters; greedy, {answers.seconds:.1f} s.")
