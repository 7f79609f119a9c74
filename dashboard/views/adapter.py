"""One adapter: its versions and where they come from, what two of them differ in, and where its aliases point."""

from __future__ import annotations

import uuid

import streamlit as st

from adaptml import adapters as registry
from adaptml import figures
from adaptml.adapters import Shown
from adaptml.aliases import Asked, Numbered
from adaptml.comparison import Comparison, lineage
from dashboard import session, versions, words
from dashboard.elements import badge, dim, facts, label, line, nothing, problems, table
from schemas.adapter import LATEST, PROD, Action
from schemas.errors import Refused
from schemas.manifest import is_drop_name
from schemas.run_states import RunState
from schemas.text import markdown, printable


def show() -> None:
    """Versions, the newest first; then what can be done with them."""
    name = st.query_params.get("name", "")
    if not is_drop_name(name):
        nothing("No adapter is named. Choose one of the list.")
        session.link("adapters", "All adapters")
        return
    try:
        found = registry.show(session.services(), session.tenant(), name)
    except Refused as refused:
        problems(refused.problems)
        session.link("adapters", "All adapters")
        return
    st.title(name)
    pointing = [label(f"{alias} → v{version}", "live") for alias, version in sorted(found.aliases.items())]
    line(*(pointing or [dim("no alias yet")]))
    what = st.segmented_control(
        "What", ["Versions", "Compare", "Aliases"], default="Versions", required=True, label_visibility="collapsed"
    )
    match what:
        case "Compare":
            _compare(found)
        case "Aliases":
            _aliases(found)
        case _:
            for one in reversed(found.versions):
                _version(found, one)


def _version(found: Shown, one: Numbered) -> None:
    version, run = one
    of = lineage(one)
    with st.container(border=True):
        aliases = [label(alias, "live") for alias, number in found.aliases.items() if number == version.version]
        gate = label("may be promoted", "good") if version.promotable else label("kept back by its gate", "bad")
        state = [badge(run.state)] if run is not None and run.state is not RunState.SUCCEEDED else []
        line(
            f"<strong>v{version.version}</strong>",
            *aliases,
            gate,
            *state,
            dim(f"{version.claimed_at:%Y-%m-%d %H:%M} UTC"),
        )
        measured = figures.held_out(of.metrics)
        if measured:
            rows = [(m.name, m.before, m.after) for m in measured]
            table(("on held-out data", "base", "adapter"), rows, {at: m.is_better for at, m in enumerate(measured)})
        counted = f"{of.train_examples:,} examples, {of.validation_examples:,} held out in files"
        shown = [
            ("base model", of.base_model or "–"),
            ("data", "\n".join([f"{counted}, {of.tokens:,} tokens an epoch", *map(words.pinned, of.data)])),
            ("cost", words.money(of.cost_usd)),
        ]
        if not version.promotable:
            shown.append(("gate", version.promotable_reason))
        facts(shown)
        with st.container(horizontal=True):
            if run is not None:
                session.link("run", "Its run", run=version.run_id)
            if of.resumes:
                session.link("run", "Goes on from a run", run=of.resumes)
        _download(one)


def _download(one: Numbered) -> None:
    run, number = one.run, one.version.version
    if run is None or run.artifacts is None or not one.is_readable:
        return
    with st.popover("Download", icon=":material/download:"):
        st.code(f"gcloud storage cp -r {run.artifacts.uri} .", language="shell", wrap_lines=True)
        if versions.is_small(run.artifacts):
            bundle = versions.Bundle(session.services(), run)
            st.download_button(
                f"All of it as a zip, {words.size(run.artifacts.size_bytes)}", bundle.packed,
                file_name=f"{run.name}-v{number}.zip", mime="application/zip", key=f"zip-{number}", on_click="ignore",
            )  # fmt: skip
        if st.button(
            "Links to its files", key=f"links-{number}", help="They work for 15 minutes, for whoever has them."
        ):
            for file, url in versions.links(session.services(), run):
                st.link_button(markdown(printable(file)), url)


def _aliases(found: Shown) -> None:
    if session.may_write():
        _movers(found)
    if found.moves:
        st.subheader("How they came there")
        moves = [
            (f"{move.moved_at:%Y-%m-%d %H:%M}", move.alias, words.moved(move), move.asked_by)
            for move in reversed(found.moves)
        ]
        table(("UTC", "alias", "", "by"), moves)
    st.caption(f"`{LATEST}` always points at the newest version that passed its gate.")


def _movers(found: Shown) -> None:
    name, numbers = found.adapter.name, [one.version.version for one in reversed(found.versions)]
    with st.container(border=True):
        st.subheader("Promote")
        left, right = st.columns(2)
        alias = left.text_input("Alias", PROD, max_chars=31)
        number = right.selectbox("Version", numbers, format_func="v{}".format)
        if st.button("Promote", type="primary"):
            _move(name, "promote", alias.strip(), number)
    if found.adapter.aliases:
        with st.container(border=True):
            st.subheader("Roll back")
            alias = st.selectbox("Alias", sorted(found.adapter.aliases), key="back")
            if st.button("Roll back"):
                _move(name, "roll_back", alias, None)


def _move(name: str, action: Action, alias: str, version: int | None) -> None:
    services = session.services()
    asked = Asked(uuid.uuid4().hex[:20], alias, action, version, services.now(), session.viewer().name)
    try:
        state = registry.move(services, session.tenant(), name, asked)
    except Refused as refused:
        problems(refused.problems)
        return
    st.toast(f"{alias} points at v{state.adapter.aliases[alias]}")
    st.rerun()


def _compare(found: Shown) -> None:
    numbers = [one.version.version for one in found.versions]
    if len(numbers) < 2:
        nothing("There is one version; two can be compared.")
        return
    left, right = st.columns(2)
    before = left.selectbox("Before", numbers, index=len(numbers) - 2, format_func="v{}".format)
    after = right.selectbox("After", numbers, index=len(numbers) - 1, format_func="v{}".format)
    try:
        _differences(
            registry.compare(session.services(), session.tenant(), found.adapter.name, f"v{before}", f"v{after}")
        )
    except Refused as refused:
        problems(refused.problems)


def _differences(found: Comparison) -> None:
    heads = (f"v{found.before.version}", f"v{found.after.version}")
    st.subheader("Figures")
    table(("", *heads, "change"), [(m.what, m.before, m.after, m.change) for m in found.metrics])
    for title, differences in (("Settings", found.settings), ("Data", found.data)):
        st.subheader(title)
        if differences:
            table(("", *heads), [(one.what, one.before or "–", one.after or "–") for one in differences])
        else:
            st.caption("The same.")
    if found.answers:
        st.subheader("Answers to held-out prompts")
        rows = [(a.question, a.expected, a.before or "not asked", a.after or "not asked") for a in found.answers]
        table(("asked", "in the data", *heads), rows)
