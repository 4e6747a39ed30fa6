"""The control plane as a Django application."""

from django.apps import AppConfig
from django.db.backends.signals import connection_created
from django.db.backends.sqlite3.base import DatabaseWrapper


class ApplianceConfig(AppConfig):
    """Registers the system checks and sets up each SQLite connection."""

    name = "appliance"
    verbose_name = "Millwright"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from appliance import checks  # noqa: F401, PLC0415 - registers itself; needs the app registry

        connection_created.connect(_set_up_sqlite, dispatch_uid="appliance.sqlite")


def _set_up_sqlite(connection: object, **_: object) -> None:
    """Rows survive a crash of a process; of the last moments before a power cut some may be lost."""
    if isinstance(connection, DatabaseWrapper):
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = NORMAL")
