"""Misconfiguration found at the start rather than at three in the morning."""

import os
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register


@register()
def check_state_directory(**_: Any) -> list[CheckMessage]:
    """The state directory can be written, and nobody else can read it."""
    home = settings.ENVIRONMENT.home
    if not os.access(home, os.W_OK | os.X_OK):
        return [
            Error(
                f"the state directory {home} cannot be written",
                hint="Set APPLIANCE_HOME to a directory of your own.",
                id="appliance.E001",
            )
        ]
    if home.stat().st_mode & 0o077:
        return [
            Error(
                f"the state directory {home} is open to other users",
                hint=f"It holds keys: chmod 700 {home}",
                id="appliance.E002",
            )
        ]
    return []
