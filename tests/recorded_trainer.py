"""The stub trainer, whose versions have provenance and checksums as the real trainer's have.

`labels: {fault: die-staged}` ends it when everything is uploaded and no version has a number.
"""

from __future__ import annotations

import hashlib
import json
import runpy
from pathlib import Path

from adaptml.publishing import CHECKSUMS
from adaptml.runs.versions import VersionStore
from schemas.run import Metrics
from tests import stub_trainer
from trainer.attempt import Attempt

_commit = Attempt.commit


def commit(attempt: Attempt, folder: Path, _: dict[str, str], metrics: Metrics) -> None:
    """Writes what is missing in the stub's folder."""
    provenance = {"run_id": attempt.run.run_id, "metrics": metrics.model_dump(mode="json")}
    (folder / "run.json").write_text(json.dumps(provenance))
    sums = {name: _sha256(folder / name) for name in ("adapter_model.safetensors", "run.json")}
    (folder / CHECKSUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()))
    if attempt.manifest.labels.get("fault") == "die-staged" and attempt.run.attempt == 1:
        VersionStore.commit = lambda *_: stub_trainer.die()  # type: ignore[assignment]
    _commit(attempt, folder, sums | {CHECKSUMS: _sha256(folder / CHECKSUMS)}, metrics)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    Attempt.commit = commit  # type: ignore[assignment]
    runpy.run_module("tests.stub_trainer", run_name="__main__")
