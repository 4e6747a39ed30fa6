"""A real agent with its fake engine, started, reached and stopped as the control loop does it."""

import datetime as dt
import http.client
import ssl
from contextlib import closing

import pytest
from provisioning_builders import wait_until

from agents.protocol import PATH_READY
from provisioning.certificates import create_authority
from provisioning.local import LocalNode, free_port

NOW = dt.datetime.now(dt.UTC)


def is_ready(port, tls):
    """Whether the agent says that it may take traffic."""
    try:
        with closing(http.client.HTTPSConnection("127.0.0.1", port, timeout=2, context=tls)) as connection:
            connection.request("GET", PATH_READY)
            return connection.getresponse().status == 200
    except OSError:
        return False


@pytest.mark.slow
def test_a_real_agent_starts_answers_and_drains(home, tmp_path):
    """An agent installed with certificates of our authority becomes ready, and ends with 0 on SIGTERM."""
    authority = create_authority(NOW)
    served, client = (
        authority.issue_server("a-1", ["127.0.0.1"], NOW),
        authority.issue_client("control", NOW),
    )
    (tmp_path / "client.pem").write_bytes(client.certificate_pem + client.key_pem)
    tls = ssl.create_default_context(cadata=authority.certificate_pem.decode())
    tls.load_cert_chain(tmp_path / "client.pem")
    node, port = LocalNode(home), free_port("127.0.0.1")
    config = {
        "agent": "a-1", "deployment": "d", "revision": "d-1", "task": "embed", "engine": "fake",
        "host": "127.0.0.1", "port": port, "model_dir": None,
        "workers": 1, "threads": 1, "batch_size": 1, "admits": 2,
    }  # fmt: skip
    node.install("a-1", config, served.certificate_pem, served.key_pem, authority.certificate_pem)
    node.start("a-1")
    wait_until(lambda: is_ready(port, tls) or node.exit_code("a-1") is not None, timeout_s=30)
    assert node.exit_code("a-1") is None, node.last_log_lines("a-1")
    node.stop("a-1")
    wait_until(lambda: not node.running(), timeout_s=30)
    assert node.exit_code("a-1") == 0, node.last_log_lines("a-1")
