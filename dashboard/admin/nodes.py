"""Nodes: what is known of each machine."""

import time

from django.contrib import admin
from django.urls import reverse
from unfold.decorators import display

from appliance.fleet import node_state
from appliance.models import Node
from dashboard.admin.bases import ReadOnlyAdmin, show_json, show_link, show_state
from dashboard.formats import format_bytes


@admin.register(Node)
class NodeAdmin(ReadOnlyAdmin):
    """Machines, read-only."""

    list_display = ("name", "address", "show_node_state", "cores", "show_ram", "seen_at", "show_page")
    list_filter = ("wanted", ("retired_at", admin.EmptyFieldListFilter))
    search_fields = ("name", "address")
    fields = (
        "name", "show_page", "address", "port", "account", "host_key", "host_key_kind", "wanted", "operation",
        "operation_stage", "operation_at",
        "show_node_state", "show_problems", "show_labels", "region", "cost_per_hour", "preemptible", "power",
        "release_sha256", "next_release_sha256", "steward_sha256", "show_hardware", "seen_at", "created_at",
        "enrolled_at", "retired_at",
    )  # fmt: skip
    readonly_fields = ("show_page", "show_node_state", "show_problems", "show_labels", "show_hardware")

    @display(description="Page")
    def show_page(self, row: Node) -> str:
        return show_link(reverse("node", args=(row.name,)), "Open")

    @display(description="State")
    def show_node_state(self, row: Node) -> str:
        return show_state(node_state(row, time.time()))

    @display(description="RAM")
    def show_ram(self, row: Node) -> str:
        return format_bytes(row.ram_bytes)

    @display(description="Hardware")
    def show_hardware(self, row: Node) -> str:
        return show_json(row.hardware)

    @display(description="Problems")
    def show_problems(self, row: Node) -> str:
        return show_json(row.problems)

    @display(description="Labels")
    def show_labels(self, row: Node) -> str:
        return show_json(row.labels)
