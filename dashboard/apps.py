"""The dashboard as a Django application; it has no rows of its own."""

from typing import Any

from django.apps import AppConfig, apps
from django.db.models.signals import post_migrate


class DashboardConfig(AppConfig):
    """Makes the roles once permissions exist."""

    name = "dashboard"
    verbose_name = "Dashboard"

    def ready(self) -> None:
        # Sent for applications with rows alone; when it comes for these, all permissions are there.
        post_migrate.connect(
            _make_roles, sender=apps.get_app_config("appliance"), dispatch_uid="dashboard.roles"
        )


def _make_roles(using: str, **_: Any) -> None:
    from dashboard.roles import make_roles  # noqa: PLC0415 - needs the app registry

    if using == "default":
        make_roles()
