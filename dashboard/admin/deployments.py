"""Deployments: deploy, change bounds, undeploy."""

from typing import Any

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from unfold.decorators import action, display

from appliance.deployments import undeploy
from appliance.fleet import agent_state, deployment_state
from appliance.models import Deployment
from dashboard.admin.bases import VerbAdmin, confirm_and_run, show_problem, show_state
from dashboard.forms.verbs import DeploymentForm

#: What the loop found out about a deployment.
_FOUND = ("show_deployment_state", "desired", "show_reason", "show_problem")


@admin.register(Deployment)
class DeploymentAdmin(VerbAdmin):
    """What is wanted, and how far it is from that; live numbers are on the overview."""

    form = DeploymentForm
    list_display = ("name", "show_deployment_state", "model", "show_bounds", "desired", "show_why")
    list_select_related = ("model",)
    search_fields = ("name", "model__name")
    actions = ("undeploy_chosen",)
    actions_detail = ("show_page", "undeploy_one")

    def get_readonly_fields(self, _request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        """The name stays: clients send it. What the loop found out is only shown."""
        return () if obj is None else ("name", *_FOUND)

    def get_fields(self, _request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        """What is asked, and of an existing one how it stands."""
        asked = ("name", "model", "min_agents", "max_agents")
        return asked if obj is None else (*asked, *_FOUND)

    def get_form(
        self, request: HttpRequest, obj: Model | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        """Without the buttons that change the chosen model in a window of its own."""
        form = super().get_form(request, obj, change, **kwargs)
        if "model" in form.base_fields:
            widget = form.base_fields["model"].widget
            widget.can_add_related = widget.can_change_related = widget.can_view_related = False
        return form

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """With the agents that the states are made of, in one more query."""
        rows: QuerySet[Any] = super().get_queryset(request)
        return rows.prefetch_related("agents")

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Not while it is being removed."""
        removing = isinstance(obj, Deployment) and obj.removing
        return bool(super().has_change_permission(request, obj)) and not removing

    def has_undeploy_permission(self, request: HttpRequest, _object_id: object = None) -> bool:
        """Whoever may delete deployments may take one out of service."""
        return bool(request.user.has_perm("appliance.delete_deployment"))

    @display(description="Min / max")
    def show_bounds(self, row: Deployment) -> str:
        return f"{row.min_agents} / {row.max_agents}"

    @display(description="State")
    def show_deployment_state(self, row: Deployment) -> str:
        agents = list(row.agents.all())
        return show_state(deployment_state(row, agents, {one.id: agent_state(one, ()) for one in agents}))

    @display(description="Why")
    def show_why(self, row: Deployment) -> str:
        return show_problem(row.problem) if row.problem else row.reason

    @display(description="Reason")
    def show_reason(self, row: Deployment) -> str:
        return row.reason or "none yet"

    @display(description="Problem")
    def show_problem(self, row: Deployment) -> str:
        return show_problem(row.problem) if row.problem else "none"

    @admin.action(description="Undeploy", permissions=["undeploy"])
    def undeploy_chosen(self, request: HttpRequest, rows: QuerySet[Deployment]) -> HttpResponse | None:
        """Drain and remove the chosen ones."""
        actor = request.user.get_username()
        return confirm_and_run(
            self, request, rows,
            action="undeploy_chosen",
            question="Undeploy?",
            consequence="New requests are refused from then on; agents finish what they hold, then stop. "
            "The deployment goes away when its last agent is gone.",
            done="taken out of service",
            verb=lambda name: undeploy(name, actor=actor),
        )  # fmt: skip

    @action(description="Numbers and settings", icon="monitoring", permissions=["view"])
    def show_page(self, _request: HttpRequest, object_id: Any) -> HttpResponse:
        """To the page of its own."""
        return redirect("deployment", get_object_or_404(Deployment, pk=object_id).name)

    @action(description="Undeploy", icon="delete", permissions=["undeploy"])
    def undeploy_one(self, request: HttpRequest, object_id: Any) -> HttpResponse | None:
        """The same from a deployment's own page: asks, and is confirmed in the list."""
        return self.undeploy_chosen(request, Deployment.objects.filter(pk=object_id))
