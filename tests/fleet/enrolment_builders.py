"""An appliance's side for tests with real hosts: its keys, its authority, and what it does to a host."""

import contextlib
import datetime as dt
import hashlib
import http.client
import ssl
import time
from pathlib import Path

from fleet_trees import cache_folder
from hosts import PASSWORD

from agents.protocol import PATH_READY
from provisioning.bundle import Release, build_release, build_steward
from provisioning.certificates import create_authority
from provisioning.enrolment import Enrolled, make_first_contact, open_steward
from provisioning.hostkeys import parse_pin
from provisioning.identity import create_identity
from provisioning.login import Address, KeyText, Password
from provisioning.planning import Wanted
from provisioning.ssh import connect
from provisioning.transport import Secret

NOW = dt.datetime.now(dt.UTC)


class Mill:
    """The appliance. Releases are kept between runs, beside the hosts' trees."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.identity = create_identity()
        self.authority = create_authority(NOW)
        self.wanted = Wanted(build_steward(), self.identity.public)
        self.lines = []
        self.times: dict[str, float] = {}

    def enroll(
        self, host, user="root", password=PASSWORD, way=None, *, log=None, connect=connect
    ) -> Enrolled:
        return make_first_contact(
            Address(host.address, host.port, user),
            parse_pin(host.fingerprints()["ssh-ed25519"]),
            way or Password(Secret(password)),
            wanted=self.wanted,
            identity=self.identity,
            log=log or self.lines.append,
            connect=connect,
        )

    def steward(self, enrolled: Enrolled):
        return open_steward(enrolled.address, enrolled.host_key, self.identity)

    def carrier(self, enrolled: Enrolled):
        return connect(enrolled.address, enrolled.host_key, KeyText(self.identity.private))

    def release(self, enrolled: Enrolled) -> Release:
        hardware = enrolled.facts.hardware
        return build_release(cache_folder() / "releases", hardware.python, hardware.arch)

    @contextlib.contextmanager
    def timed(self, stage: str):
        began = time.monotonic()
        yield
        self.times[stage] = time.monotonic() - began

    def install_agent(self, node, host, agent, port, **config) -> None:
        issued = self.authority.issue_server(agent, [host.address], NOW)
        whole = {
            "agent": agent, "deployment": "d", "revision": "d-1", "task": "embed", "engine": "fake",
            "host": host.address, "port": port, "model_dir": None,
            "workers": 1, "threads": 1, "batch_size": 1, "admits": 2, **config,
        }  # fmt: skip
        pem = self.authority.certificate_pem
        node.install(agent, whole, issued.certificate_pem, issued.key_pem, pem)

    def client_tls(self, authority=None) -> ssl.SSLContext:
        """TLS as a gateway speaks it: with a client certificate of `authority`, ours unless told."""
        issued = (authority or self.authority).issue_client("control", NOW)
        return self.tls(issued.certificate_pem + issued.key_pem)

    def tls(self, shown: bytes | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.authority.certificate_pem.decode())
        if shown is not None:
            path = self.folder / f"{hashlib.sha256(shown).hexdigest()[:16]}.pem"
            path.write_bytes(shown)
            context.load_cert_chain(path)
        return context


def ask_ready(host, port, tls) -> int | None:
    """The status of /readyz; None where there is no answer at all."""
    try:
        with contextlib.closing(
            http.client.HTTPSConnection(host.address, port, timeout=5, context=tls)
        ) as line:
            line.request("GET", PATH_READY)
            return line.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
