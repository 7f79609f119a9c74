"""Types of `_certify.c`."""

from typing import Any

from numpy.typing import NDArray

def certify(
    data: bytes,
    ends: NDArray[Any],
    columns: tuple[tuple[bytes, int, int], ...],
    role_key: bytes,
    content_key: bytes,
    roles: tuple[bytes, ...],
    found: NDArray[Any],
    /,
) -> None: ...
