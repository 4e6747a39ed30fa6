"""The tests' databases: migrated once for all processes, and put back by a copy after each test that commits.

Django would migrate in every process, and after each of 700 tests empty every table and make permissions
and roles anew: 30 ms of work each time.
"""

import fcntl
import shutil
import sqlite3
from pathlib import Path

import pytest
from django.db import connections
from django.db.backends.signals import connection_created
from django.test import TransactionTestCase
from django.test.utils import setup_databases

#: The ids of each table begin elsewhere, so that one taken for another's finds nothing.
IDS_APART = 1000


@pytest.fixture(scope="session")
def django_db_setup(
    django_test_environment, django_db_modify_db_settings, django_db_blocker, tmp_path_factory, request
):
    """The migrated databases, put back wherever Django would empty them."""
    folder = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        folder = folder.parent  # which the processes of one run share
    connection_created.connect(_never_wait_for_the_disk)
    with django_db_blocker.unblock():
        _migrate_once(folder)
        templates = {connection.alias: _in_memory(connection) for connection in connections.all()}

    def put_back(case):
        for alias in case._databases_names(include_mirrors=False):
            connections[alias].ensure_connection()
            templates[alias].backup(connections[alias].connection)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", put_back)
        yield
    for template in templates.values():
        template.close()
    with django_db_blocker.unblock():
        connections.close_all()


def _migrate_once(folder):
    """The first process of a run migrates, and leaves the files in the folder for the others."""
    files = {one: folder / f"migrated-{one.alias}.sqlite3" for one in connections.all()}
    with (folder / "migrated.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = all(file.exists() for file in files.values())
        for connection, file in files.items() if found else ():
            shutil.copyfile(file, connection.creation._get_test_db_name())
        setup_databases(verbosity=0, interactive=False, keepdb=found)
        for connection, file in files.items() if not found else ():
            _set_ids_apart(connection)
            connection.close()
            assert not Path(f"{connection.settings_dict['NAME']}-wal").exists(), "all is in the file"
            shutil.copyfile(connection.settings_dict["NAME"], file)


def _set_ids_apart(connection):
    with connection.cursor() as cursor:
        for number, table in enumerate(sorted(connection.introspection.table_names(cursor)), 1):
            cursor.execute("DELETE FROM sqlite_sequence WHERE name = %s", [table])
            cursor.execute("INSERT INTO sqlite_sequence VALUES (%s, %s)", [table, number * IDS_APART])


def _in_memory(connection):
    connection.ensure_connection()
    copy = sqlite3.connect(":memory:")
    connection.connection.backup(copy)
    connection.close()
    return copy


def _never_wait_for_the_disk(connection, **_):
    """What only a power cut would lose, no test misses."""
    if connection.vendor == "sqlite":
        connection.connection.execute("PRAGMA synchronous = OFF")
