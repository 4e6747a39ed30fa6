"""Deployments: deploy, change bounds, undeploy."""

from typing import Any

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from unfold.decorators import action, display

from appliance.deployments import undeploy
from appliance.models import Deployment
from dashboard.admin.bases import VerbAdmin, confirm_and_run, show_state
from dashboard.forms.verbs import DeploymentForm


@admin.register(Deployment)
class DeploymentAdmin(VerbAdmin):
    """What is wanted; how it goes is on the overview."""

    form = DeploymentForm
    fields = ("name", "model", "min_agents", "max_agents")
    list_display = ("name", "model", "show_bounds", "desired", "show_leaving", "created_at")
    list_select_related = ("model",)
    search_fields = ("name", "model__name")
    actions = ("undeploy_chosen",)
    actions_detail = ("undeploy_one",)

    def get_readonly_fields(self, _request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        """The name stays: clients send it."""
        return () if obj is None else ("name",)

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

    @display(description="Wanted")
    def show_leaving(self, row: Deployment) -> str:
        return show_state("draining" if row.removing else "served")

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

    @action(description="Undeploy", icon="delete", permissions=["undeploy"])
    def undeploy_one(self, request: HttpRequest, object_id: Any) -> HttpResponse | None:
        """The same from a deployment's own page: asks, and is confirmed in the list."""
        return self.undeploy_chosen(request, Deployment.objects.filter(pk=object_id))
