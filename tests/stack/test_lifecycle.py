"""Starting and ending the whole appliance."""

import os
import signal
import socket
import subprocess
import sys

import pytest
from appliance_process import ROOT, Appliance, copy_home, free_ports, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def home(template_home, tmp_path):
    return copy_home(template_home, tmp_path / "home")


def assert_nothing_left(appliance):
    """No process of that state directory, and its ports can be bound again."""
    wait_until(lambda: not appliance.processes(), 15, f"all processes end: {appliance.processes()}")
    for port in (appliance.control_port, appliance.gateway_port):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_everything(home, number):
    """One signal ends up, the three programs and the local agent."""
    with Appliance(home) as appliance:
        appliance.start(demo=True)
        assert appliance.pid_of("agents")
        appliance.stop(number)
        assert appliance.process.returncode == 0
        assert_nothing_left(appliance)


def test_sigint_ends_it_where_sigint_was_ignored(home):
    """A shell starts background jobs with SIGINT ignored; a SIGINT still ends the appliance."""
    with Appliance(home) as appliance:
        ignoring = (
            "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
            "os.execv(sys.argv[1], sys.argv[1:])"
        )
        appliance.start(command=[sys.executable, "-c", ignoring, sys.executable, "manage.py", "up", "--demo"])
        appliance.stop(signal.SIGINT)
        assert_nothing_left(appliance)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_to_make_alone_ends_it(home, number, tmp_path):
    """A signal that only `make` is sent ends what it runs."""
    makefile = tmp_path / "Makefile"
    makefile.write_text(f"run:\n\t@exec {sys.executable} manage.py up --demo\n")
    with Appliance(home) as appliance:
        # Whoever runs the tests in the background has SIGINT ignored, and make would not even see it.
        heeding = (
            "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
            "os.execvp(sys.argv[1], sys.argv[1:])"
        )
        appliance.start(command=[sys.executable, "-c", heeding, "make", "-f", str(makefile), "run"])
        appliance.stop(number)
        assert_nothing_left(appliance)


def test_second_signal_ends_it_at_once(home):
    """A gateway that hangs is not waited for after a second signal."""
    with Appliance(home) as appliance:
        appliance.start(demo=True)
        gateway = appliance.pid_of("appliance.gateway")
        os.kill(gateway, signal.SIGSTOP)
        appliance.process.send_signal(signal.SIGTERM)
        wait_until(lambda: len(appliance.processes()) <= 3, 10, "the others end")
        appliance.stop(signal.SIGTERM)
        assert_nothing_left(appliance)


def test_start_after_kill_cleans_up(home):
    """After `kill -9` of up the next start ends what was left, and serves."""
    with Appliance(home) as first:
        first.start(demo=True)
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait()
        left = {one.pid for one in first.processes()}
        assert len(left) >= 4
        with Appliance(home, ports=(first.control_port, first.gateway_port)) as second:
            second.start(demo=True)
            assert not left & {one.pid for one in second.processes()}
            second.stop()
            assert_nothing_left(second)


def test_two_run_side_by_side(home, template_home, tmp_path):
    """Two homes on different ports do not disturb each other: one ends, the other serves."""
    other_home = copy_home(template_home, tmp_path / "other")
    with Appliance(home) as one, Appliance(other_home) as other:
        one.start(demo=True, wait=False)
        other.start(demo=True, wait=False)
        one.wait_for_line("READY", 120)
        other.wait_for_line("READY", 120)
        assert one.create_key("side") != other.create_key("side")
        one.stop()
        assert_nothing_left(one)
        assert [row["state"] for row in other.run_json("fleet")["deployments"]] == ["ready"]


def test_same_home_twice_is_refused(home):
    """A second up with the same home ends at once and leaves the first alone."""
    with Appliance(home) as appliance:
        appliance.start(demo=True)
        second = appliance.run("up", check=False)
        assert second.returncode == 1
        assert "runs already" in second.stderr
        assert [row["state"] for row in appliance.run_json("fleet")["deployments"]] == ["ready"]


def test_taken_port_is_named(home):
    """A port that another program has stops the start with its variable's name."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        appliance = Appliance(home, ports=(free_ports(1)[0], port))
        refused = appliance.run("up", check=False)
    assert refused.returncode == 1
    assert f"GATEWAY_PORT={port}" in refused.stderr


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        pytest.param("GATEWAY_PORT", "99999", "GATEWAY_PORT='99999' is no port", id="port"),
        pytest.param("APPLIANCE_PORT", "http", "APPLIANCE_PORT='http' is no port", id="word"),
        pytest.param("APPLIANCE_BIND", "0.0.0.0", "TLS_CERT and TLS_KEY", id="open-bind"),
        pytest.param("TLS_CERT", "/nowhere.pem", "TLS_CERT='/nowhere.pem' is no file", id="tls"),
        pytest.param("REDIS_URL", "redis://x", "REDIS_URL is set", id="redis"),
    ],
)
def test_bad_variable_stops_the_start_in_one_line(home, variable, value, said):
    """The line names the variable, its value and what is accepted."""
    appliance = Appliance(home)
    done = subprocess.run(
        [sys.executable, "manage.py", "up"], cwd=ROOT, env=appliance.environment | {variable: value},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_worker_commands_say_that_no_worker_runs(home):
    """A command that needs the worker ends by itself where none runs."""
    appliance = Appliance(home)
    done = appliance.run("import_model", "other", "--from", "pypi:whatever", check=False)
    assert done.returncode == 1
    assert "no worker is running" in done.stderr
