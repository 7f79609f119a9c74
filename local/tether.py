"""`python tether.py PARENT COMMAND…`: becomes COMMAND, which the kernel kills when PARENT dies.

PR_SET_PDEATHSIG survives exec, so that no code of ours has to run in the child or in a dying parent: also a parent
killed with SIGKILL takes its children along. Linux only. Standard library only: it runs in front of everything.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def tether(parent: int) -> None:
    """Ties this process's life to its parent's. Exits where that is not `parent` any more."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit("the parent died before the tether held")


def main() -> None:
    """Replaces this process."""
    tether(int(sys.argv[1]))
    command = sys.argv[2:]
    os.execvp(command[0], command)  # noqa: S606 - that is what this program is for


if __name__ == "__main__":
    main()
