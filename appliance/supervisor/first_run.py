"""What must be there before the processes start; all of it is safe to repeat."""

import secrets

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connections
from django.db.migrations.executor import MigrationExecutor

from appliance.authority import ensure_authority
from appliance.environment import Environment
from appliance.publish import write_routes
from appliance.secrets import write_private

ADMIN = "admin"


def prepare(environment: Environment) -> None:
    """Databases, certificate authority, the user `admin`, and a route snapshot."""
    for alias in connections:
        executor = MigrationExecutor(connections[alias])
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            call_command("migrate", database=alias, verbosity=0, interactive=False)
    ensure_authority(environment)
    ensure_admin(environment)
    write_routes()


def ensure_admin(environment: Environment) -> None:
    """Make the user `admin` where there is no superuser yet, its password in a private file.

    The file comes first: a crash in between leaves a password without a user, and the next start
    makes both anew - never a user whose password nobody knows.
    """
    users = get_user_model()
    if users.objects.filter(is_superuser=True).exists():
        return
    password = secrets.token_urlsafe(15)
    write_private(environment.home / "admin-password", f"{password}\n".encode())
    users.objects.create_superuser(ADMIN, password=password)
