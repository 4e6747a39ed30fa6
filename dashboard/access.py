"""Who may see and do what: the one place that the pages, the websocket and the admin ask."""

from typing import Any

VIEW_PERMISSION = "appliance.view_deployment"


def may_look(user: Any) -> bool:
    """Whether a user (also an anonymous one) may see the overview and use the playground."""
    return bool(user.is_active and user.is_staff and user.has_perm(VIEW_PERMISSION))
