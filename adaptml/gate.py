"""The gate: whether a version may be promoted, which is to say, whether an alias may point at it. Pure.

A version that does not pass is written all the same, and its run has SUCCEEDED: what was paid for is delivered, and a
person may look at it. It is marked `promotable: false`, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from schemas.manifest import Evaluation, Manifest
from schemas.run import Artifacts, Metrics, Version


def objections(gate: Evaluation | None, metrics: Metrics) -> list[str]:
    """What speaks against promoting; nothing where no gate is set.

    A gate lets pass what was measured and is good enough. So where nothing was held out, nothing passes.
    """
    limits = () if gate is None else (gate.max_eval_loss, gate.min_improvement)
    if gate is None or all(limit is None for limit in limits):
        return []
    before, after = metrics.eval_loss_before, metrics.eval_loss_after
    if before is None or after is None or not math.isfinite(before + after):
        return ["there is no held-out loss to judge it by"]
    return list(_misses(gate, before, after))


def _misses(gate: Evaluation, before: float, after: float) -> Iterator[str]:
    if gate.max_eval_loss is not None and after > gate.max_eval_loss:
        yield f"held-out loss {after:.4g} is above max_eval_loss {gate.max_eval_loss:g}"
    if gate.min_improvement is not None and not after <= before * (1 - gate.min_improvement):
        way = "rose" if after > before else "fell" if after < before else "stayed"
        change = f" by {_percent(abs(1 - after / before))}" if before and after != before else ""
        asked = f"min_improvement asks for a fall by {_percent(gate.min_improvement)}"
        yield f"held-out loss {way}{change} ({before:.4g} before, {after:.4g} after); {asked}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def judgement(manifest: Manifest | None, metrics: Metrics) -> dict[str, bool | str]:
    """As the documents of a version hold it."""
    against = objections(manifest.evaluation if manifest else None, metrics)
    return {"promotable": not against, "promotable_reason": "; ".join(against)}


def judged(artifacts: Artifacts, manifest: Manifest | None, metrics: Metrics) -> Artifacts:
    """The version with what the gate says of it."""
    return artifacts.model_copy(update=judgement(manifest, metrics))


def newest(versions: Iterable[Version]) -> int | None:
    """What `latest` may point at: the highest number among those that may be promoted. The caller gives those that can
    be read."""
    return max((version.version for version in versions if version.promotable), default=None)
