"""Agents: what is wanted of each, and what was seen."""

from django.contrib import admin
from django.urls import reverse
from unfold.decorators import display

from appliance.agent_shapes import describe_shape, read_starts
from appliance.models import Agent
from dashboard.admin.bases import ReadOnlyAdmin, show_json, show_link, show_state
from dashboard.formats import UNKNOWN, format_shape


@admin.register(Agent)
class AgentAdmin(ReadOnlyAdmin):
    """Agents, read-only: the control loop starts and ends them."""

    list_display = (
        "id",
        "deployment",
        "node",
        "show_agent_state",
        "wanted",
        "show_shape",
        "show_capacity",
        "error",
        "created_at",
        "show_log",
    )
    list_select_related = ("deployment", "node")
    list_filter = ("state", "deployment", "node")
    search_fields = ("id", "deployment__name", "node__name")
    fields = (
        "id", "show_log", "deployment", "revision", "node", "host", "port", "wanted", "show_agent_state",
        "show_shape", "attempt", "retry_at", "pid", "error", "show_profile", "certificates", "created_at",
        "started_at", "ready_at",
    )  # fmt: skip
    readonly_fields = ("show_log", "show_agent_state", "show_shape", "show_profile")

    @display(description="Log")
    def show_log(self, row: Agent) -> str:
        return show_link(reverse("agent-log", args=(row.pk,)), "Open")

    @display(description="State")
    def show_agent_state(self, row: Agent) -> str:
        return show_state(row.state)

    @display(description="Shape")
    def show_shape(self, row: Agent) -> str:
        return format_shape(describe_shape(row, read_starts([row]).get(row.pk)))

    @display(description="Capacity")
    def show_capacity(self, row: Agent) -> str:
        source = row.profile.get("source")
        return f"{row.capacity_rps:.0f} requests/s ({source})" if source else UNKNOWN

    @display(description="Profile")
    def show_profile(self, row: Agent) -> str:
        return show_json(row.profile)
