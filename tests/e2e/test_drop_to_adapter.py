"""The whole way: a real gsutil copies a folder, the real trainer trains, and PEFT loads what comes out."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from adaptml.dataset.check import examined_rows
from adaptml.dataset.examine import Examiner, Terms
from local import paths
from schemas.catalogue import CATALOGUE
from schemas.manifest import Training
from schemas.run import Run
from schemas.run_states import RunState
from tests import models
from tests.cloud import DROPS, MODEL, TestCloud, eventually
from tests.e2e.observed_trainer import LOGITS_FOLDER, logits
from trainer import evaluate
from trainer.data import bound
from trainer.model import chat_tokenizer, load_base
from trainer.packing import Tokens
from trainer.prepared import MODELS_DIR

DEMO = paths.ROOT / "demo" / "support-bot"
CPU = torch.device("cpu")
MANIFEST = f"""\
base_model: {MODEL}
dataset: {{train: [train.jsonl], validation: [val.jsonl]}}
lora: {{target_modules: all-linear}}
training: {{max_steps: 6, batch_size: 4, learning_rate: 1.0e-3, max_seq_length: 256}}
"""


@dataclass
class Delivered:
    """What two drops of the same folder led to."""

    cloud: TestCloud
    runs: list[Run]
    adapters: list[Path]
    """Downloaded by gsutil."""
    kept: Path
    """Folder of the trained models' logits."""


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delivered]:
    home = tmp_path_factory.mktemp("cloud")
    kept, drop = home / "logits", home / "desk"
    for folder in (kept, drop):
        folder.mkdir()
    (drop / "manifest.yaml").write_text(MANIFEST)
    (drop / "train.jsonl").write_text("".join((DEMO / "train.jsonl").read_text("utf-8").splitlines(True)[:24]))
    (drop / "val.jsonl").write_text("".join((DEMO / "val.jsonl").read_text("utf-8").splitlines(True)[:3]))
    trainer = f"{sys.executable} -m tests.e2e.observed_trainer"
    cloud = TestCloud.start(home, ADAPTML_TRAINER_COMMAND=trainer, **{LOGITS_FOLDER: str(kept)})
    try:
        runs = []
        for number in (1, 2):
            cloud.command("gsutil", "-q", "cp", "-r", str(drop), f"gs://{DROPS}/acme/")
            newest = eventually(lambda n=number: next(iter(cloud.runs_of("acme", "desk")[n - 1 :]), None))
            runs.append(cloud.wait(newest.run_id, RunState.SUCCEEDED, within_s=420))
        adapters = []
        for run in runs:
            assert run.state is RunState.SUCCEEDED, run.error
            assert run.artifacts is not None
            into = home / f"v{run.artifacts.version}"
            into.mkdir()
            cloud.command("gsutil", "-q", "cp", f"{run.artifacts.uri}*", str(into))
            adapters.append(into)
        models.prepare()
        yield Delivered(cloud, runs, adapters, kept)
    finally:
        cloud.stop()


pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_the_version_is_whole_and_its_checksums_hold(delivered: Delivered) -> None:
    names = delivered.cloud.names("acme/desk/")
    assert not [name for name in names if ".staging" in name]
    present = {name.removeprefix("v1/") for name in names if name.startswith("v1/")}
    assert present >= {
        "adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md",
        "metrics.jsonl", "samples.jsonl", "run.json", "SHA256SUMS",
    }  # fmt: skip
    assert any(name.startswith("events.out.tfevents") for name in present)
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=delivered.adapters[0], check=True)


def test_the_document_tells_a_person_what_happened(delivered: Delivered) -> None:
    run = delivered.runs[0]
    assert run.progress.step == run.progress.total_steps == 6
    assert run.progress.loss is not None
    assert run.progress.tokens_per_s
    assert run.cost_usd
    assert run.estimate is not None
    curve = delivered.cloud.services.runs.curve(run.run_id)
    assert [point["step"] for point in curve] == [1, 2, 3, 4, 5, 6]
    states = [event.to_state for event in delivered.cloud.services.runs.outbox.unannounced(run, after=0)]
    assert [state for state in states if state != RunState.AWAITING_DATA] == [
        "RECEIVED", "VALIDATING", "QUEUED", "STARTING", "TRAINING", "EVALUATING", "SUCCEEDED",
    ]  # fmt: skip
    status = json.loads(delivered.cloud.read("acme/desk/STATUS.json") or "{}")
    assert status["state"] == "SUCCEEDED"


def test_the_loss_on_its_data_fell(delivered: Delivered) -> None:
    metrics = delivered.runs[0].metrics
    assert metrics.eval_loss_before is not None
    assert metrics.eval_loss_after is not None
    assert metrics.eval_loss_after < 0.8 * metrics.eval_loss_before
    curve = delivered.cloud.services.runs.curve(delivered.runs[0].run_id)
    assert curve[-1]["loss"] < 0.8 * curve[0]["loss"]


def test_the_adapter_loaded_by_peft_is_the_model_that_was_trained(delivered: Delivered) -> None:
    model, tokenizer = load_base(CATALOGUE[MODEL], quantise=True, device=CPU)
    untrained = logits(model, tokenizer)
    model = PeftModel.from_pretrained(model, delivered.adapters[0])
    reloaded = logits(model, tokenizer)
    trained = load_file(delivered.kept / f"{delivered.runs[0].run_id}.safetensors")["logits"]
    assert torch.equal(reloaded, trained)
    assert not torch.allclose(untrained, trained, atol=0.1)

    chat = chat_tokenizer(CATALOGUE[MODEL])
    with (DEMO / "val.jsonl").open("rb") as stream:
        held_out = [row.example for row in examined_rows(stream, "val.jsonl", Examiner(Terms()))][:3]
    tokens = [Tokens(*found) for row in held_out if row and (found := bound(chat.encode(row), Training(epochs=1.0)))]
    assert len(tokens) == 3
    assert evaluate.loss(model, tokens, CPU, lambda: None) == delivered.runs[0].metrics.eval_loss_after


CALLS = (
    ("runs", "--limit", "2"),
    ("watch", "desk"),
    ("logs", "desk", "--limit", "8"),
    ("adapters", "desk"),
    ("promote", "desk", "v1"),
    ("promote", "desk"),
    ("rollback", "desk"),
    ("compare", "desk", "prod", "latest"),
    ("chat", "desk", "prod", "--prompt", "My kettle leaks.", "--max-new-tokens", "24"),
)
TRANSCRIPT = paths.ROOT / "docs" / "commands_transcript.md"
HEAD = """\
<!-- Made by `WRITE_TRANSCRIPT=1 pytest tests/e2e/test_drop_to_adapter.py`; changes here are lost. -->

# What the command says

Of two drops of the same folder, 24 short support chats, trained on for six steps by the local cloud on a CPU: enough to
show what is said, and for nothing else. What each command is: [commands.md](commands.md).

"""


def test_the_command_shows_moves_compares_and_asks(delivered: Delivered) -> None:
    """With WRITE_TRANSCRIPT=1 in the environment docs/commands_transcript.md is written anew."""
    delivered.cloud.environment |= {"ADAPTML_TENANT": "acme", "COLUMNS": "100", MODELS_DIR: str(paths.MODELS)}
    said = {}
    for words in CALLS:
        done = delivered.cloud.command(str(paths.ROOT / ".venv" / "bin" / "adaptml"), *words, check=False)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        said[f"$ adaptml {shlex.join(words)}"] = "\n".join(line.rstrip() for line in done.stdout.splitlines())
    *_, rolled_back, compared, answered = said.values()
    assert "prod of acme/desk points at v1" in rolled_back
    assert "Settings: the same" in compared
    assert "base model" in answered
    if os.environ.get("WRITE_TRANSCRIPT"):
        TRANSCRIPT.write_text(HEAD + "".join(f"```\n{call}\n{text}\n```\n\n" for call, text in said.items()), "utf-8")
    assert re.findall(r"^\$ .*$", TRANSCRIPT.read_text("utf-8"), re.M) == list(said)


def test_the_same_drop_again_is_the_next_version_with_the_same_weights(delivered: Delivered) -> None:
    first, second = (run.artifacts for run in delivered.runs)
    assert first is not None
    assert second is not None
    assert (first.version, second.version) == (1, 2)
    weights = "adapter_model.safetensors"
    assert first.sha256[weights] == second.sha256[weights]


def test_no_text_of_the_dataset_is_in_a_log(delivered: Delivered) -> None:
    words = "Harbor Kettles"
    logs = list((delivered.cloud.home / "logs").rglob("*.log"))
    assert len(logs) > 8
    assert not [log.name for log in logs if words in log.read_text("utf-8", "replace")]
