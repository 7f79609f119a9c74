"""`python -m adaptml.dataset.worker`: certifies chunks on a core of its own; see `workers`.

Reads a Setup, then chunk after chunk, and answers each. Ends with its input. Imports little, to be there soon.
"""

from __future__ import annotations

import struct
import sys
from typing import IO

import msgspec

from adaptml.dataset.chunk import Chunk
from adaptml.dataset.fast import FastPath, Setup

_LENGTH = struct.Struct("<Q")


def write_message(stream: IO[bytes], message: bytes) -> None:
    """A message, its length first."""
    stream.write(_LENGTH.pack(len(message)))
    stream.write(message)
    stream.flush()


def read_message(stream: IO[bytes]) -> bytes:
    """The next message. Raises EOFError."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    message = stream.read(length)
    if len(message) < length:
        raise EOFError
    return message


def main() -> None:
    """Serves until the input ends."""
    given, answers = sys.stdin.buffer, sys.stdout.buffer
    path = FastPath(msgspec.json.decode(read_message(given), type=Setup))
    write_message(answers, b"ready")
    while True:
        chunk = Chunk(1, read_message(given))
        prints = path.certify(chunk)
        write_message(answers, chunk.ends.tobytes())
        write_message(answers, prints.tobytes())


if __name__ == "__main__":
    try:
        main()
    except (EOFError, BrokenPipeError):
        sys.exit(0)
