"""The lock that threads and processes of one machine take turns by."""

import subprocess
import sys
import threading

import pytest

from provisioning.file_lock import LockHeld, hold_lock


def test_one_holder_at_a_time(tmp_path):
    """Threads that want the lock at once are inside one after the other."""
    inside, most = [], []

    def work():
        with hold_lock(tmp_path / "lock", 20):
            inside.append(1)
            most.append(len(inside))
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == [1] * 8


def test_holder_that_does_not_let_go_is_not_waited_for_without_end(tmp_path):
    """The error names the file; afterwards the lock can be had."""
    path = tmp_path / "lock"
    with hold_lock(path, 1), pytest.raises(LockHeld, match=f"{path} for 0 s"), hold_lock(path, 0.05):
        pytest.fail("two are inside")
    with hold_lock(path, 0):
        pass


def test_dead_holder_frees_it(tmp_path):
    """A process that is killed while it holds the lock does not keep it."""
    path = tmp_path / "lock"
    program = (
        "import pathlib, signal, sys; from provisioning.file_lock import hold_lock\n"
        "with hold_lock(pathlib.Path(sys.argv[1]), 1): print(flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        with pytest.raises(LockHeld), hold_lock(path, 0):
            pytest.fail("two are inside")
        holder.kill()
        holder.wait()
        with hold_lock(path, 0):
            pass
