"""Renewal with all that takes part: the loop, real hands on a real process, and our own clients."""

import datetime as dt
import hashlib
import socket
import ssl
import threading
import time
from dataclasses import replace

import pytest
from control_builders import add_model
from django.conf import settings

from appliance.authority import client_files, ensure_authority
from appliance.control import renewal
from appliance.control.ask import fetch_load
from appliance.control.hands import AgentSpec, Hands
from appliance.control.renewal import keep_client_certificates
from appliance.deployments import deploy
from appliance.models import Agent
from appliance.policies.renewal import LOAD_S
from appliance.publish import build_snapshot
from provisioning.certificates import valid_until
from provisioning.local import LocalNode, end_all, free_port


def in_days(stage, days):
    return dt.datetime.fromtimestamp(stage.now, dt.UTC) + dt.timedelta(days=days)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True, databases=["default", "history"])
def test_a_loop_renews_what_it_runs(stage):
    """Tick by tick: the agent's files and the routes have one new certificate, and it was never restarted."""
    add_model()
    deploy("mini", model="tiny", actor="test")
    for _ in range(4):
        stage.tick()
    before = stage.agent()
    Agent.objects.update(certificate_expires_at=in_days(stage, 29))
    done = len(stage.node.calls)
    for _ in range(int(LOAD_S) + 6):
        stage.tick()
        shown = stage.hands.installed_certificate(before.id)
        assert shown in build_snapshot(stage.now).agents[0].certificates
    after = stage.agent()
    assert after.certificates == [stage.hands.installed_certificate(after.id)] != before.certificates
    assert after.certificate_expires_at > in_days(stage, 89)
    assert (after.pid, after.state, after.port) == (before.pid, "ready", before.port)
    assert stage.node.calls[done:] == [("install", after.id)]
    assert stage.node.configs[after.id]["port"] == after.port


def test_our_own_clients_are_looked_after(tmp_path, monkeypatch, caplog):
    """While the worker runs; a failure is said and the next look comes all the same."""
    environment = replace(settings.ENVIRONMENT, home=tmp_path)
    ensure_authority(environment, dt.datetime.now(dt.UTC) - dt.timedelta(days=61))
    before = client_files(environment, "gateway").certificate.read_bytes()
    stop, looked = threading.Event(), []

    def look(given):
        looked.append(given)
        if len(looked) == 1:
            raise OSError("disk full")
        ensure_authority(given)
        stop.set()

    monkeypatch.setattr(renewal, "ensure_authority", look)
    keep_client_certificates(environment, stop, every_s=0.001)
    assert "disk full" in caplog.text
    after = client_files(environment, "gateway").certificate.read_bytes()
    assert valid_until(after) > valid_until(before)


@pytest.mark.slow
def test_a_running_agent_takes_its_new_certificate_up(tmp_path):
    """Through real hands: a process that serves shows what was renewed, and is the same process."""
    environment = replace(settings.ENVIRONMENT, home=tmp_path)
    authority = ensure_authority(environment)
    node, now = LocalNode(tmp_path), dt.datetime.now(dt.UTC)
    hands = Hands(environment, node, authority, find_port=free_port)
    profile = {"workers": 1, "threads": 1, "batch_size": 1}
    port = free_port("127.0.0.1")
    spec = AgentSpec("a-1", "a", "a-1", "embed", "0" * 64, "127.0.0.1", port, profile, engine="fake")
    try:
        old = hands.install(spec, now).sha256
        pid = hands.start("a-1")
        wait_until(lambda: shown_at(port, environment) == old)
        renewed = authority.issue_server("a-1", ("127.0.0.1", "localhost"), now)
        hands.renew(spec, renewed)
        assert hands.installed_certificate("a-1") == renewed.sha256
        wait_until(lambda: shown_at(port, environment) == renewed.sha256)
        assert hands.running() == {"a-1": pid}
        assert fetch_load("127.0.0.1", port, client_files(environment, "control")).agent == "a-1"
    finally:
        end_all(tmp_path, 5.0)


def shown_at(port, environment):
    """SHA-256 of the certificate that a new connection is shown, None where nobody listens yet."""
    files = client_files(environment, "control")
    context = ssl.create_default_context(cafile=str(files.ca))
    context.load_cert_chain(files.certificate, files.key)
    try:
        with (
            socket.create_connection(("127.0.0.1", port), 5) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
        ):
            return hashlib.sha256(secured.getpeercert(binary_form=True)).hexdigest()
    except ConnectionError:
        return None


def wait_until(condition, timeout_s=30.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
