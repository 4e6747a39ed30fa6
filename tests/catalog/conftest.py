"""A small random model and a store of its own for each test."""

import pytest
from catalog_builders import write_model

from appliance.catalog.store import Store


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    """A random BERT's directory; not to be changed."""
    return write_model(tmp_path_factory.mktemp("bert") / "model")


@pytest.fixture
def home(tmp_path):
    """A state directory."""
    return tmp_path / "home"


@pytest.fixture
def store(home):
    """The state directory's model store."""
    return Store(home / "models")
