"""Children that end with their parent."""

import subprocess
import sys
import time

import psutil
import pytest

PARENT = """
import os, subprocess, sys
command = [sys.executable, "-u", "-m", "appliance.control.child", str(os.getpid()), "http.server", "0"]
child = subprocess.Popen(
    [*command, "--bind", "127.0.0.1"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")
def test_child_ends_with_a_parent_that_is_killed():
    """After `kill -9` of the parent nothing of its child is left."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()
        parent.kill()
    until = time.monotonic() + 10
    while psutil.pid_exists(child.pid) and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_child_of_a_parent_that_is_gone_does_nothing():
    """A child that comes too late does not begin."""
    done = subprocess.run(
        [sys.executable, "-m", "appliance.control.child", "1", "this"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
