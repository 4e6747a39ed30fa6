"""One import of the real model for all tests here; each module runs an appliance of its own on it."""

import pytest
from appliance_process import Appliance, copy_home


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
