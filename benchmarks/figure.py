"""How a benchmark prints a figure: one line of JSON, ours beside a peer or a floor of the same run."""

from __future__ import annotations

import json


def show(figure: str, ours: float, peer: float, peer_name: str, unit: str) -> None:
    """Prints it; `ratio` is ours to the peer's."""
    line = {
        "figure": figure,
        "ours": round(ours, 4),
        "peer": round(peer, 4),
        "peer_name": peer_name,
        "ratio": round(ours / peer, 2),
        "unit": unit,
    }
    print(json.dumps(line), flush=True)
