"""What every test starts from: a state directory of its own, and no variables of the operator's."""

import atexit
import os
import shutil
import tempfile

_HOME = tempfile.mkdtemp(prefix="millwright-test-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
for _name in [
    "APPLIANCE_BIND",
    "APPLIANCE_PORT",
    "GATEWAY_PORT",
    "APPLIANCE_HOSTS",
    "APPLIANCE_PLAIN_HTTP",
    "TLS_CERT",
    "TLS_KEY",
    "DATABASE_URL",
    "REDIS_URL",
]:
    os.environ.pop(_name, None)
# Before Django reads its settings: they derive from it.
os.environ["APPLIANCE_HOME"] = _HOME
os.environ["DJANGO_SETTINGS_MODULE"] = "appliance.settings"


def pytest_terminal_summary(terminalreporter):
    """Name in one line what was left out, and why."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        reasons = sorted({f"{report.nodeid} ({report.longrepr[2]})" for report in skipped})
        terminalreporter.write_line(f"left out: {'; '.join(reasons)}")


def pytest_sessionfinish(session, exitstatus):
    """On the build machine nothing may be left out."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter and reporter.stats.get("skipped") and exitstatus == 0:
        session.exitstatus = 1
