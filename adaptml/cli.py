"""The command `adaptml`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from adaptml import folder as drop
from adaptml import show
from adaptml.commands import adapters, chat, doctor, listing, operate, runs
from adaptml.dataset.check import DataSource
from adaptml.report import manifest_report, rejected_markdown, to_json, validation_report
from adaptml.tokens.chat import ChatTokenizer
from adaptml.tokens.preview import to_lines
from adaptml.tokens.store import in_folder
from adaptml.verdict import Verdict, check_drop
from schemas import layout
from schemas.catalogue import CATALOGUE
from schemas.errors import Problem, Refused
from schemas.text import printable

ACCEPTED, REFUSED, USAGE = 0, 1, 2

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def adaptml() -> None:
    """Fine-tune an LLM by copying a folder into a bucket."""


app.command()(runs.drop)
app.command()(listing.runs)
app.command()(runs.watch)
app.command()(listing.logs)
app.command()(runs.cancel)
app.command()(runs.resume)
app.command()(adapters.adapters)
app.command()(adapters.promote)
app.command()(adapters.rollback)
app.command()(adapters.compare)
app.command()(chat.chat)
app.add_typer(operate.dead_letters, name="dead-letters")
app.command()(operate.replay)
app.command()(operate.rebuild)
app.command()(doctor.doctor)


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="The drop: a folder with a manifest and its data files.")],
    defaults: Annotated[
        Path | None, typer.Option(help=f"The tenant's {layout.DEFAULTS}. [default: the one beside the folder, if any]")
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(
            envvar="ADAPTML_MODELS_DIR",
            help="Folder of prepared base models; without it, tokens are estimated from characters.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help=f"Write {layout.REPORT}, {layout.PREVIEW} and {layout.REJECTED} there.")
    ] = None,
    previews: Annotated[
        int, typer.Option("--preview", min=0, help="How many examples to show as the model sees them.")
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help=f"Print {layout.REPORT} and nothing else.")] = False,
) -> None:
    """Check a drop before it is copied: every row, tokens, GPU memory, time and cost.

    Does what intake does, with the same code. Exit status: 0 accepted, 1 refused, 2 wrong use.
    """
    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    for path, is_right, kind in (
        (folder, folder.is_dir(), "folder"),
        (defaults, defaults is None or defaults.is_file(), "file"),
        (models, models is None or models.is_dir(), "folder"),
        (out, out is None or out.is_dir() or not out.exists(), "folder"),
    ):
        if not is_right:
            errors.print(f"{printable(path, 1000)} is not a {kind}", markup=False)
            raise typer.Exit(USAGE)
    try:
        verdict = _checked(folder.resolve(), defaults, models, errors)
    except Refused as refused:
        _finish_refused(folder, refused.problems, out, console, as_json=as_json)
        raise typer.Exit(REFUSED) from None
    document = validation_report(verdict)
    if out is not None:
        _write(out, to_json(document), verdict)
    if as_json:
        sys.stdout.write(to_json(document))
    else:
        console.print(show.verdict(verdict, previews=previews))
    raise typer.Exit(ACCEPTED if verdict.is_accepted else REFUSED)


def _checked(folder: Path, defaults: Path | None, models: Path | None, console: Console) -> Verdict:
    manifest = drop.read_manifest(folder, defaults or drop.defaults_beside(folder))
    sources, missing = drop.sources(folder, manifest)
    if missing:
        raise Refused(missing)
    row = CATALOGUE[manifest.base_model]
    tokenizer: ChatTokenizer | None = in_folder(models)(row) if models is not None else None
    with Progress(
        TextColumn("checking {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal,
    ) as progress:  # fmt: skip
        return check_drop(manifest, [_watched(source, folder, progress) for source in sources], tokenizer)


def _watched(source: DataSource, folder: Path, progress: Progress) -> DataSource:
    return replace(source, open=partial(progress.open, folder / source.name, "rb", description=escape(source.name)))


def _finish_refused(
    folder: Path, problems: Sequence[Problem], out: Path | None, console: Console, *, as_json: bool
) -> None:
    """A drop of which no data was looked at."""
    document = manifest_report(problems)
    if out is not None:
        drop.write(out / layout.REPORT, to_json(document))
        (out / layout.PREVIEW).unlink(missing_ok=True)
        _write_rejected(out, problems, document["counts"])
    if as_json:
        sys.stdout.write(to_json(document))
    else:
        console.print(show.refusal(folder.resolve().name, problems, document["counts"]))


def _write(out: Path, report: str, verdict: Verdict) -> None:
    drop.write(out / layout.REPORT, report)
    drop.write(out / layout.PREVIEW, to_lines(verdict.preview))
    if verdict.is_accepted:
        (out / layout.REJECTED).unlink(missing_ok=True)
    else:
        _write_rejected(out, verdict.errors, verdict.error_counts)


def _write_rejected(out: Path, problems: Sequence[Problem], counts: dict[str, int]) -> None:
    facts = "Checked before it was copied."
    drop.write(out / layout.REJECTED, rejected_markdown("refused", facts, problems, counts))


def main() -> None:
    """The console script."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    app()


if __name__ == "__main__":
    main()
