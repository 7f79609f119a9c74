"""`make demo`: a real gsutil copies the demo drop into the local cloud, and a person sees it become an adapter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from google.cloud import firestore, storage
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from adaptml import watch
from adaptml.commands.following import follow
from adaptml.objects import ObjectStore
from adaptml.outcome import Fact, outcome, size
from adaptml.runs.store import RunStore
from local import cloud, paths, prerequisites
from local.supervisor import is_running
from local.wiring import ARTIFACTS_BUCKET, DROPS_BUCKET, PROJECT
from schemas import layout
from schemas.run import Run
from schemas.run_states import RunState

DROP = paths.ROOT / "demo" / "support-bot"
TENANT = "acme"
FINISH_WITHIN_S = 1800
console = Console(highlight=False)


def demo(*, keep: bool) -> int:
    """Returns the exit status. A cloud that ran before is used and left running."""
    began = time.monotonic()
    started = None
    if not is_running():
        with console.status("starting the local cloud: emulators, functions, Cloud Run Jobs …"):
            try:
                started = cloud.launch(tethered=not keep)
            except cloud.NotReady as failed:
                console.print(str(failed), style="red", markup=False)
                return 1
        console.print(f"the local cloud is ready after {time.monotonic() - began:.0f} s")
    os.environ.update(cloud.environment())
    try:
        return _run_demo(began)
    finally:
        if keep or started is None:
            console.print(
                "the local cloud goes on running: [bold]. .local/env[/] to use it, [bold]make down[/] to stop"
            )
        else:
            started.terminate()
            started.wait(timeout=30)


def _run_demo(began: float) -> int:
    runs = RunStore(firestore.Client(project=PROJECT))
    objects = ObjectStore(storage.Client(project=PROJECT))
    command = [prerequisites.gsutil(), "-q", "cp", "-r", str(DROP), f"gs://{DROPS_BUCKET}/{TENANT}/"]
    console.print(f"[bold]$ gsutil cp -r demo/support-bot gs://{DROPS_BUCKET}/{TENANT}/[/]")
    subprocess.run(command, check=True, timeout=120)
    copied = time.monotonic()
    run_id = _run_id(objects)
    run = follow(runs, run_id, console, within_s=FINISH_WITHIN_S)
    if run is None or run.state is not RunState.SUCCEEDED:
        console.print(f"the run did not succeed; logs: {paths.LOGS}", style="red")
        return 1
    adapter = _fetch(objects, run, paths.HOME / "demo" / "adapter")
    _show(run, adapter, took_s=time.monotonic() - copied, total_s=time.monotonic() - began)
    return 0


def _run_id(objects: ObjectStore) -> str:
    name = f"{TENANT}/{DROP.name}/manifest.yaml"
    pinned = objects.pin(DROPS_BUCKET, name)
    if pinned is None:
        raise FileNotFoundError(f"gsutil left no {name} in the bucket")
    return layout.run_id(TENANT, DROP.name, DROPS_BUCKET, name, str(pinned.generation))


def _fetch(objects: ObjectStore, run: Run, folder: Path) -> Path:
    """Downloads the version, so that it is still there when the local cloud is not."""
    if run.artifacts is None:
        raise ValueError(f"{run.run_id} has no artifacts")
    prefix = layout.version_prefix(run.tenant, run.name, run.artifacts.version)
    for name in run.artifacts.sha256:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(objects.read(ARTIFACTS_BUCKET, prefix + name))
    return folder


def _show(run: Run, adapter: Path, *, took_s: float, total_s: float) -> None:
    table = Table(title="Answers to held-out prompts", show_lines=True, expand=True)
    for column in ("asked", "base model", "with the adapter"):
        table.add_column(column, ratio=1)
    for line in (adapter / "samples.jsonl").read_text("utf-8").splitlines():
        sample = json.loads(line)
        table.add_row(*(escape(sample[key]) for key in ("question", "before", "after")))
    console.print(table)
    size = (adapter / "adapter_model.safetensors").stat().st_size
    took = f"{watch.duration(took_s)} from the copy to the adapter, {watch.duration(total_s)} in all"
    console.print(summary(run, copy=cloud.shown(adapter), weights_bytes=size, took=took))
    sys.stdout.flush()


def summary(run: Run, *, copy: str, weights_bytes: int, took: str) -> Panel:
    """What came of the run, where it is, and what it would have taken. Raises ValueError where it has no version."""
    estimate, artifacts = run.estimate, run.artifacts
    if estimate is None or artifacts is None:
        raise ValueError(f"{run.run_id} succeeded without an estimate or artifacts")
    where: tuple[Fact, ...] = (
        ("adapter", Text(artifacts.uri or "", style="bold")),
        ("weights", f"{size(weights_bytes)} of {size(artifacts.size_bytes)} with tokenizer and card"),
        ("copy of it", copy),
        ("time here", took),
        ("on an L4", f"about {estimate.duration_s:.0f} s and ${estimate.cost_usd:.3f} (estimate, list price)"),
    )
    return Panel(outcome(run, *where), title="[bold green]SUCCEEDED[/]", title_align="left")
