"""`manage.py load_test` against a stand-in for the gateway in a thread of its own."""

import asyncio
import dataclasses
import hashlib
import io
import json
import os
import signal
import threading

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from scripted_server import OK, ScriptedServer, build_answer

from appliance.errors import VerbError
from appliance.models import ApiKey, Deployment, InferenceModel

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
BOUND_S = 20.0


@pytest.fixture
def gateway(settings):
    """A scripted server where the appliance's gateway would listen."""
    server, loop = ScriptedServer(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(BOUND_S)
    settings.ENVIRONMENT = dataclasses.replace(settings.ENVIRONMENT, gateway_port=server.port)
    yield server
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result(BOUND_S)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(BOUND_S)
    loop.close()


@pytest.fixture
def deployment(db):
    """A deployment as the catalog and `deploy` make it."""
    model = InferenceModel.objects.create(name="minilm", source="pypi:x", task="embed", state="ready")
    return Deployment.objects.create(name="minilm", model=model)


def run(*arguments: object) -> dict[str, object]:
    output = io.StringIO()
    call_command("load_test", *map(str, arguments), "--json", stdout=output)
    return json.loads(output.getvalue())


def used_key(server: ScriptedServer) -> ApiKey:
    secret = server.heads[0].split(b"Authorization: Bearer ")[1].split(b"\r\n")[0]
    return ApiKey.objects.get(sha256=hashlib.sha256(secret).hexdigest())


def test_requests_reach_the_gateway_with_a_key_that_then_ends(gateway, deployment):
    """The schedule is kept, the deployment named, the key real, and revoked afterwards."""
    summary = run("minilm", "--rps", 50, "--duration", 0.5)
    assert summary["mode"] == "open"
    assert summary["requests"] == summary["answered"] == len(gateway.heads) > 0
    assert gateway.heads[0].startswith(b"POST /v1/embeddings HTTP/1.1\r\n")
    assert {json.loads(body)["model"] for body in gateway.bodies} == {"minilm"}
    assert used_key(gateway).revoked_at is not None
    assert not ApiKey.objects.filter(revoked_at__isnull=True).exists()


def test_inputs_come_from_a_file(gateway, deployment, tmp_path):
    """Each line is one input."""
    path = tmp_path / "inputs"
    path.write_text("first\n\nsecond ü\n")
    run("minilm", "--rps", 100, "--duration", 0.3, "--inputs-file", path)
    assert {json.loads(body)["input"] for body in gateway.bodies} == {"first", "second ü"}


def test_failed_requests_fail_the_command(gateway, deployment, capsys):
    """Figures are printed first, then the number that failed."""
    gateway.answer = lambda n: build_answer(503) if n == 1 else OK
    output = io.StringIO()
    with pytest.raises(CommandError, match=r"^1 of \d+ requests failed"):
        call_command("load_test", "minilm", "--rps", "50", "--duration", "0.4", stdout=output)
    assert "503: 1" in output.getvalue()
    assert used_key(gateway).revoked_at is not None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_revokes_its_key(gateway, deployment, number):
    """Ctrl-C ends the run early, prints what was measured, and leaves no live key."""

    def answer(n: int) -> bytes:
        if n == 5:
            os.kill(os.getpid(), number)
        return OK

    gateway.answer = answer
    output = io.StringIO()
    with pytest.raises(CommandError, match="interrupted"):
        call_command("load_test", "minilm", "--rps", "100", "--duration", "600", stdout=output)
    assert "(interrupted)" in output.getvalue()
    assert used_key(gateway).revoked_at is not None


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--rps", "20001", "--duration", "1"], "rps 20001"),
        (["--rps", "1", "--duration", "3601"], "duration 3601"),
        (["--rps", "1", "--duration", "1", "--connections", "1025"], "connections 1025"),
        (["--rps", "1", "--duration", "1", "--inputs-file", "/no/such/file"], "/no/such/file"),
        (["--rps", "1", "--duration", "1", "--inputs-file", "/dev/null"], "no text"),
    ],
)
def test_bad_arguments_are_refused_before_a_key_is_made(deployment, arguments, named):
    """Values out of bounds exit 2, naming the value."""
    with pytest.raises(CommandError, match=named) as caught:
        run("minilm", *arguments)
    assert caught.value.returncode == 2
    assert not ApiKey.objects.exists()


def test_an_unknown_deployment_is_named():
    """What is not deployed is refused by name."""
    with pytest.raises((CommandError, VerbError), match="nothere"):
        run("nothere", "--rps", 1, "--duration", 1)


def test_without_a_gateway_nothing_is_made(deployment, settings):
    """Where nobody listens the command says so at once."""
    settings.ENVIRONMENT = dataclasses.replace(settings.ENVIRONMENT, gateway_port=1)
    with pytest.raises(CommandError, match=r"no gateway answers at 127\.0\.0\.1:1"):
        run("minilm", "--rps", 1, "--duration", 1)
    assert not ApiKey.objects.exists()
