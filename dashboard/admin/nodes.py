"""Nodes: what is known of each machine."""

import time

from django.contrib import admin
from unfold.decorators import display

from appliance.fleet import node_state
from appliance.models import Node
from dashboard.admin.bases import ReadOnlyAdmin, show_json, show_state
from dashboard.formats import format_bytes


@admin.register(Node)
class NodeAdmin(ReadOnlyAdmin):
    """Machines, read-only."""

    list_display = ("name", "address", "show_node_state", "cores", "show_ram", "seen_at")
    search_fields = ("name", "address")
    fields = ("name", "address", "wanted", "show_node_state", "show_hardware", "seen_at", "created_at")
    readonly_fields = ("show_node_state", "show_hardware")

    @display(description="State")
    def show_node_state(self, row: Node) -> str:
        return show_state(node_state(row, time.time()))

    @display(description="RAM")
    def show_ram(self, row: Node) -> str:
        return format_bytes(row.ram_bytes)

    @display(description="Hardware")
    def show_hardware(self, row: Node) -> str:
        return show_json(row.hardware)
