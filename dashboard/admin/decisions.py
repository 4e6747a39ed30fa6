"""Decisions: what was decided, from what, and why."""

from django.contrib import admin
from unfold.decorators import display

from appliance.models import Decision
from dashboard.admin.bases import ReadOnlyAdmin, show_json


@admin.register(Decision)
class DecisionAdmin(ReadOnlyAdmin):
    """Decisions, read-only."""

    list_display = ("at", "deployment", "trigger", "before", "want", "after", "reason")
    list_filter = ("deployment", "trigger", "kind", "dry_run")
    search_fields = ("deployment", "reason")
    date_hierarchy = "at"
    fields = (
        "at", "deployment", "trigger", "before", "want", "after", "reason", "show_clamps", "show_actions",
        "show_inputs",
    )  # fmt: skip
    readonly_fields = ("show_clamps", "show_actions", "show_inputs")

    @display(description="Clamps")
    def show_clamps(self, row: Decision) -> str:
        return show_json(row.clamps)

    @display(description="Actions")
    def show_actions(self, row: Decision) -> str:
        return show_json(row.actions)

    @display(description="Inputs")
    def show_inputs(self, row: Decision) -> str:
        return show_json(row.inputs)
