"""The API as one application: its routers, its errors and its documents."""

import json
from typing import Any

from django.http import HttpRequest
from ninja import NinjaAPI, Swagger
from ninja.errors import ValidationError, ValidationErrorContext
from ninja.operation import Operation
from ninja.parser import Parser

from appliance.api import (
    agents,
    decisions,
    deployments,
    enrolments,
    fleet,
    inference_models,
    keys,
    nodes,
    placement,
    power,
    records,
    scaling,
)
from appliance.api.access import ADMINISTER, needs
from appliance.api.errors import answer_exception, describe_mistakes
from appliance.api.parameters import known_parameters_alone

_DESCRIPTION = """\
What the dashboard and the commands do, for programs.

Send `Authorization: Bearer KEY` with a key of scope `manage` (`manage.py create_key NAME --scope manage`):
it acts as an operator. A person's session works too, with the CSRF token for whatever changes something.

Every refusal is `{"error": {"message", "code", "hint"}}`. Verbs write what is wanted and answer at once;
the control loop makes it so. Those that change routes wait up to 5 s for the gateways, and name those that
are late in `late_gateways`.
"""


class TextParser(Parser):
    """JSON in UTF-8, all of whose texts can be written as UTF-8 again: no database keeps half a character."""

    def parse_body(self, request: HttpRequest) -> dict[str, Any]:
        """The document, of whatever kind. Raises ValueError, RecursionError."""
        document: dict[str, Any] = json.loads(request.body.decode())
        json.dumps(document, ensure_ascii=False).encode()
        return document


class ManagementApi(NinjaAPI):
    """Ninja's application, with our words for mistakes and plain operation ids."""

    def validation_error_from_error_contexts(
        self, error_contexts: list[ValidationErrorContext[Any]]
    ) -> ValidationError:
        """All mistakes of a request, as lines; what was given stands in them where it is no secret."""
        found = [
            (str(context.model.__ninja_param_source__), dict(mistake, loc=_flattened(context.model, mistake)))
            for context in error_contexts
            for mistake in context.pydantic_validation_error.errors(include_url=False, include_context=False)
        ]
        return ValidationError(describe_mistakes(found))  # type: ignore[arg-type]  # lines, not dictionaries

    def get_openapi_operation_id(self, operation: Operation) -> str:
        """The function's name; no two are the same."""
        return operation.view_func.__name__


def _flattened(model: Any, mistake: Any) -> tuple[Any, ...]:
    found: tuple[Any, ...] = model.__ninja_flatten_map_reverse__.get(mistake["loc"], mistake["loc"])
    return found


def build_api() -> ManagementApi:
    """The application, complete."""
    api = ManagementApi(
        title="Millwright",
        version="1",
        description=_DESCRIPTION,
        urls_namespace="api",
        # Badges of a stranger's validator have no place in a closed network.
        docs=Swagger(settings={"validatorUrl": "none"}),
        parser=TextParser(),
        auth=needs(ADMINISTER),  # for an operation that does not say
    )
    # Also in the place of ninja's own handlers, which answer in other shapes.
    for kind in list(api._exception_handlers):  # noqa: SLF001 - the only list of them
        api.add_exception_handler(kind, answer_exception)  # type: ignore[arg-type]  # it gets instances
    api.add_decorator(known_parameters_alone)
    modules = (
        fleet, nodes, power, enrolments, agents, deployments, scaling, placement, inference_models, keys,
        decisions, records,
    )  # fmt: skip
    for module in modules:
        api.add_router("", module.router)
    return api


api = build_api()
