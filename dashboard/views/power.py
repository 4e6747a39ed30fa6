"""When nodes sleep and wake by themselves: the form that changes it."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from appliance.errors import VerbError
from appliance.models.power import power_rules
from appliance.power import set_power
from appliance.power_settings import POWER
from appliance.row_settings import show_values
from dashboard.access import needs
from dashboard.forms.meanwhile import tell_meanwhile
from dashboard.forms.power import PowerForm
from dashboard.views.pages import render_page


@needs("appliance.change_node")
@require_http_methods(["GET", "POST"])
def power(request: HttpRequest) -> HttpResponse:
    """Show the settings, and change those that were typed anew."""
    form = PowerForm(
        request.POST if request.method == "POST" else None, initial=show_values(POWER, power_rules())
    )
    if form.is_bound and form.is_valid() and not tell_meanwhile(form):
        try:
            done = set_power(form.changes(), request.user.get_username())
        except VerbError as error:
            form.add_error(None, str(error))
        else:
            messages.success(request, f"Power is as asked; changed: {', '.join(done.changes) or 'nothing'}.")
            return HttpResponseRedirect(reverse("nodes"))
    return render_page(request, "dashboard/power.html", "When nodes sleep and wake", {"form": form})
