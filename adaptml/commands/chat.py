"""`adaptml chat`: base model and adapter, asked the same, side by side."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from adaptml.commands.deployment import FAILED, USAGE, JsonOption, TenantOption, connected, errors, out, print_lines
from schemas.adapter import LATEST
from schemas.errors import Refused, problem
from schemas.playground import LONGEST_PROMPT, Answers, Question
from schemas.text import visible

READY_WITHIN_S = 60


def chat(
    name: Annotated[str, typer.Argument(metavar="ADAPTER", help="The adapter's name.")],
    tenant: TenantOption,
    version: Annotated[str, typer.Argument(metavar="[VERSION]", help="v3, or an alias.")] = LATEST,
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", help="Ask this and end; may be repeated. [default: from input]"),
    ] = None,
    system: Annotated[str, typer.Option(help="A system prompt.")] = "",
    tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, max=512, help="Of each answer, at most.")] = 128,
    as_json: JsonOption = False,
) -> None:
    """Ask the base model and the adapter the same, and see both answers. Each question stands for itself.

    ADAPTML_PLAYGROUND_URL names the playground's service; where it is not set and the trainer is installed, one is
    started for as long as this takes. Exit status: 0; 1 no such version, or no answer; 2 wrong use.
    """
    with connected() as services:
        from adaptml import adapters as registry

        one = registry.show(services, tenant, name).version(version)
        if one.run is None or one.run.manifest is None or not one.is_readable:
            raise Refused([problem("version_not_ready", version=f"v{one.version.version}", adapter=f"{tenant}/{name}")])
        method = one.run.manifest.method
    with _service() as address:
        for text in prompt or _typed():
            question = Question(
                tenant=tenant, name=name, version=one.version.version, method=method, prompt=text,
                system=system, max_new_tokens=tokens,
            )  # fmt: skip
            answers = _asked(address, question)
            if as_json:
                print_lines([{"prompt": text, **answers.model_dump()}])
            else:
                out.print(_side_by_side(f"{name} v{question.version}", answers))


def _asked(address: str, question: Question) -> Answers:
    from adaptml.playground import Unanswered, ask

    try:
        with errors.status("both are answering …"):
            return ask(address, question)
    except Unanswered as why:
        errors.print(str(why), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(FAILED) from None


def _typed() -> Iterator[str]:
    """Lines of the standard input; empty ones ask nothing."""
    while True:
        if sys.stdin.isatty():
            out.print("[bold]›[/] ", end="")
        line = sys.stdin.readline()
        if not line:
            return
        if text := line.strip():
            yield text[:LONGEST_PROMPT]


def _side_by_side(name: str, answers: Answers) -> Table:
    table = Table(expand=True, show_lines=True)
    for heading in ("base model", name):
        table.add_column(Text(heading), ratio=1)
    table.add_row(*(Text(visible(text) or "(nothing)") for text in (answers.base, answers.adapter)))
    return table


@contextmanager
def _service() -> Iterator[str]:
    """The address of the service, or of one that is started for now."""
    from adaptml import playground

    named = playground.url()
    if named is not None:
        yield named
        return
    if not _is_here():
        errors.print(f"{playground.URL} is not set, and the trainer is not installed here", markup=False)
        raise typer.Exit(USAGE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    started = subprocess.Popen(
        [sys.executable, "-m", "trainer.playground"], env=os.environ | {"PORT": str(port)}, stdout=subprocess.DEVNULL
    )
    try:
        _await(started, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        started.terminate()
        started.wait(timeout=10)


def _is_here() -> bool:
    """Whether the trainer can be started: installed, or in the folder that this was called in."""
    has_trainer = importlib.util.find_spec("trainer") is not None or Path("trainer", "playground.py").is_file()
    return has_trainer and importlib.util.find_spec("torch") is not None


def _await(started: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while started.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    errors.print("the playground's service did not start", markup=False)
    raise typer.Exit(FAILED)
