"""A drop put together: data, settings, what the check says of them, what it will cost; then it is copied."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import streamlit as st

from adaptml.planning.wording import describe
from adaptml.verdict import Verdict
from dashboard import drop, form, session, words
from dashboard.drop import Data, Draft
from dashboard.elements import facts, nothing, preview, problems, said
from schemas import layout
from schemas.catalogue import CATALOGUE
from schemas.errors import Problem, Refused, Severity
from schemas.manifest import is_drop_name

RECENT = 50
PREVIEWS = 5
TYPES = ["jsonl", "json", "csv", "tsv", "parquet", "gz", "yaml", "yml"]


def show() -> None:
    """From top to bottom as somebody thinks of it."""
    st.title("Fine-tune a model")
    st.subheader("Data")
    files, written, lies_in = _data()
    if not files:
        st.caption(
            "JSON Lines, JSON, CSV, TSV or Parquet, also packed: conversations, prompts and completions, Alpaca, "
            "ShareGPT or text."
        )
        return
    folder = _folder(files, lies_in)
    st.subheader("Settings")
    manifest = _manifest(list(files), written)
    if not is_drop_name(folder):
        st.warning("The name is 1 to 48 lower-case letters, digits and hyphens.")
        return
    st.subheader("What comes of it")
    _verdict(Draft(session.tenant(), folder, manifest, files))


def _data() -> tuple[dict[str, Data], str | None, str | None]:
    """(data files by name, a manifest that came with them, the folder that they lie in already)."""
    where = st.segmented_control(
        "Data", ["Upload", "In the bucket"], default="Upload", required=True, label_visibility="collapsed"
    )
    if where == "Upload":
        chosen = st.file_uploader(
            "Data files, with a manifest if you have one",
            type=TYPES,
            accept_multiple_files=True,
            max_upload_size=drop.LARGEST_UPLOAD_MB,
            help="Larger files: gsutil cp them into the bucket and pick them there.",
        )
        held = {file.name: file.getvalue() for file in chosen}
        manifests = [name for name in held if name in layout.MANIFEST_NAMES]
        written = held[manifests[0]].decode("utf-8", "replace") if manifests else None
        data = {name: drop.uploaded(name, content) for name, content in held.items() if name not in layout.RESERVED}
        return data, written, None
    recent = session.services().runs.queries.of_tenant(session.tenant(), at_most=RECENT).runs
    folders = list(dict.fromkeys(run.folder for run in recent if is_drop_name(run.folder)))
    folder = st.selectbox(
        "Folder", folders, index=None, accept_new_options=True, placeholder="A folder of the drops bucket"
    )
    if folder is None or not is_drop_name(folder):
        return {}, None, None
    found = session.services()
    lying = drop.lying(found.objects, found.settings.drops_bucket, session.tenant(), folder)
    if not lying:
        nothing("No data lies in that folder.")
        return {}, None, None
    chosen_names = st.multiselect("Files", list(lying), default=list(lying))
    return {name: lying[name] for name in chosen_names}, None, folder


def _folder(files: dict[str, Data], lies_in: str | None) -> str:
    if lies_in is not None:
        return lies_in
    return st.text_input(
        "Name of the adapter, and of the folder", value=form.folder_of(list(files)), key="folder"
    ).strip()


def _manifest(names: list[str], written: str | None) -> str:
    """What the form says, or what an expert writes."""
    by_hand = written is not None
    way = st.segmented_control(
        "Settings", ["Form", "Manifest"], default="Manifest" if by_hand else "Form", required=True,
        label_visibility="collapsed", key=f"way-{by_hand}",
    )  # fmt: skip
    if way == "Form":
        st.session_state["_from_form"] = form.manifest_text(_form(names))
        return cast(str, st.session_state["_from_form"])
    first = written or st.session_state.get("_from_form") or form.manifest_text(_unasked(names))
    return st.text_area("manifest.yaml", value=first, height=320, key=f"manifest-{hash(first)}")


def _unasked(names: list[str]) -> form.Settings:
    return form.Settings(base_model=form.DEFAULT.base_model, train=names)


def _form(names: list[str]) -> form.Settings:
    default = _unasked(names)
    held_out = [name for name in names if name.startswith(("val", "test", "eval"))] if len(names) > 1 else []
    model = st.selectbox("Base model", list(CATALOGUE), index=list(CATALOGUE).index(default.base_model))
    left, right = st.columns(2)
    epochs = left.number_input("Epochs", 0.1, 100.0, default.epochs, 0.5)
    rate = right.number_input("Learning rate", 1e-6, 1.0, default.learning_rate, 1e-5, format="%.6f")
    rank = left.select_slider(
        "Rank", form.RANKS, default.r, help="How much the adapter can learn. Alpha is twice the rank."
    )
    limit = CATALOGUE[model].context
    lengths = [length for length in form.LENGTHS if length <= limit]
    length = right.select_slider(
        "Sequence length, tokens", lengths, min(default.max_seq_length, lengths[-1]),
        help="What is longer is refused, cut or left out: see Overlong examples.",
    )  # fmt: skip
    validation: list[str] = []
    if len(names) > 1:
        validation = st.multiselect(
            "Held-out files",
            names,
            default=held_out,
            help="Their loss is measured before and after. Without any, 5 % is held out.",
        )
    with st.expander("More settings"):
        one, other = st.columns(2)
        method = one.selectbox("Method", ["qlora", "lora"], help="qlora holds the base model in 4 bits, lora in 16.")
        modules = other.selectbox("Layers", ["attention", "all-linear"])
        train_on = one.selectbox("Trained on", ["completions", "all"], help="The assistant's tokens, or all.")
        overlong = other.selectbox("Overlong examples", ["reject", "truncate", "drop"])
        invalid = one.selectbox(
            "Invalid rows", ["fail", "quarantine"], help="Refuse the drop, or leave them out and list them."
        )
        batch = other.number_input("Examples a step", 1, 1024, None, placeholder="auto")
        patience = one.number_input("Early stopping after so many evaluations", 1, 100, None, placeholder="off")
        cost = other.number_input("Highest cost, USD", 0.01, 10_000.0, default.max_cost_usd, 0.5)
    return form.Settings(
        base_model=model, train=[name for name in names if name not in validation], validation=validation,
        method=method, epochs=float(epochs), learning_rate=float(rate), r=rank, target_modules=modules,
        max_seq_length=length,
        overlong=overlong, train_on=train_on, batch_size=batch, patience=patience, on_invalid_row=invalid,
        max_cost_usd=float(cost),
    )  # fmt: skip


def _checked(draft: Draft) -> Verdict | list[Problem]:
    """What the check says, or why no data was looked at. Not done again while nothing changes."""
    defaults = drop.tenant_defaults(session.services(), draft.tenant)
    key = (draft.identity, defaults)
    known = st.session_state.get("_checked")
    if known is not None and known[0] == key:
        return cast(Verdict | list[Problem], known[1])
    found: Verdict | list[Problem]
    with st.spinner("Checking every row …"):
        try:
            found = drop.check(draft, defaults, session.tokenizers())
        except Refused as refused:
            found = refused.problems
    st.session_state["_checked"] = (key, found)
    return found


def _verdict(draft: Draft) -> None:
    found = _checked(draft)
    if isinstance(found, list):
        st.error("This would be refused: the data was not looked at yet.", icon=":material/block:")
        problems(found)
        return
    if not found.is_accepted:
        total = sum(found.error_counts.values())
        st.error(f"This would be refused: {total:,} problem{'s' if total != 1 else ''}.", icon=":material/block:")
        problems(found.errors, total)
    if found.plan is not None:
        _plan(found)
    _about(found)
    if found.is_accepted:
        _start(draft, found)


def _plan(found: Verdict) -> None:
    plan = found.plan
    if plan is None:
        return
    with st.container(horizontal=True):
        _figure("Cost", plan.cost_usd, plan.cost_usd_range, words.money)
        _figure("Time on the GPU", plan.duration_s, plan.duration_s_range, words.span)
        _figure("GPU memory", plan.gpu_memory_gb, plan.gpu_memory_gb_range, "{:.1f} GB".format)
    said(describe(plan))


def _figure(name: str, expected: float, bounds: tuple[float, float] | None, word: Callable[[float], str]) -> None:
    """What is expected, and below it between what."""
    between = f"{word(bounds[0])} to {word(bounds[1])}" if bounds is not None else None
    st.metric(name, word(expected), between, delta_color="off", delta_arrow="off", width="content")


def _about(found: Verdict) -> None:
    report = found.report
    rows = [("training", words.training(found.manifest)), ("data", _rows(found))]
    if found.measured is not None:
        shares = found.measured.figures.percentiles
        lengths = f"half up to {shares['p50']:,}, 95 % up to {shares['p95']:,}, longest {shares['max']:,}"
        rows.append(("tokens", f"{lengths}; {found.measured.figures.overlong:,} too long"))
    facts(rows)
    for title, kind in (
        ("rows set aside", found.set_aside),
        ("warnings", report.of(Severity.WARNING)),
        ("notes", report.of(Severity.NOTE)),
    ):
        if kind:
            with st.expander(f"{len(kind):,} {title}"):
                problems(kind, mild=True)
    if found.preview:
        st.subheader("As the model reads it")
        st.caption("What it is trained on is marked green.")
        number = 1
        if len(found.preview) > 1:
            number = (
                st.segmented_control(
                    "Example", range(1, min(PREVIEWS, len(found.preview)) + 1), default=1, required=True
                )
                or 1
            )
        preview(found.preview[number - 1])


def _rows(found: Verdict) -> str:
    report = found.report
    text = f"{report.examples['train']:,} examples of {report.rows['train']:,} rows"
    if found.manifest.dataset.validation:
        text += f", {report.examples['validation']:,} of {report.rows['validation']:,} held out"
    return f"{text}, {report.shape or 'no known shape'}"


def _start(draft: Draft, found: Verdict) -> None:
    """The button. What was started once is not started again by a second click."""
    if not session.may_write():
        st.info("You may look at this tenant's runs and start none.", icon=":material/lock:")
        return
    sent: dict[str, str] = st.session_state.setdefault("_sent", {})
    cost = words.money(found.plan.cost_usd) if found.plan else ""
    if (before := sent.get(draft.identity)) is not None:
        session.link("run", "It was started: see its run", run=before)
        if not st.button("Start it once more"):
            return
        del sent[draft.identity]
    elif not st.button(f"Start training, about \\{cost}", type="primary", icon=":material/play_arrow:"):
        return
    if draft.identity not in sent:
        sent[draft.identity] = drop.submit(session.services(), draft, found.manifest)
    st.session_state["_asked_for"] = sent[draft.identity]
    session.go("run", run=sent[draft.identity])
