"""The steward puts its machine to sleep, or says why it cannot; the answer comes before that."""

import json
from dataclasses import replace

import pytest
from steward_builders import RecordedSystem, ask, make_places

from provisioning.steward.main import Steward

LATER = ("systemd-run", "--quiet", "--collect", "--on-active=1s", "--timer-property=AccuracySec=100ms")
LOADED = b"loaded\n\nloaded\n\nloaded\n"


@pytest.fixture
def machine(tmp_path):
    """A steward on a machine whose kernel offers these ways to suspend, and whose systemd shows this."""

    def make(states="freeze mem disk\n", shown=LOADED):
        (tmp_path / "sys" / "power").mkdir(parents=True)
        (tmp_path / "sys" / "power" / "state").write_text(states)
        system = RecordedSystem(show=shown)
        return Steward(replace(make_places(tmp_path), sys=tmp_path / "sys"), system), system

    return make


def asked(steward, verb):
    return ask(steward, json.dumps({"verb": verb}).encode() + b"\n")


def test_suspend_comes_after_the_answer(machine):
    """It is left to systemd to do, in a second, by its own target."""
    steward, system = machine()
    assert asked(steward, "suspend") == (0, {"ok": True})
    assert system.calls[-1] == (
        *LATER, "--unit=millwright-suspend", "systemctl", "--no-block", "start", "suspend.target",
    )  # fmt: skip


def test_power_off_comes_after_the_answer(machine):
    """The same for switching off, which every machine can."""
    steward, system = machine(states="")
    assert asked(steward, "power_off") == (0, {"ok": True})
    assert system.calls == [(*LATER, "--unit=millwright-poweroff", "systemctl", "--no-block", "poweroff")]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"states": ""}, "its kernel offers no suspend to memory"),
        ({"states": "disk\n"}, "its kernel offers no suspend to memory"),
        ({"shown": b"masked\n\nloaded\n\nloaded\n"}, "its suspend.target is masked"),
        ({"shown": b"loaded\n\nloaded\n\nnot-found\n"}, "its systemd-suspend.service is not-found"),
    ],
    ids=["no-state", "disk-alone", "masked", "no-service"],
)
def test_a_machine_that_cannot_says_so(machine, given, why):
    """Nothing is begun, and the answer has a code, the reason and what to do."""
    steward, system = machine(**given)
    code, answer = asked(steward, "suspend")
    assert (code, answer["error"]["code"]) == (1, "cannot_suspend")
    assert why in answer["error"]["message"]
    assert "sleep_how=power_off" in answer["error"]["hint"]
    assert not [call for call in system.calls if call[0] == "systemd-run"]
