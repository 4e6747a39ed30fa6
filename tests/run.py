"""Runs the tests: `fast` those of `make check`, `all` every one.

Fast tests share the cores, one more at a time than there are, for some of them wait, and each process of
them must find all tests first; those that start real processes take turns, so that none waits for another's
load. Left-out tests are named in the closing lines; on the build machine they are a failure.
"""

import os
import subprocess
import sys

#: None of the tests in these folders is fast: each process would read them for nothing.
SLOW_FOLDERS = ("tests/browser", "tests/stack")
FAST = [
    "-m", "not slow and not browser", "-n", str((os.cpu_count() or 1) + 1), "--dist", "worksteal",
    *(f"--ignore={folder}" for folder in SLOW_FOLDERS),
]  # fmt: skip
#: What is slow here only computes, so it shares the cores.
COMPUTED_FOLDERS = ("tests/policies", "tests/simulate")
COMPUTED = ["-m", "slow", "-n", str(os.cpu_count() or 1), "--dist", "worksteal", *COMPUTED_FOLDERS]
SLOW = ["-m", "slow or browser", *(f"--ignore={folder}" for folder in COMPUTED_FOLDERS)]


def main(which: str) -> int:
    """Run the parts in turn, each to its end; 0 where all passed."""
    parts = {"fast": [FAST], "all": [FAST, COMPUTED, SLOW]}[which]
    # pytest rewrites the assertions of some 400 files: once, not in each process, where it may keep them.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    return max(run_part(part) for part in parts)


def run_part(part: list[str]) -> int:
    """The exit code of pytest."""
    # Where tests share the cores, numpy's threads would wait for each other at the others' cost.
    more = {"OPENBLAS_NUM_THREADS": "1"} if "-n" in part else {}
    command = [sys.executable, "-m", "pytest", "-q", *part, *sys.argv[2:]]
    return subprocess.run(command, env={**os.environ, **more}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
