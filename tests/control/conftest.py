"""Fixtures of the loop's tests."""

import shutil

import pytest
from control_builders import Stage
from django.conf import settings
from played_boxes import Boxes


@pytest.fixture
def stage(transactional_db):
    """A loop on a scripted node; files of agents go afterwards."""
    stage = Stage()
    yield stage
    stage.lane.close()
    settings.ENVIRONMENT.routes_file.unlink(missing_ok=True)
    shutil.rmtree(settings.ENVIRONMENT.agents_dir)
    settings.ENVIRONMENT.agents_dir.mkdir()


@pytest.fixture
def boxes():
    """Played boxes and a crew that enrolls them; its threads end with the test."""
    made = Boxes()
    yield made
    made.end()
