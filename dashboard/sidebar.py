"""The sidebar of every page, and what each user finds in it."""

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse

from dashboard.access import may_look


def find_stylesheet(_request: HttpRequest) -> str:
    """Our own styles, on every page of the admin."""
    return static("dashboard/dashboard.css")


def find_icon(_request: HttpRequest) -> str:
    """The icon in the browser's tab."""
    return static("dashboard/icon.svg")


def build_sidebar(_request: HttpRequest) -> list[dict[str, Any]]:
    """Entries in groups; the theme leaves out what `permission` denies."""
    return [
        {
            "title": "Live",
            "items": [
                _entry("Overview", "monitoring", reverse("overview"), _looks),
                _entry("Playground", "experiment", reverse("playground"), _looks),
            ],
        },
        {
            "title": "Serving",
            "separator": True,
            "items": [
                _rows("Deployments", "rocket_launch", "deployment"),
                _rows("Models", "deployed_code", "inferencemodel"),
                _rows("Agents", "memory", "agent"),
                _entry("Nodes", "dns", reverse("nodes"), _sees_nodes),
                _entry("Decisions", "alt_route", reverse("decisions"), _sees_decisions),
            ],
        },
        {
            "title": "Access",
            "separator": True,
            "items": [
                _rows("API keys", "key", "apikey"),
                _rows("Audit log", "history", "auditevent"),
                _rows("Users", "person", "user", app="auth"),
                _rows("Groups", "group", "group", app="auth"),
            ],
        },
    ]


def _entry(title: str, icon: str, link: str, permission: Callable[[HttpRequest], bool]) -> dict[str, Any]:
    def active(request: HttpRequest) -> bool:
        """The overview is at `/`, which every path begins with."""
        return request.path == link if link == "/" else request.path.startswith(link)

    return {"title": title, "icon": icon, "link": link, "permission": permission, "active": active}


def _rows(title: str, icon: str, model: str, *, app: str = "appliance") -> dict[str, Any]:
    def allowed(request: HttpRequest) -> bool:
        return bool(request.user.has_perm(f"{app}.view_{model}"))

    return _entry(title, icon, reverse(f"admin:{app}_{model}_changelist"), allowed)


def _looks(request: HttpRequest) -> bool:
    return may_look(request.user)


def _sees_decisions(request: HttpRequest) -> bool:
    return may_look(request.user) and bool(request.user.has_perm("appliance.view_decision"))


def _sees_nodes(request: HttpRequest) -> bool:
    return may_look(request.user) and bool(request.user.has_perm("appliance.view_node"))
