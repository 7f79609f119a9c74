"""Commands for whoever operates a deployment: dead letters, and Firestore's documents anew.

They work on what the environment names, as a function does (docs/operations.md). Google's clients are imported only
when one of them is called.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from adaptml.commands.deployment import DONE, FAILED, USAGE, connected
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
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each.")] = False,
) -> None:
    """Messages that no function took: list them, or publish them again.

    Exit status: 0, also when there are none; 1 a service did not answer; 2 wrong use.
    """
    if context.invoked_subcommand is not None:
        return
    with connected() as services:
        found = _selected(services, topic)
    if as_json:
        for letter in found:
            sys.stdout.write(json.dumps(letter.model_dump(mode="json")) + "\n")
    elif found:
        Console(highlight=False).print(_table(found))
    else:
        Console(highlight=False).print("no dead letters")


@dead_letters.command()
def replay(
    message_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[MESSAGE_ID…]", help="As `adaptml dead-letters` lists them.")
    ] = None,
    topic: TopicOption = None,
    every: Annotated[bool, typer.Option("--all", help="All that were not published again yet.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Those, too, that were published again before.")] = False,
) -> None:
    """Publish messages to their topic again, and note it.

    Whatever was published again is left out the next time. Remove the cause first: a message that is still not taken
    becomes a new dead letter. Exit status: 0 all done; 1 one could not be published, or is not known; 2 wrong use.
    """
    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    wanted = set(message_ids or [])
    if bool(wanted) == every:
        errors.print("name messages, or give --all; `adaptml dead-letters` lists them")
        raise typer.Exit(USAGE)
    with connected() as services:
        found = [letter for letter in _selected(services, topic) if every or letter.message_id in wanted]
        unknown = sorted(wanted - {letter.message_id for letter in found})
        failed = [letter for letter in found if not _replay(services, letter, console, errors, again=again)]
    for message_id in unknown:
        errors.print(f"{printable(message_id)}: no such dead letter", markup=False, soft_wrap=True)
    if every and not found:
        console.print("no dead letters")
    raise typer.Exit(FAILED if failed or unknown else DONE)


def _replay(services: Services, letter: DeadLetter, console: Console, errors: Console, *, again: bool) -> bool:
    from google.api_core.exceptions import GoogleAPICallError, RetryError

    from adaptml.dead_letters import replay as publish
    from adaptml.objects import ObjectGone

    name = f"{letter.message_id} of {letter.topic}"
    if letter.replayed_at is not None and not again:
        console.print(
            f"{name}: was published again at {letter.replayed_at:%Y-%m-%d %H:%M:%S} UTC", markup=False, soft_wrap=True
        )
        return True
    try:
        publish(services, letter)
    except ObjectGone:
        errors.print(f"{name}: {letter.payload_uri} is gone", markup=False, soft_wrap=True)
        return False
    except (GoogleAPICallError, RetryError, TimeoutError) as error:
        errors.print(f"{name}: not published: {type(error).__name__}", markup=False, soft_wrap=True)
        return False
    console.print(f"{name}: published again", markup=False, soft_wrap=True)
    return True


def rebuild(
    do_write: Annotated[bool, typer.Option("--write", help="Write. Without it, only say what would be.")] = False,
    missing_only: Annotated[
        bool, typer.Option("--missing-only", help="Go on although there are runs; those stay as they are.")
    ] = False,
) -> None:
    """Write Firestore's documents anew after they were lost, from the artifacts bucket.

    Runs with their audit trail, versions, what tenants spent, and who holds a GPU. Whatever is stored stays. Limits of
    tenants, quota of GPUs, loss curves and the list of dead letters cannot be rebuilt. Exit status: 0 done, or nothing
    to do; 1 refused, or an object of the audit trail could not be read; 2 wrong use.
    """
    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    with connected() as services:
        from adaptml.rebuild import plan, write

        if do_write and not missing_only and not services.runs.is_empty():
            errors.print("there are runs in Firestore; to write only those that are missing: --missing-only")
            raise typer.Exit(FAILED)
        found = plan(services)
        console.print(_summary(found))
        for name in found.unreadable[:20]:
            errors.print(f"cannot be read: {name}", markup=False, soft_wrap=True)
        if do_write:
            written = [is_new for _, is_new in write(services, found)]
            console.print(f"{sum(written)} runs written, {len(found.runs) - sum(written)} were there")
            console.print("set limits of tenants and quota of GPUs again (docs/operations.md)")
        elif found.missing:
            console.print("nothing was written; to do it: adaptml rebuild --write", markup=False, soft_wrap=True)
    raise typer.Exit(FAILED if found.unreadable else DONE)


def _selected(services: Services, topic: str | None) -> list[DeadLetter]:
    found = [letter for letter in services.runs.dead_letters.all() if topic in (None, letter.topic)]
    return sorted(found, key=lambda letter: letter.at)


def _table(found: list[DeadLetter]) -> Table:
    table = Table("message", "topic", "run", "deliveries", "noted", "published again", "reason")
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
