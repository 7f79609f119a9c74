"""`python -m local.function …`: functions-framework, whose workers die with their master.

A worker of gunicorn looks once a second whether its master lives, and then waits half a minute for what it is doing,
which may be waiting for an emulator that is gone as well. In Cloud Run a container ends with all that is in it.
"""

from __future__ import annotations

import os

from functions_framework._cli import _cli

from local.tether import tether


def main() -> None:
    """Serves one function; takes functions-framework's options."""
    master = os.getpid()
    os.register_at_fork(after_in_child=lambda: tether(master))
    _cli()


if __name__ == "__main__":
    main()
