"""The live overview at `/`, and the log-in page in its place for whoever is not logged in."""

import time
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.http.request import split_domain_port
from django.shortcuts import render
from django.utils.cache import add_never_cache_headers
from django.utils.http import url_has_allowed_host_and_scheme

from dashboard.access import may_look
from dashboard.presenters import COLUMNS, order_cells
from dashboard.sources import read_history, read_snapshot
from dashboard.views.entrance import enter

#: Each table's heading and what stands in it while it is empty.
_TABLES = (
    (
        "deployments",
        "Deployments",
        "No deployment yet. Import a model, then deploy it:",
        "python manage.py deploy NAME --model MODEL --wait",
    ),
    ("agents", "Agents", "No agent yet. The control loop starts them when a deployment wants one.", ""),
    (
        "nodes",
        "Nodes",
        "No node yet. The control loop registers this machine when it starts:",
        "python manage.py up",
    ),
    (
        "decisions",
        "Last decisions",
        "No decision yet. Each change of the number of agents appears here with its reason.",
        "",
    ),
)
_TILES = (
    ("rps", "Requests/s"), ("p50", "Latency p50"), ("p95", "Latency p95"), ("in_flight", "In flight"),
    ("queued", "Queued"), ("failed", "Failed/s"), ("agents", "Agents ready"), ("cpu", "Node CPU"),
    ("memory", "Node memory"),
)  # fmt: skip
#: `least`: the y axis reaches at least this high; `most`: it ends there.
_CHARTS: dict[str, dict[str, Any]] = {
    "rps": {"title": "Requests/s", "unit": "", "least": 5, "lines": [{"name": "rps", "label": "requests/s"}]},
    "latency": {
        "title": "Latency", "unit": "ms", "least": 10,
        "lines": [{"name": "p50_ms", "label": "p50"}, {"name": "p95_ms", "label": "p95"}],
    },
    "work": {
        "title": "Requests held", "unit": "", "least": 5,
        "lines": [{"name": "in_flight", "label": "in flight"}, {"name": "queued", "label": "queued"}],
    },
    "load": {
        "title": "Node load", "unit": "%", "least": 100, "most": 100,
        "lines": [{"name": "cpu_percent", "label": "CPU"}, {"name": "memory_percent", "label": "memory"}],
    },
}  # fmt: skip


def overview(request: HttpRequest) -> HttpResponseBase:
    """Everything at one instant, complete without script; the websocket then replaces the cells."""
    if not request.user.is_authenticated:
        return enter(request)
    wanted = request.GET.get("next", "")
    if (
        request.user.is_staff
        and wanted not in {"", "/"}
        and url_has_allowed_host_and_scheme(wanted, allowed_hosts=None)
    ):
        return HttpResponseRedirect(wanted)
    if not may_look(request.user):
        raise PermissionDenied
    response = render(request, "dashboard/overview.html", _context(request))
    add_never_cache_headers(response)
    return response


def _context(request: HttpRequest) -> dict[str, Any]:
    now = time.time()
    snapshot: dict[str, Any] = read_snapshot(now)
    tables = snapshot["tables"]
    deployments = tables["deployments"]
    return {
        **admin.site.each_context(request),
        "title": "Overview",
        "snapshot": snapshot,
        "history": read_history(now),
        "tiles": [
            {
                "key": key,
                "label": label,
                "text": snapshot["totals"][key],
                "level": snapshot["levels"].get(key, ""),
            }
            for key, label in _TILES
        ],
        "charts": [{"key": key, **chart} for key, chart in _CHARTS.items()],
        "chart_lines": _CHARTS,
        "tables": [
            {
                "key": key,
                "title": title,
                "empty": empty,
                "next": step,
                "columns": COLUMNS[key],
                "rows": [order_cells(row, key) for row in tables[key]],
            }
            for key, title, empty, step in _TABLES
        ],
        "columns": {key: [list(column) for column in columns] for key, columns in COLUMNS.items()},
        "api": api_address(request),
        "example_model": deployments[0]["key"] if deployments else "DEPLOYMENT",
    }


def api_address(request: HttpRequest) -> str:
    """The inference API as this browser reaches it: the host it asked for, the gateway's port."""
    environment = settings.ENVIRONMENT
    host, _ = split_domain_port(request.get_host())
    return f"{environment.scheme}://{host}:{environment.gateway_port}/v1"
