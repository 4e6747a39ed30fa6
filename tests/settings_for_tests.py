"""The appliance's settings over a state directory that each test process has for itself.

Not in `conftest.py`: Django's settings are read before it, and a worker process of pytest-xdist would
share the state directory that it inherited.
"""

import atexit
import os
import shutil
import tempfile

HOME = tempfile.mkdtemp(prefix="millwright-test-")
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
for name in (
    "APPLIANCE_BIND", "APPLIANCE_PORT", "GATEWAY_PORT", "APPLIANCE_HOSTS", "APPLIANCE_PLAIN_HTTP",
    "TLS_CERT", "TLS_KEY", "DATABASE_URL", "REDIS_URL",
):  # fmt: skip
    os.environ.pop(name, None)
os.environ["APPLIANCE_HOME"] = HOME

from appliance.settings import *  # noqa: E402, F403 - after the variables they derive from

# Made slow on purpose in life; tests make people by the hundred.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

# Databases are files, as in life: one in memory has other locks, and no WAL.
for alias, database in DATABASES.items():  # noqa: F405 - from the settings above
    database["TEST"] = {"NAME": os.path.join(HOME, f"test-{alias}.sqlite3")}  # noqa: PTH118 - Django wants a string
