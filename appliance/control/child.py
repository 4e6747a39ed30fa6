"""Runs a module as a child that ends when its parent does: `-m appliance.control.child PARENT MODULE ...`.

The kernel is asked to end this process with the thread that started it; nothing is left over after a
`kill -9` of the worker. Standard library only.
"""

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> None:
    """Tie this process to the one that started it; leave at once where that is gone already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(1)


if __name__ == "__main__":
    end_with_parent(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    module = sys.argv[2]
    sys.argv = sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
