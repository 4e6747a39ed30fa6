"""Runs the tests: `fast` those of `make check`, `all` every one.

Fast tests share the cores, twice as many at a time as there are, for most of them wait; those that start
real processes take turns, so that none waits for another's load. Left-out tests are named in the closing
lines; on the build machine they are a failure.
"""

import os
import subprocess
import sys

#: None of the tests in these folders is fast: each process would read them for nothing.
SLOW_FOLDERS = ("tests/browser", "tests/stack")
FAST = [
    "-m", "not slow and not browser", "-n", str(2 * (os.cpu_count() or 1)), "--dist", "worksteal",
    *(f"--ignore={folder}" for folder in SLOW_FOLDERS),
]  # fmt: skip
SLOW = ["-m", "slow or browser"]


def main(which: str) -> int:
    """Run the parts in turn, each to its end; 0 where all passed."""
    parts = {"fast": [FAST], "all": [FAST, SLOW]}[which]
    # pytest rewrites the assertions of some 400 files: once, not in each process, where it may keep them.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    codes = [
        subprocess.run([sys.executable, "-m", "pytest", "-q", *part, *sys.argv[2:]], check=False).returncode
        for part in parts
    ]
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
