"""Parameters in the address: those that are known, and no others."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.http import HttpRequest

from appliance.api.errors import ApiError


def known_parameters_alone(view: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse a parameter that the operation does not know: `?forse=true` must not pass for a plain call."""
    known: set[str] = {
        name
        for model in view._ninja_operation.models  # type: ignore[attr-defined]  # noqa: SLF001 - set by ninja
        if model.__ninja_param_source__ == "query"
        for name in model.__ninja_flatten_map__
    }

    @wraps(view)
    def checked(request: HttpRequest, **values: Any) -> Any:
        for name in request.GET:
            if name not in known:
                accepted = ", ".join(sorted(known)) or "none"
                raise ApiError(400, f"parameter {name[:80]!a} is unknown; accepted are: {accepted}")
        return view(request, **values)

    return checked
