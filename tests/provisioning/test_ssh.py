"""The SSH carrier against OpenSSH's own server."""

import contextlib
import getpass
import hashlib
import os
import socket
import subprocess
import threading
import time

import paramiko
import pytest
from provisioning_builders import wait_until
from ssh_builders import SSHD, Sshd, listener

from provisioning import errors
from provisioning.hostkeys import HostKey, fingerprint, parse_pin
from provisioning.identity import create_identity, load_identity
from provisioning.login import Address, KeyFile, KeyText, Password, SshAgent
from provisioning.ssh import connect, read_host_key
from provisioning.transport import MAX_OUTPUT_BYTES, Limits, Secret

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(SSHD is None, reason="there is no sshd (tests/packages.sh installs it)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="sshd needs root to let others in"),
]
SOON = Limits(idle_s=0.5, total_s=10)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory):
    """A server for these tests."""
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def identity(sshd):
    """A key that opens it."""
    made = create_identity()
    sshd.authorized.write_text(made.public + "\n")
    return made


@pytest.fixture
def address(sshd):
    """Where it listens."""
    return Address("127.0.0.1", sshd.port, getpass.getuser())


@pytest.fixture
def carrier(address, identity):
    """A logged-in connection."""
    carried = connect(address, read_host_key(address), KeyText(identity.private))
    yield carried
    carried.close()


def test_a_command_runs_to_its_end(carrier):
    """Input goes in, output, complaints and exit code come out."""
    done = carrier.run("cat; echo oops >&2; exit 3", stdin=(b"one ", b"two"))
    assert (done.exit_code, done.stdout, done.error_line) == (3, b"one two", "oops")


def test_a_large_input_arrives_whole_and_no_faster_than_it_is_read(carrier):
    """Pieces are drawn only as the far side takes them, and all arrive."""
    piece, drawn = os.urandom(1 << 20), []

    def pieces():
        for number in range(16):
            drawn.append(number)
            yield piece

    gate = threading.Event()
    done = carrier.run("head -c 1 >/dev/null; sleep 0.3; cat | wc -c", stdin=pieces())
    assert int(done.stdout) == 16 * len(piece) - 1
    gate.set()
    drawn.clear()
    carrier.run("sleep 0.3", stdin=pieces())
    assert len(drawn) < 16


def test_output_is_bounded(carrier):
    """A box that never stops talking fills no memory; with a listener, every byte is heard."""
    size = MAX_OUTPUT_BYTES + 100_000
    assert len(carrier.run(f"head -c {size} /dev/zero").stdout) == MAX_OUTPUT_BYTES
    heard = hashlib.sha256()
    told = carrier.run(f"head -c {size} /dev/zero", on_output=heard.update)
    assert heard.digest() == hashlib.sha256(bytes(size)).digest()
    assert told.stdout == b""


@pytest.mark.slow
def test_silence_and_slowness_have_their_limits(address, identity):
    """Without progress for the idle limit, or beyond the total one, the command is given up."""
    pin = read_host_key(address)
    for command, limits in (("sleep 60", SOON), ("while :; do echo x; sleep 0.1; done", Limits(5, 1))):
        hung = connect(address, pin, KeyText(identity.private))
        with pytest.raises(errors.Hung):
            hung.run(command, limits=limits)
        with pytest.raises(errors.ConnectionLost):
            hung.run("true")


def test_a_flood_has_its_limit(address, identity):
    """A box that talks faster than it is listened to is given up in time all the same."""
    flood = connect(address, read_host_key(address), KeyText(identity.private))
    watch = threading.Timer(20, flood.close)
    watch.start()
    with pytest.raises(errors.Hung, match="within 1 s"):
        flood.run("yes", limits=Limits(1, 1), on_output=lambda _piece: time.sleep(0.005))
    watch.cancel()


class Flooding(paramiko.ServerInterface):
    """A box that sends without end, whatever the window says."""

    def check_auth_password(self, username, password):
        return paramiko.AUTH_SUCCESSFUL

    def check_channel_request(self, kind, chanid):
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel, command):
        channel.out_window_size = 1 << 60
        threading.Thread(target=self._flood, args=(channel,), daemon=True).start()
        return True

    def _flood(self, channel):
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            while True:
                channel.sendall(bytes(30_000))


def test_a_box_that_sends_more_than_it_may_fills_no_memory():
    """What waits to be read is bounded also where the box does not keep to the protocol."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = Address("127.0.0.1", server.getsockname()[1])

        def serve():
            transport = paramiko.Transport(server.accept()[0])
            transport.daemon = True
            transport.add_server_key(host_key)
            transport.start_server(server=Flooding())

        host_key = paramiko.ECDSAKey.generate()
        threading.Thread(target=serve, daemon=True).start()
        pin = HostKey(fingerprint(host_key.asbytes()), host_key.get_name())
        carried = connect(address, pin, Password(Secret("x")))
        with pytest.raises(errors.ConnectionLost, match="more than it may"):
            carried.run("x", limits=Limits(10, 20), on_output=lambda _piece: time.sleep(0.01))


def test_an_error_while_drawing_input_is_raised(carrier):
    """What goes wrong at our end is not taken for the box's fault."""

    def pieces():
        yield b"a"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        carrier.run("cat", stdin=pieces())


def test_a_connection_that_is_cut_is_lost(carrier):
    """`close` from another thread ends a command that runs."""
    threading.Timer(0.2, carrier.close).start()
    with pytest.raises(errors.ConnectionLost):
        carrier.run("sleep 60")


def test_another_host_key_is_a_loud_error(sshd, address, identity):
    """The pinned key must be shown; another one, and nothing is told to the box."""
    pin = read_host_key(address)
    wrong = HostKey("SHA256:" + "A" * 43, "ssh-ed25519")
    with pytest.raises(errors.HostKeyChanged, match="HOST KEY CHANGED"):
        connect(address, wrong, KeyText(identity.private))
    sshd.new_host_key()
    with pytest.raises(errors.HostKeyChanged) as caught:
        connect(address, pin, KeyText(identity.private))
    assert caught.value.permanent
    sshd.stop()
    sshd.start("ed25519", "rsa")


def test_a_pin_of_unknown_type_may_be_any_key_of_the_box(sshd, address, identity):
    """A fingerprint given by a person is found among all the types that the box has."""
    shown = subprocess.run(
        ["ssh-keygen", "-lf", str(sshd.folder / "host_rsa.pub")], capture_output=True, text=True, check=True
    ).stdout
    connect(address, parse_pin(shown.split()[1]), KeyText(identity.private)).close()
    with pytest.raises(errors.HostKeyChanged):
        connect(address, HostKey("SHA256:" + "A" * 43), KeyText(identity.private))


def test_a_key_that_opens_nothing_is_refused(address):
    """A key of nobody's, and a password where none is taken."""
    pin = read_host_key(address)
    with pytest.raises(errors.KeyRefused):
        connect(address, pin, KeyText(create_identity().private))
    with pytest.raises(errors.WrongPassword, match="takes no password"):
        connect(address, pin, Password(Secret("x")))


def test_key_files_and_the_agent_open(sshd, address, identity, tmp_path, monkeypatch):
    """A key file, one with a passphrase, and a key that ssh-agent holds."""
    pin, path = read_host_key(address), tmp_path / "key"
    path.write_text(identity.private.reveal())
    path.chmod(0o600)
    connect(address, pin, KeyFile(path)).close()
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(tmp_path / "agent")], stdout=subprocess.DEVNULL)
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        wait_until((tmp_path / "agent").exists)
        with pytest.raises(errors.KeyUnusable, match="holds no key"):
            connect(address, pin, SshAgent())
        subprocess.run(["ssh-add", "-q", str(path)], check=True)
        connect(address, pin, SshAgent()).close()
    finally:
        agent.terminate()
        agent.wait(10)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "open sesame", "-f", str(path)], check=True)
    with pytest.raises(errors.KeyUnusable, match="passphrase"):
        connect(address, pin, KeyFile(path))
    connect(address, pin, KeyFile(path, Secret("open sesame"))).close()
    path.write_text("nonsense")
    with pytest.raises(errors.KeyUnusable):
        connect(address, pin, KeyFile(path))


def test_what_is_no_sshd_is_told_apart():
    """Nothing there, no SSH there, a silent port and an unknown name: each its own error, in time."""
    with pytest.raises(errors.WrongPort, match="refuses"):
        read_host_key(Address("127.0.0.1", 1))
    with listener(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port, pytest.raises(errors.WrongPort):
        read_host_key(Address("127.0.0.1", port), connect_s=1.0)
    with listener(b"") as port, pytest.raises((errors.WrongPort, errors.Hung)):
        read_host_key(Address("127.0.0.1", port), connect_s=0.5)
    with listener(b"SSH-2.0-OpenSSH_9.2\r\n") as port, pytest.raises(errors.Hung):
        read_host_key(Address("127.0.0.1", port), connect_s=0.5)
    with pytest.raises(errors.Unreachable):
        read_host_key(Address("no-such-host.invalid"))


def test_an_identity_is_the_same_after_reading_it_back():
    """A stored private key gives its public half again."""
    made = create_identity()
    assert load_identity(made.private.reveal()).public == made.public
    assert made.private.reveal() not in repr(made)
