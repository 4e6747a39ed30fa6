"""What all tests share: nothing is left out unsaid, and one import of the real model for all who need it."""

import gc
import os

import hypothesis
import pytest
from appliance_process import Appliance, copy_home
from template_databases import django_db_setup

#: How long an example takes says something of the machine, not of what is tested.
hypothesis.settings.register_profile("millwright", deadline=None)
hypothesis.settings.load_profile("millwright")

__all__ = ["django_db_setup"]


def pytest_sessionstart():
    """Nothing becomes garbage while tests are found, only much that lives on: a quarter of the work."""
    gc.disable()


def pytest_collection_finish():
    """From here on garbage is looked for, and not among what was found."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def template_home(tmp_path_factory):
    """The state directory of a demo that was started once and ended."""
    home = tmp_path_factory.mktemp("template") / "home"
    with Appliance(home) as appliance:
        appliance.start(demo=True)
    return home


@pytest.fixture(scope="module")
def appliance(template_home, tmp_path_factory):
    """A running demo appliance, shared by a module's tests."""
    home = copy_home(template_home, tmp_path_factory.mktemp("appliance") / "home")
    with Appliance(home) as running:
        yield running.start(demo=True)


@pytest.fixture(scope="module")
def key(appliance):
    """A key of the running appliance."""
    return appliance.create_key("tests")


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
