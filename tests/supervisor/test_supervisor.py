"""Keeping programs running, and the small decisions around it."""

import os
import signal
import sys
import threading

import pytest

from appliance.environment import read_environment
from appliance.supervisor.logs import rotate_logs
from appliance.supervisor.make_parent import make_was_interrupted
from appliance.supervisor.programs import Program, last_lines, restart_delay_s
from appliance.supervisor.supervisor import Supervisor


@pytest.fixture
def environment(tmp_path):
    environment = read_environment({"APPLIANCE_HOME": str(tmp_path / "home")})
    environment.create_directories()
    return environment


@pytest.mark.parametrize(
    ("restarts", "ran_s", "delay_s"),
    [
        pytest.param(0, 0.1, 0.0, id="first-time-at-once"),
        pytest.param(1, 0.1, 0.4, id="again"),
        pytest.param(4, 0.1, 4.9, id="and-again"),
        pytest.param(50, 0.1, 4.9, id="never-longer"),
        pytest.param(50, 8.9, 0.0, id="killed-every-10-s-and-a-second-late"),
        pytest.param(50, 31.0, 0.0, id="was-steady"),
    ],
)
def test_restart_delays(restarts, ran_s, delay_s):
    """A crash now and then costs nothing, a crash loop does not spin."""
    assert restart_delay_s(restarts, ran_s) == pytest.approx(delay_s)


def test_ended_program_is_started_again_and_all_end_on_a_stop(environment):
    """A program that ends is started again and said so; a stop ends the last one."""
    said = []
    starts = environment.home / "starts"
    first_ends = (
        f"import pathlib, time; p = pathlib.Path({str(starts)!r}); seen = p.exists(); "
        "p.open('a').write('x'); time.sleep(60 if seen else 0)"
    )
    supervisor = Supervisor(environment, [Program("one", (sys.executable, "-c", first_ends))], said.append)
    supervisor.start()
    watcher = threading.Thread(target=supervisor.watch)
    watcher.start()
    try:
        for _ in range(1000):
            if starts.exists() and starts.read_text() == "xx":
                break
            watcher.join(0.01)
        assert starts.read_text() == "xx"
        assert any("exit code 0" in line for line in said)
    finally:
        supervisor.request_stop()
        watcher.join(5)
        supervisor.end()
    assert not watcher.is_alive()


def test_programs_do_not_inherit_an_ignored_sigint(environment):
    """A program starts with SIGINT as usual even where we were started with it ignored."""
    answer = environment.home / "answer"
    asks = (
        f"import pathlib, signal; pathlib.Path({str(answer)!r})"
        ".write_text(str(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)); signal.pause()"
    )
    before = {
        number: signal.signal(number, signal.SIG_IGN)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    supervisor = Supervisor(environment, [Program("asks", (sys.executable, "-c", asks))], lambda _: None)
    try:
        supervisor.install_signal_handlers()
        supervisor.start()
        for _ in range(1000):
            if answer.exists() and answer.read_text():
                break
            threading.Event().wait(0.01)
        assert answer.read_text() == "False"
    finally:
        supervisor.end()
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize(
    ("name", "blocked", "interrupted"),
    [
        pytest.param("make", "0000000000000002", True, id="make-got-sigint"),
        pytest.param("make", "0000000000004000", True, id="make-got-sigterm"),
        pytest.param("make", "0000000000010000", False, id="make-waits-for-a-child"),
        pytest.param("bash", "0000000000000002", False, id="not-make"),
    ],
)
def test_make_that_was_interrupted_is_seen(tmp_path, name, blocked, interrupted):
    """While make's handler waits for us, it has the signal blocked."""
    folder = tmp_path / str(os.getppid())
    folder.mkdir()
    (folder / "status").write_text(f"Name:\t{name}\nSigBlk:\t{blocked}\n")
    assert make_was_interrupted(tmp_path) is interrupted


def test_make_that_cannot_be_seen_is_not_interrupted(tmp_path):
    """Where there is no /proc nothing is concluded."""
    assert make_was_interrupted(tmp_path) is False


def test_logs_are_bounded_under_their_writers(tmp_path):
    """A log over the bound moves aside while its writer goes on appending to it."""
    log = tmp_path / "agents" / "one.log"
    log.parent.mkdir()
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * 100)
        assert rotate_logs(tmp_path, max_bytes=50) == [log]
        writer.write(b"after\n")
    assert log.read_bytes() == b"after\n"
    assert log.with_suffix(".log.1").read_bytes() == b"x" * 100
    assert rotate_logs(tmp_path, max_bytes=50) == []


def test_last_lines_of_a_log(tmp_path):
    """The end of a log, however it is encoded; nothing where there is none."""
    log = tmp_path / "a.log"
    log.write_bytes(b"".join(b"line %d \xff\n" % number for number in range(9000)))
    assert last_lines(log, 2) == ["line 8998 \ufffd", "line 8999 \ufffd"]
    assert last_lines(tmp_path / "none.log") == ()
