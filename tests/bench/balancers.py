"""nginx and HAProxy before a plant's agents, as processes of ours with configurations of their own.

Where they are not installed Debian's packages are unpacked into the checkout: nothing of the system changes.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.authority import ClientFiles
from tests.bench.plant import HOST, PlantAgent
from tests.bench.processes import BenchError, process_running, wait_until
from tests.bench.servers import ROOT, Server, ask, find_free_port

UNPACKED = ROOT / ".venv-balancers"
PACKAGES = ("nginx", "haproxy")
INSTALL_S = 300.0
READY_S = 15.0
#: The gateway takes `x-served-by` from the agents' names, the balancers from their addresses.
NGINX = """\
daemon off;
worker_processes 1;
{user}
pid {scratch}/nginx.pid;
error_log {scratch}/nginx.error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {scratch}/body;
    proxy_temp_path {scratch}/proxy;
    fastcgi_temp_path {scratch}/fastcgi;
    uwsgi_temp_path {scratch}/uwsgi;
    scgi_temp_path {scratch}/scgi;
    upstream agents {{
        least_conn;
{servers}
        keepalive 256;
        keepalive_requests 1000000;
    }}
    server {{
        listen {host}:{port} backlog=2048;
        keepalive_requests 1000000;
        location / {{
            proxy_pass https://agents;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_ssl_protocols TLSv1.3;
            proxy_ssl_certificate {client.certificate};
            proxy_ssl_certificate_key {client.key};
            proxy_connect_timeout 2s;
            proxy_next_upstream error timeout non_idempotent;
            add_header x-served-by $upstream_addr always;
        }}
    }}
}}
"""
HAPROXY = """\
global
    maxconn 4096
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    timeout queue 60s
    option http-keep-alive
frontend public
    bind {host}:{port}
    default_backend agents
backend agents
    balance leastconn
    http-reuse always
    retries 3
    option redispatch 1
    retry-on all-retryable-errors
    option httpchk GET /readyz
    http-response set-header x-served-by %[srv_name]
    default-server check inter 1s fall 2 rise 1
    default-server ssl verify required ca-file {client.ca} crt {pair} alpn http/1.1
{servers}
"""


@dataclass(frozen=True, slots=True)
class Balancer:
    """A balancer that stands before the agents given. Not the gateway's agents: these queue themselves."""

    name: str
    settings: str
    scratch: Path
    agents: Sequence[PlantAgent]
    client: ClientFiles

    @contextlib.contextmanager
    def running(self, body: bytes) -> Iterator[Server]:
        """Run it until the context ends; it has answered `body` at the start. Raises BenchError."""
        self.scratch.mkdir(exist_ok=True)
        port = find_free_port()
        command = self._nginx(port) if self.name == "nginx" else self._haproxy(port)
        log = self.scratch / f"{self.name}.log"
        server = Server(self.name, f"http://{HOST}:{port}/v1/embeddings")
        with process_running(command, log, env=_environment(), cwd=self.scratch, stop_s=5.0) as process:
            wait_until("answering", lambda: _answers(server, body), process, READY_S)
            yield server

    def _nginx(self, port: int) -> list[str | Path]:
        servers = "\n".join(f"        server {agent.address};" for agent in self.agents)
        path = self.scratch / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""  # its temporary files are ours
        path.write_text(
            NGINX.format(
                user=user, scratch=self.scratch, servers=servers, host=HOST, port=port, client=self.client
            )
        )
        return [find_program("nginx"), "-p", self.scratch, "-e", self.scratch / "nginx.start.log", "-c", path]

    def _haproxy(self, port: int) -> list[str | Path]:
        servers = "\n".join(f"    server {agent.name} {agent.address}" for agent in self.agents)
        pair = self.scratch / "client.pem"
        pair.touch(0o600)
        pair.write_bytes(self.client.certificate.read_bytes() + self.client.key.read_bytes())
        path = self.scratch / "haproxy.cfg"
        path.write_text(HAPROXY.format(servers=servers, host=HOST, port=port, client=self.client, pair=pair))
        return [find_program("haproxy"), "-db", "-q", "-f", path]


def build_balancers(scratch: Path, agents: Sequence[PlantAgent], client: ClientFiles) -> list[Balancer]:
    """Both, before the same agents; never to be loaded at the same time."""
    retry = "kept-alive mutual TLS to the agents, retries elsewhere also of POST"
    return [
        Balancer("nginx", f"least_conn, {retry}", scratch / "nginx", agents, client),
        Balancer("HAProxy", f"leastconn, {retry}, checks each second", scratch / "haproxy", agents, client),
    ]


def find_program(name: str) -> Path:
    """Where the program is: installed, or unpacked here. Raises BenchError."""
    places = [*os.environ.get("PATH", "").split(os.pathsep), "/usr/sbin", str(UNPACKED / "usr" / "sbin")]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        raise BenchError(f"{name} is not there: sudo apt-get install {name}")
    return Path(found)


def install_balancers() -> None:
    """Unpack Debian's packages where a program is missing. Raises BenchError."""
    missing = []
    for name in PACKAGES:
        try:
            find_program(name)
        except BenchError:
            missing.append(name)
    if not missing:
        return
    print(f"unpacking {' and '.join(missing)} into {UNPACKED.name} (once)", file=sys.stderr, flush=True)
    if os.geteuid() == 0:
        _run("apt-get", "update", "-qq")
    UNPACKED.mkdir(exist_ok=True)
    listed = _run("apt-get", "install", "-s", "-qq", "--no-install-recommends", *missing)
    # With the libraries that they need and the system does not have.
    needed = {line.split()[1] for line in listed.splitlines() if line.startswith("Inst ")}
    _run("apt-get", "download", "-qq", *sorted(needed), cwd=UNPACKED)
    for package in sorted(UNPACKED.glob("*.deb")):
        _run("dpkg", "-x", str(package), str(UNPACKED))
        package.unlink()


def read_balancer_versions() -> dict[str, str]:
    """Versions by program; only of those that are there."""
    versions = {}
    for name, option in (("nginx", "-v"), ("haproxy", "-v")):
        with contextlib.suppress(BenchError, OSError):
            command = [str(find_program(name)), option]
            done = subprocess.run(command, capture_output=True, env=_environment(), timeout=10, check=False)
            words = (done.stdout + done.stderr).decode().replace("/", " ").split()
            versions[name] = next(word for word in words if word[0].isdigit())
    return versions


def _answers(server: Server, body: bytes) -> bool:
    try:
        ask(server, body)
    except (OSError, BenchError):
        return False
    return True


def _environment() -> dict[str, str]:
    libraries = [str(path) for path in (UNPACKED / "usr" / "lib").glob("*-linux-gnu*")]
    before = [value for value in (os.environ.get("LD_LIBRARY_PATH"),) if value]
    return dict(os.environ) | {"LD_LIBRARY_PATH": os.pathsep.join([*libraries, *before])}


def _run(*command: str, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, timeout=INSTALL_S, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"{command[0]}: {error}") from error
    if done.returncode:
        raise BenchError(f"{' '.join(command[:2])}: {done.stderr.decode().strip()[-300:]}")
    return done.stdout.decode()
