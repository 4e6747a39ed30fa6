"""A key works from the moment its command returns, and stops so too."""

import os
import signal
import urllib.error
import urllib.request

import pytest

pytestmark = pytest.mark.slow


def status_with(appliance, key):
    request = urllib.request.Request(f"{appliance.api}/v1/models", headers={"Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("worker", ["running", "stopped"])
def test_very_next_request_knows_the_key(appliance, worker):
    """The request right after create_key answers, the one right after revoke_key is refused."""
    pid = appliance.pid_of("worker")
    if worker == "stopped":
        os.kill(pid, signal.SIGSTOP)
    try:
        for turn in range(3):
            key = appliance.create_key(f"{worker}-{turn}")
            assert status_with(appliance, key) == 200
            appliance.run("revoke_key", f"{worker}-{turn}")
            assert status_with(appliance, key) == 401
    finally:
        if worker == "stopped":
            os.kill(pid, signal.SIGCONT)


def test_key_is_printed_once_and_alone(appliance):
    """The last line of stdout is the key, and no file of the state directory holds it."""
    key = appliance.run("create_key", "once").stdout.splitlines()[-1]
    assert status_with(appliance, key) == 200
    for path in appliance.home.rglob("*"):
        if path.is_file():
            assert key.encode() not in path.read_bytes(), path
