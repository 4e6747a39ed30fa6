"""Bad input against the real gateway and the real agent: the right code, in the envelope, nothing leaked."""

import http.client
import json
import socket

import psutil
import pytest
from appliance_process import wait_until
from traffic import assert_conserved, counters

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def conserved(appliance):
    """After all of it the counters balance and nothing is left in flight."""
    yield
    wait_until(
        lambda: not counters(appliance).get(("millwright_in_flight", (("deployment", "minilm"),))), 5, "idle"
    )
    assert_conserved(appliance)


def post(appliance, body, *, key=None, content_type="application/json", path="/v1/embeddings"):
    """Status, headers and JSON document of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", appliance.gateway_port, timeout=30)
    headers = {"Content-Type": content_type} | ({"Authorization": f"Bearer {key}"} if key else {})
    try:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, json.load(answer)
    finally:
        connection.close()


def body_of(**fields):
    return json.dumps({"model": "minilm", "input": "a mill"} | fields).encode()


BAD = [
    pytest.param(body_of(model="nothing"), 404, "model_not_found", id="unknown-model"),
    pytest.param(body_of(model=7), 400, None, id="model-number"),
    pytest.param(b'{"input": "x"}', 400, None, id="no-model"),
    pytest.param(b'{"model": "minilm"}', 400, None, id="no-input"),
    pytest.param(body_of(input=""), 400, None, id="empty-string"),
    pytest.param(body_of(input=[]), 400, None, id="empty-list"),
    pytest.param(body_of(input=["a", ""]), 400, None, id="empty-member"),
    pytest.param(body_of(input=[[]]), 400, None, id="empty-ids"),
    pytest.param(body_of(input=["a"] * 3000), 400, None, id="3000-inputs"),
    pytest.param(body_of(input={"a": 1}), 400, None, id="object"),
    pytest.param(body_of(input=[1, "a"]), 400, None, id="mixed"),
    pytest.param(body_of(input=[1.5]), 400, None, id="fractions"),
    pytest.param(body_of(input=[-1]), 400, None, id="negative-id"),
    pytest.param(body_of(input=[10**9]), 400, None, id="id-outside"),
    pytest.param(body_of(input=None), 400, None, id="null"),
    pytest.param(body_of(input="mill " * 600), 400, "context_length_exceeded", id="too-long"),
    pytest.param(body_of(encoding_format="hex"), 400, None, id="encoding"),
    pytest.param(body_of(dimensions=0), 400, None, id="dimensions-zero"),
    pytest.param(body_of(dimensions="many"), 400, None, id="dimensions-word"),
    pytest.param(b'{"model": "minilm", "input": ', 400, None, id="broken-json"),
    pytest.param(b"[]", 400, None, id="list-body"),
    pytest.param(b"", 400, None, id="empty-body"),
    pytest.param(b'{"model": "minilm", "input": "\xff\xfe"}', 400, None, id="broken-utf8"),
    pytest.param(b"[" * 100_000, 400, None, id="deep-json"),
    pytest.param(b'{"model": "minilm", "input": ' + b"[" * 100_000, 400, None, id="deep-input"),
]


@pytest.mark.parametrize(("body", "status", "code"), BAD)
def test_bad_body(appliance, key, body, status, code):
    """The status and code that the API names, as JSON in the envelope."""
    got, headers, document = post(appliance, body, key=key)
    assert got == status
    error = document["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert "Traceback" not in error["message"]
    if code:
        assert error["code"] == code
    assert headers["x-request-id"]


@pytest.mark.parametrize("key_given", [None, "mw-wrong", "x" * 5000])
def test_no_key_or_a_wrong_one(appliance, key_given):
    """401 with the scheme to use."""
    status, headers, document = post(appliance, body_of(), key=key_given)
    assert status == 401
    assert document["error"]["code"] == "invalid_api_key"
    assert headers["WWW-Authenticate"] == "Bearer"


def test_wrong_content_type(appliance, key):
    """A body that is no JSON by its own word is refused with 415."""
    assert post(appliance, b"a=b", key=key, content_type="application/x-www-form-urlencoded")[0] == 415


@pytest.mark.parametrize("chunked", [False, True])
def test_huge_body(appliance, key, chunked):
    """50 MB are refused with 413 and the bound in the message, and never held in memory."""
    gateway = psutil.Process(appliance.pid_of("appliance.gateway"))
    before = gateway.memory_info().rss
    size = 50_000_000
    with socket.create_connection(("127.0.0.1", appliance.gateway_port), timeout=30) as connection:
        length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
        connection.sendall(
            f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\n{length}\r\n\r\n".encode()
        )
        piece = b"x" * 100_000
        for _ in range(size // len(piece)):
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"16777216" in answer
    assert gateway.memory_info().rss - before < size / 2


def test_client_that_leaves_is_counted_and_frees_its_slot(appliance, key):
    """A client that goes away in mid-request is cancelled; the next one is served."""
    name = ("millwright_finished_total", (("outcome", "cancelled"),))
    before = total(appliance, name[0], "cancelled")
    body = body_of(input=["a mill on the river " * 20] * 1500)
    with socket.create_connection(("127.0.0.1", appliance.gateway_port)) as connection:
        connection.sendall(
            f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        wait_until(lambda: in_flight(appliance) == 1, 10, "it is in flight")
    wait_until(lambda: total(appliance, name[0], "cancelled") == before + 1, 5, "it is counted")
    assert in_flight(appliance) == 0
    assert post(appliance, body_of(), key=key)[0] == 200


def total(appliance, name, outcome):
    return sum(
        v for (n, labels), v in counters(appliance).items() if n == name and ("outcome", outcome) in labels
    )


def in_flight(appliance):
    return sum(v for (n, _), v in counters(appliance).items() if n == "millwright_in_flight")


@pytest.mark.parametrize("part", ["headers", "body"])
def test_slow_client_is_cut_off(appliance, key, part):
    """Headers or a body that do not come in 10 s close the connection; 408 where a request was seen."""
    head = (
        f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", appliance.gateway_port), timeout=20) as connection:
        connection.sendall(head[:40].encode() if part == "headers" else (head + "{").encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    if part == "body":
        assert answer.startswith(b"HTTP/1.1 408 ")
