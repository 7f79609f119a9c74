"""The loss curve of a run, `runs/{run_id}/metrics/`: points in batches, so that a run costs few writes."""

from __future__ import annotations

from typing import Any

from google.cloud import firestore

Points = list[dict[str, Any]]
"""Of the loss curve: `step`, `loss`, `learning_rate`, …"""


def append(batch: firestore.WriteBatch, run: firestore.DocumentReference, attempt: int, points: Points) -> None:
    """Adds points that one attempt saw; written again, they stand there once."""
    first = int(points[0]["step"])
    chunk = run.collection("metrics").document(f"a{attempt:02d}-{first:07d}")
    batch.set(chunk, {"attempt": attempt, "first_step": first, "points": points})


def read(run: firestore.DocumentReference) -> Points:
    """All points in order. Of a step that was trained again after a death, it is what the last attempt saw."""
    parts = [snapshot.to_dict() for snapshot in run.collection("metrics").stream()]
    parts.sort(key=lambda part: (part["attempt"], part["first_step"]))
    points = {point["step"]: point for part in parts for point in part["points"]}
    return [points[step] for step in sorted(points)]
