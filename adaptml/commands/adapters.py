"""Commands about adapters: versions, aliases, what two versions differ in."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from adaptml.commands.deployment import JsonOption, TenantOption, connected, out, print_json, print_lines
from adaptml.figures import shown
from schemas.adapter import PROD, Action
from schemas.text import printable, visible

if TYPE_CHECKING:
    from adaptml.adapters import Shown
    from adaptml.aliases import Numbered
    from adaptml.comparison import Answers, Comparison, Difference
    from adaptml.services import Services

NameArgument = Annotated[str, typer.Argument(metavar="ADAPTER", help="The adapter's name.")]
AliasOption = Annotated[str, typer.Option("--alias", "-a", help="Which alias.")]


def adapters(
    tenant: TenantOption,
    name: Annotated[str | None, typer.Argument(metavar="[ADAPTER]", help="Show its versions.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List a tenant's adapters, or one's versions with figures and aliases.

    Exit status: 0, also when there are none; 1 no such adapter, or a service did not answer; 2 wrong use.
    """
    from adaptml import adapters as registry

    with connected() as services:
        if name is not None:
            found = registry.show(services, tenant, name)
            print_json(_document(found)) if as_json else out.print(_versions(found))
            return
        every = registry.of_tenant(services, tenant)
        if as_json:
            print_lines([adapter.model_dump(mode="json") for adapter in every])
        elif every:
            table = Table("adapter", "last version", "aliases")
            for adapter in every:
                table.add_row(Text(adapter.name), f"v{adapter.last_version}", _pointing(adapter.aliases))
            out.print(table)
        else:
            out.print("no adapters")


def promote(
    name: NameArgument,
    tenant: TenantOption,
    version: Annotated[
        str | None, typer.Argument(metavar="[VERSION]", help="v3, or an alias. [default: the newest that may be]")
    ] = None,
    alias: AliasOption = PROD,
    as_json: JsonOption = False,
) -> None:
    """Point an alias at a version that passed its gate.

    Exit status: 0 it points there; 1 refused; 2 wrong use.
    """
    from adaptml import adapters as registry

    with connected() as services:
        number = registry.show(services, tenant, name).version(version).version.version if version else None
        _move(services, tenant, name, "promote", alias, number, as_json=as_json)


def rollback(name: NameArgument, tenant: TenantOption, alias: AliasOption = PROD, as_json: JsonOption = False) -> None:
    """Point an alias at what it pointed at before; once more: one step further back.

    Exit status: 0 it points there; 1 refused; 2 wrong use.
    """
    with connected() as services:
        _move(services, tenant, name, "roll_back", alias, None, as_json=as_json)


def _move(
    services: Services, tenant: str, name: str, action: Action, alias: str, version: int | None, *, as_json: bool
) -> None:
    from adaptml import adapters as registry
    from adaptml.aliases import Asked

    asked = Asked(uuid.uuid4().hex[:20], alias, action, version, services.now(), "adaptml, the command")
    state = registry.move(services, tenant, name, asked)
    pointing = state.adapter.aliases
    print_json({"adapter": name, "aliases": pointing}) if as_json else out.print(
        f"{alias} of {tenant}/{name} points at v{pointing[alias]}", markup=False
    )


def compare(
    name: NameArgument,
    before: Annotated[str, typer.Argument(metavar="BEFORE", help="v1, or an alias.")],
    after: Annotated[str, typer.Argument(metavar="AFTER", help="v2, or an alias.")],
    tenant: TenantOption,
    as_json: JsonOption = False,
) -> None:
    """What changed between two versions: settings, data, figures, answers.

    Exit status: 0; 1 no such version, or a service did not answer; 2 wrong use.
    """
    from adaptml import adapters as registry

    with connected() as services:
        found = registry.compare(services, tenant, name, before, after)
    print_json(found.model_dump(mode="json")) if as_json else out.print(_comparison(found))


def _document(found: Shown) -> dict[str, Any]:
    from adaptml.comparison import lineage

    return {
        "adapter": found.adapter.model_dump(mode="json"),
        "aliases": found.aliases,
        "versions": [lineage(one).model_dump(mode="json") for one in found.versions],
        "moves": [move.model_dump(mode="json") for move in found.moves],
    }


def _versions(found: Shown) -> RenderableType:
    fixed = {name: Column(name, no_wrap=True) for name in ("made", "examples", "eval\nloss", "run")}
    heads = ("version", "aliases", "made", "base model", "examples", "eval\nloss", "gate", "run")
    table = Table(*(fixed.get(head, head) for head in heads))
    by_version: dict[int, list[str]] = {}
    for alias, version in found.aliases.items():
        by_version.setdefault(version, []).append(alias)
    for one in reversed(found.versions):
        table.add_row(*_cells(one, by_version.get(one.version.version, [])))
    return table


def _cells(one: Numbered, aliases: Sequence[str]) -> list[Text]:
    version, run = one
    gate = "may be promoted" if version.promotable else printable(version.promotable_reason, 200)
    cells = [
        f"v{version.version}",
        ", ".join(aliases),
        f"{version.claimed_at:%Y-%m-%d}",
        run.manifest.base_model.rpartition("/")[2] if run is not None and run.manifest is not None else "–",
        f"{run.dataset.train_examples:,}" if run is not None else "–",
        shown(run.metrics.eval_loss_after, "{:.4f}") if run is not None else "–",
        gate if one.is_readable else "not published yet",
        version.run_id,
    ]
    return [Text(cell) for cell in cells]


def _pointing(aliases: Mapping[str, int]) -> Text:
    return Text(", ".join(f"{alias} → v{version}" for alias, version in sorted(aliases.items())) or "–")


def _comparison(found: Comparison) -> RenderableType:
    heads = (f"v{found.before.version}", f"v{found.after.version}")
    parts: list[RenderableType] = []
    figures = Table("figure", *heads, "change", title="Figures", title_justify="left")
    for one in found.metrics:
        figures.add_row(one.what, one.before, one.after, one.change)
    parts.append(figures)
    for title, differences in (("Settings", found.settings), ("Data", found.data)):
        parts.append(_differences(title, heads, differences))
    parts.extend(_answers(heads, found.answers))
    return Group(*parts)


def _differences(title: str, heads: tuple[str, str], differences: Sequence[Difference]) -> RenderableType:
    if not differences:
        return Text(f"{title}: the same")
    table = Table("what", *heads, title=title, title_justify="left", show_lines=True)
    for one in differences:
        table.add_row(*(Text(printable(cell, 400)) for cell in (one.what, one.before or "–", one.after or "–")))
    return table


def _answers(heads: tuple[str, str], answers: Sequence[Answers]) -> list[RenderableType]:
    if not answers:
        return []
    table = Table("asked", "in the data", *heads, title="Answers to held-out prompts", title_justify="left",
                  show_lines=True)  # fmt: skip
    for one in answers:
        cells = (one.question, one.expected, one.before or "not asked", one.after or "not asked")
        table.add_row(*(Text(visible(cell)) for cell in cells))
    return [table]
