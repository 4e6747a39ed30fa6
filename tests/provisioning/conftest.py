"""A local node whose agents are tiny programs; all of them end with their test."""

import pytest
from provisioning_builders import write_program

from provisioning import local


@pytest.fixture
def program(tmp_path):
    """The path of the program that stands for an agent."""
    return write_program(tmp_path)


@pytest.fixture
def home(tmp_path):
    """A state directory; what was started from it is ended."""
    path = tmp_path / "home"
    path.mkdir()
    yield path
    local.end_all(path, timeout_s=0.0)


@pytest.fixture
def node(home, program):
    """The machine as a node."""
    return local.LocalNode(home, program=(str(program),))
