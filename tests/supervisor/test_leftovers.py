"""Ending what an earlier start left behind, and nobody else."""

import os
import signal
import subprocess
import sys

import pytest

from appliance.supervisor import leftovers
from appliance.supervisor.programs import ProcessIdentity, identify


@pytest.fixture
def sleeper():
    process = subprocess.Popen(
        [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"], stdout=subprocess.PIPE
    )
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_recorded_process_is_ended(tmp_path, sleeper):
    """What was recorded and still runs is ended by SIGTERM."""
    leftovers.write_record(tmp_path, [identify(sleeper.pid)])
    assert leftovers.end_processes(leftovers.read_record(tmp_path), timeout_s=10) == []
    assert sleeper.wait(timeout=5) == -signal.SIGTERM


def test_process_with_a_recycled_number_is_left_alone(tmp_path, sleeper):
    """A process with the number of a recorded one, but started at another time, is not touched."""
    leftovers.write_record(tmp_path, [ProcessIdentity(sleeper.pid, identify(sleeper.pid).create_time - 5)])
    assert leftovers.end_processes(leftovers.read_record(tmp_path), timeout_s=1) == []
    assert sleeper.poll() is None


def test_deaf_process_is_killed():
    """A process that ignores SIGTERM is killed when the time is up."""
    program = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        one = identify(process.pid)
        assert leftovers.end_processes([one], timeout_s=0.2) == [one]
        assert process.wait(timeout=5) == -signal.SIGKILL


@pytest.mark.parametrize("text", ["", "{", "[[1]]", '[["a", "b"]]', "[1, 2]", "null"])
def test_broken_record_is_no_record(tmp_path, text):
    """A record cut short by a crash is as none."""
    (tmp_path / leftovers.RECORD).write_text(text)
    assert leftovers.read_record(tmp_path) == []


def test_second_holder_is_refused_with_the_firsts_number(tmp_path):
    """The lock names who holds it, and is free again when that one lets go."""
    with leftovers.lock_home(tmp_path), pytest.raises(leftovers.AlreadyRunningError, match=str(os.getpid())):
        leftovers.lock_home(tmp_path)
    leftovers.lock_home(tmp_path).close()
