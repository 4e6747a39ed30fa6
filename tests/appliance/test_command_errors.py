"""What commands say where the state directory is of no use: one line, exit code 1."""

import sys

import pytest
from appliance_builders import make_model
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import DatabaseError, OperationalError

from appliance import waiting
from appliance.deployments import deploy
from appliance.management.commands import create_key as command
from appliance.waiting import DeploymentFailedError, wait_until_ready

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OperationalError("database or disk is full"), "database or disk is full; see to the disk"),
        (DatabaseError("database disk image is malformed"), "malformed; see to the disk"),
        (OSError(28, "No space left on device", "/home/run"), "No space left on device: /home/run"),
    ],
)
def test_trouble_with_the_disk_is_one_line(monkeypatch, error, words):
    """Neither a full disk nor a damaged database ends a command with a traceback."""

    def create_key(*_args, **_named):
        raise error

    monkeypatch.setattr(command, "create_key", create_key)
    with pytest.raises(CommandError, match=words):
        call_command("create_key", "alpha")


def test_a_reader_that_has_enough_is_no_error(monkeypatch, tmp_path):
    """As `| head`: nothing is said, and nothing is written on."""

    def create_key(*_args, **_named):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(command, "create_key", create_key)
    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        call_command("create_key", "alpha")
        out.write("left over")
    assert (tmp_path / "out").read_text() == ""


def test_deployment_that_takes_too_long_says_what_holds_it(monkeypatch):
    """Where no agent has failed, the loop's own words are told, and no log is promised."""
    make_model()
    made = deploy("mini", model="minilm", min_agents=2, actor="test").deployment
    type(made).objects.update(problem="no node has room")
    monkeypatch.setattr(waiting, "_POLL_S", 0.01)
    with pytest.raises(DeploymentFailedError, match="0 of 2 agents are; it goes on: no node has room"):
        wait_until_ready("mini", timeout_s=0.02, say=lambda line: None)
