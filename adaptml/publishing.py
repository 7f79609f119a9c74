"""From a committed run to a version that can be read: whole or not at all."""

from __future__ import annotations

from adaptml import lifecycle, tracing
from adaptml.protocol import succeed
from adaptml.services import Services
from schemas import layout
from schemas.run import Run

SAMPLES = "samples.jsonl"
"""Answers to held-out conversations, a line each."""
CHECKSUMS = "SHA256SUMS"
"""Copied last: a version without it is not there yet."""


@tracing.on_run("publish version")
def publish_version(services: Services, run: Run) -> None:
    """Copies what the commit named from its staging folder to its place, and ends the run SUCCEEDED.

    The trainer does this, and the reconciler if the trainer died: both copy the same objects, and one that is
    there already stays as it is. Staging is emptied before the run ends, so that no process has to come back for it.
    """
    if run.artifacts is None:
        raise ValueError(f"{run.run_id} has no version yet")
    bucket = services.settings.artifacts_bucket
    target = layout.version_prefix(run.tenant, run.name, run.artifacts.version)
    names = sorted(run.artifacts.sha256, key=lambda name: (name == CHECKSUMS, name))
    for name in names:
        services.objects.copy_new(bucket, run.artifacts.staged + name, target + name)
    # What attempts that died had uploaded goes, too, and the checkpoints: nobody goes on from them any more.
    for prefix in (layout.staged_by, layout.checkpoint_prefix):
        for item in services.objects.list(bucket, prefix(run.tenant, run.name, run.run_id)):
            services.objects.delete(bucket, item.name)
    lifecycle.change(services, run.run_id, lambda r: succeed(r, layout.uri(bucket, target)))
