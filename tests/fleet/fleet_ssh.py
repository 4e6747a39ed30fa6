"""SSH as a person's client has it, for tests of the hosts themselves."""

import socket

import paramiko
from hosts import PASSWORD, Host

TIMEOUT_S = 20.0


def log_in(host: Host, user: str = "root", password: str | None = PASSWORD, key=None) -> paramiko.SSHClient:
    """A client that is logged in; what paramiko raises where it is refused."""
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    client.connect(
        host.address, host.port, user, password=password, pkey=key, look_for_keys=False, allow_agent=False,
        timeout=TIMEOUT_S, banner_timeout=TIMEOUT_S, auth_timeout=TIMEOUT_S,
    )  # fmt: skip
    return client


def run_over(client: paramiko.SSHClient, script: str, given: str = "") -> tuple[int, str]:
    """(exit code, standard output) of a command, with `given` as its input."""
    stdin, stdout, stderr = client.exec_command(script, timeout=TIMEOUT_S)
    stdin.write(given)
    stdin.channel.shutdown_write()
    said = stdout.read().decode()
    stderr.read()
    return stdout.channel.recv_exit_status(), said


def fingerprint(client: paramiko.SSHClient) -> tuple[str, str]:
    """(type, SHA256:...) of the host key that this connection saw."""
    key = client.get_transport().get_remote_server_key()
    return key.get_name(), key.fingerprint


def read_banner(host: Host, timeout_s: float = TIMEOUT_S) -> bytes:
    """The first bytes of its SSH port; OSError where there are none."""
    with socket.create_connection((host.address, host.port), timeout=timeout_s) as link:
        return link.recv(8)
