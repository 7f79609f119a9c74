"""Commands for whoever operates a deployment: dead letters, and Firestore's documents anew.

They work on what the environment names, as a function does (docs/operations.md). Google's clients are imported only
when one of them is called.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table
from rich.text import Text

from adaptml.commands.deployment import (
    DONE,
    FAILED,
    USAGE,
    JsonOption,
    connected,
    errors,
    out,
    print_json,
    print_lines,
)
from adaptml.quota import usd
from schemas.text import printable

if TYPE_CHECKING:
    from adaptml.rebuild import Plan
    from adaptml.services import Services
    from schemas.run import DeadLetter

dead_letters = typer.Typer(pretty_exceptions_enable=False)

IdsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[MESSAGE_ID…]", help="As `adaptml dead-letters` lists them.")
]
TopicOption = Annotated[str | None, typer.Option("--topic", help="Only messages that were published to this topic.")]


@dead_letters.callback(invoke_without_command=True)
def list_dead_letters(
    context: typer.Context,
    topic: TopicOption = None,
    as_json: JsonOption = False,
) -> None:
    """Messages that no function took: list them, or publish them again.

    Exit status: 0, also when there are none; 1 a service did not answer; 2 wrong use.
    """
    if context.invoked_subcommand is not None:
        return
    with connected() as services:
        found = _selected(services, topic)
    if as_json:
        print_lines([letter.model_dump(mode="json") for letter in found])
    elif found:
        out.print(_table(found))
    else:
        out.print("no dead letters")


@dead_letters.command()
def replay(
    message_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[MESSAGE_ID…]", help="As `adaptml dead-letters` lists them.")
    ] = None,
    topic: TopicOption = None,
    every: Annotated[bool, typer.Option("--all", help="All that were not published again yet.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Those, too, that were published again before.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Publish messages to their topic again, and note it.

    Whatever was published again is left out the next time. Remove the cause first: a message that is still not taken
    becomes a new dead letter. Exit status: 0 all done; 1 one could not be published, or is not known; 2 wrong use.
    """
    wanted = set(message_ids or [])
    if bool(wanted) == every:
        errors.print("name messages, or give --all; `adaptml dead-letters` lists them")
        raise typer.Exit(USAGE)
    with connected() as services:
        found = [letter for letter in _selected(services, topic) if every or letter.message_id in wanted]
        unknown = sorted(wanted - {letter.message_id for letter in found})
        outcomes = [_replay(services, letter, again=again) for letter in found]
    outcomes += [Replayed(message_id, "", is_done=False, said="no such dead letter") for message_id in unknown]
    if as_json:
        print_lines([asdict(outcome) for outcome in outcomes])
    for outcome in [] if as_json else outcomes:
        console = out if outcome.is_done else errors
        of = f" of {outcome.topic}" if outcome.topic else ""
        console.print(f"{printable(outcome.message_id)}{of}: {outcome.said}", markup=False, soft_wrap=True)
    if not outcomes and not as_json:
        out.print("no dead letters")
    raise typer.Exit(DONE if all(outcome.is_done for outcome in outcomes) else FAILED)


@dataclass(frozen=True)
class Replayed:
    """What became of one message."""

    message_id: str
    topic: str
    is_done: bool
    said: str


def _replay(services: Services, letter: DeadLetter, *, again: bool) -> Replayed:
    from google.api_core.exceptions import GoogleAPICallError, RetryError

    from adaptml.dead_letters import replay as publish
    from adaptml.objects import ObjectGone

    outcome = partial(Replayed, letter.message_id, letter.topic)
    if letter.replayed_at is not None and not again:
        return outcome(is_done=True, said=f"was published again at {letter.replayed_at:%Y-%m-%d %H:%M:%S} UTC")
    try:
        publish(services, letter)
    except ObjectGone:
        return outcome(is_done=False, said=f"{letter.payload_uri} is gone")
    except (GoogleAPICallError, RetryError, TimeoutError) as error:
        return outcome(is_done=False, said=f"not published: {type(error).__name__}")
    return outcome(is_done=True, said="published again")


def rebuild(
    do_write: Annotated[bool, typer.Option("--write", help="Write. Without it, only say what would be.")] = False,
    missing_only: Annotated[
        bool, typer.Option("--missing-only", help="Go on although there are runs; those stay as they are.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write Firestore's documents anew after they were lost, from the artifacts bucket.

    Runs with their audit trail, versions, what tenants spent, and who holds a GPU. Whatever is stored stays. Limits of
    tenants, quota of GPUs, loss curves and the list of dead letters cannot be rebuilt. Exit status: 0 done, or nothing
    to do; 1 refused, or an object of the audit trail could not be read; 2 wrong use.
    """
    with connected() as services:
        from adaptml.rebuild import plan, write

        if do_write and not missing_only and not services.runs.is_empty():
            errors.print("there are runs in Firestore; to write only those that are missing: --missing-only")
            raise typer.Exit(FAILED)
        found = plan(services)
        written = sum(is_new for _, is_new in write(services, found)) if do_write else 0
    if as_json:
        print_json(_counts(found) | {"written": written})
    else:
        _tell(found, written if do_write else None)
    raise typer.Exit(FAILED if found.unreadable else DONE)


def _tell(found: Plan, written: int | None) -> None:
    """`written` is None where nothing was to be written."""
    out.print(_summary(found))
    for name in found.unreadable[:20]:
        errors.print(f"cannot be read: {name}", markup=False, soft_wrap=True)
    if written is not None:
        out.print(f"{written} runs written, {len(found.runs) - written} were there")
        out.print("set limits of tenants and quota of GPUs again (docs/operations.md)")
    elif found.missing:
        out.print("nothing was written; to do it: adaptml rebuild --write", markup=False, soft_wrap=True)


def _counts(found: Plan) -> dict[str, Any]:
    return {
        "missing": Counter(one.run.state.value for one in found.missing),
        "stored": len(found.existing),
        "versions": sum(map(len, found.versions.values())),
        "unreadable": found.unreadable,
    }


def _selected(services: Services, topic: str | None) -> list[DeadLetter]:
    found = [letter for letter in services.runs.dead_letters.all() if topic in (None, letter.topic)]
    return sorted(found, key=lambda letter: letter.at)


def _table(found: list[DeadLetter]) -> Table:
    table = Table("message", "topic", Column("run", no_wrap=True), "deliveries", "noted", "published again", "reason")
    for letter in found:
        cells = (
            letter.message_id, letter.topic, letter.run_id or "–", str(letter.count), f"{letter.at:%Y-%m-%d %H:%M}",
            f"{letter.replayed_at:%Y-%m-%d %H:%M}" if letter.replayed_at else "–", letter.reason,
        )  # fmt: skip
        table.add_row(*(Text(printable(cell, 400)) for cell in cells))
    return table


def _summary(found: Plan) -> Table:
    states = Counter(one.run.state.value for one in found.missing)
    spent = [(whose, month, usd(at)) for whose, months in found.spent_usd.items() for month, at in months.items()]
    table = Table.grid(padding=(0, 2))
    table.add_row("runs missing", Text(_listed(f"{state} {count}" for state, count in states.items())))
    table.add_row("runs stored", str(len(found.existing)))
    table.add_row("adapters", f"{len(found.versions)} with {sum(map(len, found.versions.values()))} versions")
    table.add_row("spent", Text(_listed(f"{printable(whose)} {month} ${at}" for whose, month, at in spent)))
    return table


def _listed(parts: Iterable[str]) -> str:
    return ", ".join(sorted(parts)) or "none"
