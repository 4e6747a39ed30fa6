"""Whatever is sent: every operation answers as its OpenAPI document says, and never with a failure."""

import pytest
import schemathesis
from django.core.wsgi import get_wsgi_application
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from appliance.api import agents, enrolments
from provisioning.hostkeys import HostKey

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True, databases=["default", "history"])]

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)
EXAMPLES = 10


@pytest.mark.parametrize("mode", GenerationMode)
def test_any_input_is_answered_as_described(rows, manage_key, monkeypatch, mode):
    """Generated requests, well-formed and not: documented status, JSON of the documented shape, no 5xx."""
    monkeypatch.setattr(
        enrolments.ssh, "read_host_key", lambda *_, **__: HostKey("SHA256:" + "C" * 43, "ssh-ed25519")
    )
    monkeypatch.setattr(agents, "read_agent_log", lambda *_: ["a line"])
    schema = schemathesis.openapi.from_wsgi("/api/openapi.json", get_wsgi_application())
    schema.validate()
    headers = {"Authorization": f"Bearer {manage_key}"}
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) == sum(len(methods) for methods in schema.raw_schema["paths"].values()) > 30
    if mode == GenerationMode.NEGATIVE:  # an operation that takes nothing cannot be asked wrongly
        operations = [one for one in operations if one.body or one.query or one.path_parameters]
    for operation in operations:

        @settings(
            max_examples=EXAMPLES, deadline=None, database=None, derandomize=True,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=mode))
        def send(case):
            case.call_and_validate(headers=headers, checks=CHECKS)

        send()
