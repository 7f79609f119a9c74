"""The fast way through JSON Lines: certifies rows of which nothing is to be said; all others are examined one by one.

The texts of a chunk of some megabytes are read at once, and scanned at once for every pattern. The rows that are left
over (of another form, suspicious, broken) go to `examine`, which alone decides.
"""

from __future__ import annotations

import numpy as np

from adaptml.dataset import native
from adaptml.dataset.chunk import MAX_LINE_BYTES, Chunk
from adaptml.dataset.fingerprints import Prints
from adaptml.dataset.scan import scanner
from adaptml.dataset.typed import TypedRows
from adaptml.dataset.usual import UNKNOWN, Setup, usual_form


class FastPath:
    """For rows of one shape, where that `is_possible`. Threads may share it."""

    def __init__(self, setup: Setup) -> None:
        form = usual_form(setup)
        self._scanner = scanner(setup.terms.control_tokens if setup.shape != "text" else ())
        self._rows = TypedRows(form) if native.certify is None else native.NativeRows(form)

    def certify(self, chunk: Chunk) -> Prints:
        """Of each line its fingerprint, UNKNOWN where the row has to be examined. Never raises, whatever is there."""
        prints = self._rows.prints(chunk)
        suspicious = self._scanner.suspicious(chunk.data, blanks=self._rows.leaves_blanks)
        prints["characters"][np.searchsorted(chunk.ends, suspicious)] = UNKNOWN
        prints["characters"][chunk.ends - chunk.starts > MAX_LINE_BYTES] = UNKNOWN
        return prints
