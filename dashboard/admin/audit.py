"""The audit log."""

from django.contrib import admin
from unfold.decorators import display

from appliance.models import AuditEvent
from dashboard.admin.bases import ReadOnlyAdmin, show_json


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    """Who asked for what, read-only."""

    list_display = ("at", "actor", "verb", "target")
    list_filter = ("verb", "actor")
    search_fields = ("actor", "target")
    date_hierarchy = "at"
    fields = ("at", "actor", "verb", "target", "show_detail")
    readonly_fields = ("show_detail",)

    @display(description="Detail")
    def show_detail(self, row: AuditEvent) -> str:
        return show_json(row.detail)
