"""Enrolments, the steps done on boxes, and transfers: what the worker wrote down."""

from django.contrib import admin
from unfold.decorators import display

from appliance.models import Enrolment, RemoteStep, Transfer
from dashboard.admin.bases import ReadOnlyAdmin, show_json, show_state
from dashboard.formats import format_bytes


@admin.register(Enrolment)
class EnrolmentAdmin(ReadOnlyAdmin):
    """Enrolments, read-only; a sealed credential is no column."""

    list_display = ("name", "address", "show_enrolment_state", "stage", "error", "actor", "created_at")
    list_filter = ("state",)
    search_fields = ("name", "address")
    fields = (
        "name", "address", "port", "user", "way", "host_key", "host_key_kind", "show_attributes", "node",
        "show_enrolment_state", "stage", "percent", "code", "error", "hint", "attempt", "actor", "created_at",
        "finished_at",
    )  # fmt: skip
    readonly_fields = ("show_enrolment_state", "show_attributes")

    @display(description="State")
    def show_enrolment_state(self, row: Enrolment) -> str:
        return show_state(row.state)

    @display(description="Attributes")
    def show_attributes(self, row: Enrolment) -> str:
        return show_json(row.attributes)


@admin.register(RemoteStep)
class RemoteStepAdmin(ReadOnlyAdmin):
    """Steps on boxes, read-only."""

    list_display = ("at", "node", "enrolment", "step", "show_outcome", "seconds", "detail")
    list_select_related = ("node", "enrolment")
    list_filter = ("outcome", "node")
    search_fields = ("step", "detail", "node__name")
    fields = ("at", "node", "enrolment", "step", "show_outcome", "seconds", "detail")
    readonly_fields = ("show_outcome",)

    @display(description="Outcome")
    def show_outcome(self, row: RemoteStep) -> str:
        return show_state(row.outcome)


@admin.register(Transfer)
class TransferAdmin(ReadOnlyAdmin):
    """Transfers to nodes, read-only."""

    list_display = ("name", "kind", "node", "show_transfer_state", "show_size", "started_at", "error")
    list_select_related = ("node",)
    list_filter = ("state", "kind", "node")
    search_fields = ("name", "digest", "node__name")
    fields = (
        "name", "kind", "node", "digest", "show_transfer_state", "show_size", "error", "started_at",
        "finished_at",
    )  # fmt: skip
    readonly_fields = ("show_transfer_state", "show_size")

    @display(description="State")
    def show_transfer_state(self, row: Transfer) -> str:
        return show_state(row.state)

    @display(description="Size")
    def show_size(self, row: Transfer) -> str:
        return f"{format_bytes(row.have_bytes)} of {format_bytes(row.total_bytes)}"
