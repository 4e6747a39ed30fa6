"""A dry run: decisions are made and logged, the number of agents stays."""

import pytest
from control_builders import add_model

from appliance.control.inputs import read_ticks
from appliance.decision_log import explain
from appliance.deployments import deploy
from appliance.models import Decision, Deployment
from appliance.simulate.recorded import verify

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "history"])


def work(stage, ticks, accepted=0):
    """Two hundred requests a second of 0.2 s, which is more than one agent does."""
    for _ in range(ticks):
        accepted += 200
        stage.tick(accepted=accepted, executed=accepted, service_s=accepted / 5)
    return accepted


@pytest.fixture
def dry(stage):
    """A deployment of one agent that is ready, on which load changes nothing."""
    add_model()
    deploy("mini", model="tiny", min_agents=1, max_agents=6, actor="test")
    Deployment.objects.update(scaling={"dry_run": True})
    stage.tick()
    stage.tick()
    return stage


def test_load_changes_nothing_and_is_told(dry):
    """The number stays while the log says what would have been done, from which number to which."""
    work(dry, 12)
    row = Deployment.objects.get()
    assert (row.desired, len(dry.agents())) == (1, 1)
    assert row.would > 1
    assert row.reason.startswith(f"dry run, 1 agent stays; by its load it would be {row.would}")
    told = list(Decision.objects.filter(dry_run=True).order_by("id"))
    assert (told[0].before, told[-1].after) == (0, row.would)
    assert [one.before for one in told[1:]] == [one.after for one in told[:-1]]
    assert "nothing was done" in explain(told[-1])[0]
    assert verify(read_ticks("mini")).equal


def test_bounds_still_act(dry):
    """A minimum that people raise is kept to, and so is a maximum that they lower."""
    deploy("mini", model="tiny", min_agents=3, actor="test")
    dry.tick()
    assert Deployment.objects.get().desired == 3
    deploy("mini", model="tiny", min_agents=0, max_agents=2, actor="test")
    dry.tick()
    assert Deployment.objects.get().desired == 2


def test_its_end_makes_it_real(dry):
    """Without the dry run the load is followed at once, and nothing would be otherwise any more."""
    accepted = work(dry, 12)
    would = Deployment.objects.get().would
    Deployment.objects.update(scaling={})
    work(dry, 1, accepted)
    row = Deployment.objects.get()
    assert row.would is None
    assert row.desired >= would
    assert not Decision.objects.first().dry_run
