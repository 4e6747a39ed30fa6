"""The page of a deployment: what is served and how, and the form that changes how."""

import time
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from appliance.deployments import set_serving
from appliance.errors import VerbError
from appliance.fleet import agent_state, deployment_capacity, read_capacities, read_rows
from appliance.gateways import read_reports
from appliance.models import Decision, Deployment
from appliance.row_settings import show_values, to_text
from appliance.serving_settings import SERVING
from dashboard.access import VIEW_PERMISSION, needs
from dashboard.deployment_presenters import (
    cache_counts,
    cache_facts,
    deployment_facts,
    narrow,
    placement_facts,
    serving_facts,
    tiles_of,
)
from dashboard.forms.meanwhile import tell_meanwhile
from dashboard.forms.serving import ServingForm
from dashboard.presenters import COLUMNS, OverviewRows, build_snapshot, order_cells, rates_of_points
from dashboard.scaling_presenters import decision_facts, scaling_facts
from dashboard.sources import DECISIONS_SHOWN
from dashboard.views.pages import render_live, render_page

CHANGE = "appliance.change_deployment"
_REPORT_S = 0.5
_TABLES = (
    ("agents", "Agents", "None now. The control loop starts them when some are wanted."),
    ("decisions", "Last decisions", "None yet. Each change of the number of agents appears here."),
)


@needs(VIEW_PERMISSION)
@require_safe
def deployment(request: HttpRequest, name: str) -> HttpResponse:
    """All that is known of one deployment."""
    row = get_object_or_404(Deployment.objects.select_related("model", "revision"), name=name)
    context = describe_deployment(row, request.user, time.time())
    return render_live(
        request,
        "dashboard/deployment.html",
        "dashboard/_deployment.html",
        f"Deployment {row.name}",
        context,
    )


@needs(CHANGE)
@require_http_methods(["GET", "POST"])
def serving(request: HttpRequest, name: str) -> HttpResponse:
    """Change how a deployment is served."""
    row = get_object_or_404(Deployment, name=name)
    shown = {
        key: value if isinstance(value, bool) else to_text(value)
        for key, value in show_values(SERVING, row).items()
    }
    form = ServingForm(request.POST if request.method == "POST" else None, initial=shown)
    if form.is_bound and form.is_valid() and not tell_meanwhile(form):
        try:
            done = set_serving(row.name, form.changes(), request.user.get_username())
        except VerbError as error:
            form.add_error(None, str(error))
        else:
            changed = ", ".join(done.changes) or "nothing"
            messages.success(request, f"{row.name} is served as asked; changed: {changed}.")
            return HttpResponseRedirect(reverse("deployment", args=(row.name,)))
    context = {"deployment": row, "form": form}
    return render_page(request, "dashboard/deployment_serving.html", f"How {row.name} is served", context)


def _capacity_of(row: Deployment) -> float | None:
    agents = list(row.agents.all())
    states = {agent.pk: agent_state(agent, ()) for agent in agents}
    return deployment_capacity(row, agents, states, read_capacities())


def describe_deployment(row: Deployment, user: Any, now: float) -> dict[str, Any]:
    """What the page of a deployment shows at one instant."""
    fleet = narrow(read_rows(now), row)
    decisions = tuple(Decision.objects.filter(deployment=row.name)[:DECISIONS_SHOWN])
    reports = read_reports(settings.ENVIRONMENT.run_dir, timeout_s=_REPORT_S)
    snapshot = build_snapshot(
        OverviewRows(fleet=fleet, decisions=decisions), reports, rates_of_points(fleet.points), now
    )
    counts = cache_counts(row.name, reports, now)
    [shown] = snapshot["tables"]["deployments"]
    return {
        "deployment": row,
        "state": shown["state"],
        "tiles": tiles_of(snapshot, counts),
        "facts": deployment_facts(row, shown["cells"]["ready"], _capacity_of(row)),
        "serving": serving_facts(row),
        "placement": placement_facts(row),
        "scaling": scaling_facts(row, now),
        "decision": decision_facts(decisions[0] if decisions else None),
        "cache": cache_facts(row, counts),
        "tables": [
            {
                "key": key,
                "title": title,
                "empty": empty,
                "columns": COLUMNS[key],
                "rows": [order_cells(line, key) for line in snapshot["tables"][key]],
            }
            for key, title, empty in _TABLES
        ],
        "may_change": user.has_perm(CHANGE) and not row.removing,
    }
