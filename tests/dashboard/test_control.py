"""The control process: where it listens, how it ends."""

import signal
import subprocess
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from django.conf import settings
from stage import stage

from appliance.management.commands.control import build_endpoint

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({}, "tcp:8000:interface=127.0.0.1", id="plain"),
        pytest.param({"bind": "::1"}, r"tcp:8000:interface=\:\:1", id="ipv6"),
        pytest.param(
            {"tls_certificate": Path("/c:d/cert.pem"), "tls_key": Path("/k.pem")},
            r"ssl:8000:interface=127.0.0.1:privateKey=/k.pem:certKey=/c\:d/cert.pem",
            id="tls",
        ),
    ],
)
def test_endpoints(fields, expected):
    """The environment is put into Twisted's words, colons escaped."""
    assert build_endpoint(replace(settings.ENVIRONMENT, control_port=8000, **fields)) == expected


@pytest.fixture
def scene(tmp_path):
    with stage(tmp_path / "home", seeded=False, gateway=False) as scene:
        yield scene


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_it_ends_cleanly(scene, number):
    """Either signal ends it with exit code 0, also where SIGINT was ignored at the start."""
    scene.stop()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        scene.start()
    finally:
        signal.signal(signal.SIGINT, before)
    assert scene.stop(number) == 0
    assert "Traceback" not in scene.log()


@pytest.mark.slow
def test_a_taken_port_is_told(scene):
    """A second one on the same port ends at once with one line that names the variable."""
    second = subprocess.run(
        [sys.executable, "manage.py", "control"], cwd=ROOT, env=scene.environment, timeout=60,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert second.returncode == 1
    assert f"APPLIANCE_PORT={scene.environment['APPLIANCE_PORT']}" in second.stderr
    assert len(second.stderr.splitlines()) == 1


@pytest.mark.slow
def test_static_files_are_served(scene):
    """The theme's, the admin's and our own files come without a collecting step."""
    for path in ("unfold/css/styles.css", "admin/js/core.js", "dashboard/overview.js"):
        with urllib.request.urlopen(f"{scene.url}/static/{path}", timeout=10) as answer:
            assert answer.status == 200
            assert len(answer.read()) > 500
    assert not (ROOT / "staticfiles").exists()
