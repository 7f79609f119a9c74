"""Types of `_certify.c`."""

from typing import Any

from numpy.typing import NDArray

_Key = tuple[bytes, bytes]

def certify(
    data: bytes,
    ends: NDArray[Any],
    columns: tuple[tuple[_Key, int, int], ...],
    role_key: _Key,
    content_key: _Key,
    roles: tuple[bytes, ...],
    found: NDArray[Any],
    /,
) -> None: ...
