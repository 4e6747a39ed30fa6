"""The form that changes how a deployment scales."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from appliance.errors import VerbError
from appliance.models import Deployment
from appliance.row_settings import to_text
from appliance.scaling import set_scaling
from appliance.scaling_preview import HEADS as COMPARISON_HEADS
from appliance.scaling_preview import compare_last_hour, comparison_heading, comparison_rows
from appliance.scaling_settings import show_scaling
from dashboard.access import needs
from dashboard.forms.meanwhile import tell_meanwhile
from dashboard.forms.scaling import ScalingForm
from dashboard.views.pages import render_page

CHANGE = "appliance.change_deployment"


@needs(CHANGE)
@require_http_methods(["GET", "POST"])
def scaling(request: HttpRequest, name: str) -> HttpResponse:
    """Change how a deployment scales."""
    row = get_object_or_404(Deployment, name=name)
    form = ScalingForm(request.POST if request.method == "POST" else None, initial=_shown(row))
    context: dict[str, Any] = {"deployment": row, "form": form}
    if form.is_bound and form.is_valid() and "preview" in request.POST:
        context |= _preview(row.name, form)
    elif form.is_bound and form.is_valid() and not tell_meanwhile(form):
        try:
            done = set_scaling(row.name, form.changes(), request.user.get_username())
        except VerbError as error:
            form.add_error(None, str(error))
        else:
            changed = ", ".join(done.changes) or "nothing"
            messages.success(request, f"{row.name} scales as asked; changed: {changed}.")
            return HttpResponseRedirect(reverse("deployment", args=(row.name,)))
    return render_page(request, "dashboard/deployment_scaling.html", f"How {row.name} scales", context)


def _preview(name: str, form: ScalingForm) -> dict[str, Any]:
    """What the last hour would have been under what was typed; a mistake stands in the form."""
    try:
        compared = compare_last_hour(name, form.changes())
    except VerbError as error:
        form.add_error(None, str(error))
        return {}
    heading = comparison_heading(compared)
    return {
        "comparison_heading": f"{heading[:1].upper()}{heading[1:]}.",
        "comparison_heads": COMPARISON_HEADS,
        "comparison": comparison_rows(compared),
    }


def _shown(row: Deployment) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for key, value in show_scaling(row).items():
        if isinstance(value, list):
            shown[key] = "\n".join(value)
        else:
            shown[key] = value if value is None or isinstance(value, bool) else to_text(value)
    return shown
