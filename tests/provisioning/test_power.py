"""Machines that are sent for: magic packets on a socket, and programs of the operator's own."""

import ipaddress
import socket
import time

import pytest

from provisioning import power
from provisioning.power import (
    PowerError,
    Program,
    WakeOnLan,
    magic_packet,
    open_switch,
    own_broadcasts,
    why_unusable,
)

MAC = "52:54:00:12:34:56"


@pytest.fixture
def program(tmp_path):
    """Writes an executable into the operator's directory."""

    def write(name, script):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return Program(tmp_path, name)

    return write


def test_a_magic_packet():
    """Six bytes of ones and sixteen times the address, however it is written."""
    packet = magic_packet(MAC)
    assert packet == b"\xff" * 6 + bytes.fromhex("525400123456") * 16
    assert magic_packet("52-54-00-12-34-56") == packet
    with pytest.raises(ValueError, match="is no MAC address"):
        magic_packet("52:54:00")


def test_it_is_sent_to_the_network_and_to_the_last_address(monkeypatch):
    """Each round to both ports of every target, none twice."""
    sent = []
    monkeypatch.setattr(power, "_send", lambda packet, *target: sent.append(target))
    monkeypatch.setattr(power, "_APART_S", 0)
    WakeOnLan(MAC, lambda last: ["192.0.2.255", last], rounds=2).wake("192.0.2.7")
    assert sent == 2 * [(target, port) for target in ("192.0.2.255", "192.0.2.7") for port in (9, 7)]


def test_it_arrives():
    """A listener hears the very bytes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(10)
        power._send(magic_packet(MAC), "127.0.0.1", listening.getsockname()[1])
        assert listening.recv(200) == magic_packet(MAC)


def test_nothing_that_could_be_sent_is_an_error(monkeypatch):
    """Where no packet leaves this machine that is said, with why."""

    def refuse(*_given):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(power, "_send", refuse)
    with pytest.raises(PowerError, match=r"no magic packet could be sent.*Network is unreachable"):
        WakeOnLan(MAC, lambda _last: ["192.0.2.255"], rounds=1).wake("192.0.2.7")


def test_broadcasts(monkeypatch):
    """Of the network that the machine is in; of all of them, and the limited one, where that is not known."""
    networks = [ipaddress.IPv4Network(text) for text in ("192.0.2.0/24", "10.7.0.0/16")]
    monkeypatch.setattr(power, "_networks", lambda: [(one, one.broadcast_address) for one in networks])
    assert own_broadcasts("10.7.3.4") == ["10.7.255.255"]
    everywhere = ["255.255.255.255", "192.0.2.255", "10.7.255.255"]
    assert own_broadcasts("203.0.113.1") == own_broadcasts("") == own_broadcasts("2001:db8::1") == everywhere


def test_own_networks_are_read():
    """This machine's devices are asked without an error, and loopback is none of them."""
    assert not any(network.is_loopback for network, _ in power._networks())


def test_a_program_is_run_without_a_shell(program, tmp_path):
    """It is given `wake` and the address as they are, and nothing of the appliance's environment."""
    switch = program("bmc", f'printf "%s|" "$@" >{tmp_path}/said; env >{tmp_path}/env')
    switch.wake("box-1; reboot")
    assert (tmp_path / "said").read_text() == "wake|box-1; reboot|"
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert names <= {"PATH", "PWD", "SHLVL", "_", "OLDPWD"}


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'no route to BMC' >&2; exit 3", "bmc wake ended with 3: no route to BMC"),
        ("exit 1", "bmc wake ended with 1: it said nothing"),
    ],
)
def test_a_program_that_fails_says_why(program, script, said):
    """Its exit code and its last words."""
    with pytest.raises(PowerError) as caught:
        program("bmc", script).wake("box-1")
    assert str(caught.value) == said


def test_a_program_that_hangs_is_ended(program):
    """It has a time limit."""
    switch = program("bmc", "exec sleep 60")
    began = time.monotonic()
    with pytest.raises(PowerError, match=r"did not end within 0.2 s"):
        Program(switch.folder, "bmc", limit_s=0.2).wake("box-1")
    assert time.monotonic() - began < 30


def test_no_program_outside_the_directory(tmp_path):
    """A missing program, one that cannot be run and a path are refused."""
    (tmp_path / "plain").write_text("")
    for name in ("missing", "plain", "../sh"):
        with pytest.raises(PowerError, match="there is no program"):
            Program(tmp_path, name).wake("box-1")


def test_what_cannot_be_woken_is_known_before(program, tmp_path):
    """A program that is not there is told without running any; a magic packet can always be tried."""
    program("bmc", "exit 1")
    assert why_unusable("exec:bmc", tmp_path) == why_unusable(f"wol:{MAC}", tmp_path) == ""
    assert "there is no program 'other'" in why_unusable("exec:other", tmp_path)
    assert "not known how to switch it on" in why_unusable("", tmp_path)


def test_switches_by_name(tmp_path):
    """A node's power names its switch; anything else cannot be woken."""
    assert open_switch(f"wol:{MAC}", tmp_path) == WakeOnLan(MAC)
    assert open_switch("exec:bmc", tmp_path) == Program(tmp_path, "bmc")
    with pytest.raises(PowerError, match="not known how to switch it on"):
        open_switch("", tmp_path)
