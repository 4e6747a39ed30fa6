"""The playground: how close two texts are, in the eyes of a deployed model."""

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.utils.cache import add_never_cache_headers
from django.views.decorators.http import require_http_methods

from appliance.models import Deployment
from dashboard.access import may_look
from dashboard.embedding import EmbeddingError, compare
from dashboard.forms.playground import PlaygroundForm

EXAMPLES = (
    ("Same meaning", "How do I reset my password?", "I forgot my login and want to set a new one."),
    ("Same topic", "The parcel arrived broken.", "When will my order be delivered?"),
    ("Nothing in common", "The mill stands by the river.", "Quarterly revenue rose by four percent."),
)


@require_http_methods(["GET", "POST"])
def playground(request: HttpRequest) -> HttpResponseBase:
    """Show the form; on POST also the answer, or in words why there is none.

    A request of htmx (`HX-Request`) gets the answer alone; the whole page works without script.
    """
    partial = request.headers.get("HX-Request") == "true"
    if not request.user.is_authenticated:
        if partial:
            return HttpResponse(headers={"HX-Redirect": f"/?{urlencode({'next': request.path})}"})
        return redirect_to_login(request.path, "/")
    if not may_look(request.user):
        raise PermissionDenied
    deployments = list(
        Deployment.objects.filter(removing=False, model__task="embed").values_list("name", flat=True)
    )
    given = request.POST if request.method == "POST" else None
    form = PlaygroundForm(
        given,
        deployments=deployments,
        initial={
            "deployment": request.GET.get("deployment"),
            "first": EXAMPLES[0][1],
            "second": EXAMPLES[0][2],
        },
    )
    context: dict[str, Any] = {"form": form, "deployments": deployments, **_answer(form)}
    if partial:
        return render(request, "dashboard/_answer.html", context)
    context |= {**admin.site.each_context(request), "title": "Playground", "examples": EXAMPLES}
    response = render(request, "dashboard/playground.html", context)
    add_never_cache_headers(response)
    return response


def _answer(form: PlaygroundForm) -> dict[str, Any]:
    if not form.is_bound or not form.is_valid():
        return {}
    try:
        result = compare(*(form.cleaned_data[name] for name in ("deployment", "first", "second")))
    except EmbeddingError as error:
        return {"problem": str(error)}
    return {"result": result, "percent": max(0.0, result.similarity) * 100}
