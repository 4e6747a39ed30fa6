"""The form that changes where a deployment's agents go."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from appliance.errors import VerbError
from appliance.models import Deployment
from appliance.placement import set_placement, show_placement
from appliance.placement_settings import NONE, PLACEMENT
from dashboard.access import needs
from dashboard.forms.meanwhile import tell_meanwhile
from dashboard.forms.placement import PlacementForm
from dashboard.views.pages import render_page

CHANGE = "appliance.change_deployment"
_LISTS = ("require", "avoid", "regions")


@needs(CHANGE)
@require_http_methods(["GET", "POST"])
def placement(request: HttpRequest, name: str) -> HttpResponse:
    """Change where a deployment's agents go."""
    row = get_object_or_404(Deployment, name=name)
    form = PlacementForm(request.POST if request.method == "POST" else None, initial=shown(row))
    if form.is_bound and form.is_valid() and not tell_meanwhile(form):
        try:
            done = set_placement(row.name, form.changes(), request.user.get_username())
        except VerbError as error:
            form.add_error(None, str(error))
        else:
            changed = ", ".join(done.changes) or "nothing"
            messages.success(request, f"Agents of {row.name} go where asked; changed: {changed}.")
            return HttpResponseRedirect(reverse("deployment", args=(row.name,)))
    context = {"deployment": row, "form": form}
    return render_page(
        request, "dashboard/deployment_serving.html", f"Where agents of {row.name} go", context
    )


def shown(row: Deployment) -> dict[str, str]:
    """What the form shows: an empty field for none."""
    values = {one.key: str(show_placement(row)[one.key]) for one in PLACEMENT}
    return {key: "" if key in _LISTS and value == NONE else value for key, value in values.items()}
