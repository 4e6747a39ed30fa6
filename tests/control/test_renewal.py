"""Agents' certificates are renewed while they serve, whoever dies or fails meanwhile."""

import datetime as dt
import itertools
import random
from dataclasses import dataclass, field

import pytest
from appliance_builders import make_agent, make_model, make_node

from appliance.control.hands import LaneBusy
from appliance.control.renewal import AT_ONCE, Renewals
from appliance.models import Agent, Deployment, Revision, RouteState
from appliance.policies.renewal import LOAD_S, MAX_LISTED, WRITE_AGAIN_S
from appliance.policies.snapshot import Generation
from appliance.publish import build_snapshot
from provisioning.certificates import create_authority, valid_until
from provisioning.errors import ProvisioningError

NOW = 1_800_000_000.0
DAY = 86_400.0
OLD = "c" * 64

pytestmark = pytest.mark.django_db


def at(seconds):
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


@pytest.fixture(scope="module")
def authority():
    return create_authority(at(NOW - DAY))


@dataclass
class FakeHands:
    """A node whose agents' files are written at once, later, or not at all."""

    files: dict = field(default_factory=dict)
    asked: list = field(default_factory=list)
    queue: list = field(default_factory=list)
    later: bool = False
    error: Exception | None = None

    def installed_certificate(self, agent):
        return self.files.get(agent, "")

    def renew(self, spec, issued):
        self.asked.append((spec, issued))
        if self.error is not None:
            raise self.error
        self.queue.append((spec, issued.sha256))
        if not self.later:
            self.work()

    def work(self):
        for agent, sha256 in self.queue:
            self.files[agent] = sha256
        self.queue.clear()


class World:
    """Agents on one node, a loop that renews, and gateways that serve when the test says so."""

    def __init__(self, authority, agents=1):
        self.now = NOW
        self.authority = authority
        self.hands = FakeHands()
        self.reached = True
        self.served = 0
        model = make_model()
        deployment = Deployment.objects.create(name="mini", model=model)
        deployment.revision = Revision.objects.create(
            deployment=deployment, number=1, model=model, digest=model.digest
        )
        deployment.save()
        node = make_node()
        for number in range(agents):
            name = f"mini-{number:06d}"
            make_agent(deployment, node, name, certificate_expires_at=at(NOW + 30 * DAY))
            self.hands.files[name] = OLD
        self.id = "mini-000000"
        self.replace_worker()

    def replace_worker(self):
        """The next one knows rows and files, and no key."""
        self.renewals = Renewals(self.authority, lambda agent: agent.id)

    def step(self, seconds=1.0, *, serve=True):
        """One tick; with `serve` gateways serve what is listed now, before it and after it."""
        self.now += seconds
        if serve:
            self.serve()
        self.renewals.step(self.now, lambda _node: self.hands if self.reached else None, self._serves)
        if serve:
            self.serve()

    def serve(self):
        state = RouteState.objects.first()
        self.served = state.number if state else 0

    def _serves(self, generation):
        return Generation(generation.epoch, self.served).reached(generation)

    @property
    def agent(self):
        return Agent.objects.get(pk=self.id)

    @property
    def listed(self):
        return self.agent.certificates


@pytest.fixture
def world(authority):
    return World(authority)


def set_expiry(days_left, **changes):
    Agent.objects.update(
        certificate_expires_at=None if days_left is None else at(NOW + days_left * DAY), **changes
    )


@pytest.mark.parametrize(
    ("days_left", "wanted", "due"),
    [
        pytest.param(30.001, "warm", False, id="more than 30 days left"),
        pytest.param(30, "warm", True, id="30 days left"),
        pytest.param(30, "parked", True, id="parked"),
        pytest.param(-5, "warm", True, id="over, while its node was off"),
        pytest.param(None, "warm", True, id="not known"),
        pytest.param(1, "draining", False, id="leaves"),
        pytest.param(1, "resting", False, id="rests"),
        pytest.param(1, "stopped", False, id="stopped"),
    ],
)
def test_due(world, days_left, wanted, due):
    """Renewed with 30 days left, by agents that serve; also where it has run out."""
    set_expiry(days_left, wanted=wanted)
    world.step(0)
    assert len(world.listed) == (2 if due else 1)


def test_nothing_due_is_one_query(world, django_assert_num_queries):
    """A tick in which nothing is due costs one look at the rows."""
    set_expiry(31)
    with django_assert_num_queries(1):
        world.step(serve=False)


def test_routes_before_files_and_the_old_one_last(world):
    """Listed; written once every gateway accepts it; the old one forgotten once the agent has loaded it."""
    world.step(serve=False)
    old, new = world.listed
    assert old == OLD
    assert build_snapshot(world.now).agents[0].certificates == (OLD, new)
    world.step(serve=False)
    assert world.hands.asked == []
    world.step()
    ((spec, issued),) = world.hands.asked
    assert (spec, issued.sha256) == (world.id, new)
    assert world.agent.certificate_expires_at == at(NOW + 30 * DAY)
    world.step()
    world.step(LOAD_S - 0.5)
    assert world.listed == [OLD, new]
    number = RouteState.objects.get().number
    world.step(0.5)
    assert world.listed == [new]
    assert (
        world.agent.certificate_expires_at == valid_until(issued.certificate_pem) > at(world.now + 89 * DAY)
    )
    assert RouteState.objects.get().number == number + 1
    for _ in range(20):
        world.step()
    assert RouteState.objects.get().number == number + 1
    assert len(world.hands.asked) == 1


def test_the_new_one_is_for_the_same_names(world):
    """Clients of the agent reach it by the address they know."""
    from cryptography import x509  # noqa: PLC0415 - for this one look

    Agent.objects.update(host="box.example")
    world.step()
    world.step()
    ((_, issued),) = world.hands.asked
    shown = x509.load_pem_x509_certificate(issued.certificate_pem)
    names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["box.example", "localhost"]


def test_a_node_that_is_away_is_waited_for(world):
    """Nothing is issued for a node that is not reached; as soon as it is, the renewal takes its course."""
    world.reached = False
    set_expiry(-5)
    for _ in range(5):
        world.step()
    assert world.listed == [OLD]
    world.reached = True
    for _ in range(15):
        world.step()
    (new,) = world.listed
    assert new == world.hands.files[world.id] != OLD


@pytest.mark.parametrize(
    "error",
    [OSError("disk full"), LaneBusy("busy"), ProvisioningError("refused")],
    ids=["disk", "lane", "node"],
)
def test_a_failed_write_is_tried_again(world, error, caplog):
    """The same certificate is written later; in between both are accepted, and the log says it once a try."""
    world.hands.error = error
    for _ in range(int(WRITE_AGAIN_S) + 2):
        world.step()
    assert len(world.hands.asked) == 2
    assert world.hands.asked[0] == world.hands.asked[1]
    assert caplog.text.count(str(error)) == 2
    assert len(world.listed) == 2
    world.hands.error = None
    world.step(WRITE_AGAIN_S)
    for _ in range(int(LOAD_S) + 2):
        world.step()
    assert world.listed == [world.hands.files[world.id]] == [world.hands.asked[0][1].sha256]


def test_a_queued_write_is_waited_for(world):
    """Files may come later: until they are seen there, nothing is confirmed or asked twice."""
    world.hands.later = True
    for _ in range(int(WRITE_AGAIN_S) - 5):
        world.step()
    assert (len(world.hands.asked), len(world.listed)) == (1, 2)
    world.hands.work()
    for _ in range(int(LOAD_S) + 2):
        world.step()
    assert world.listed == [world.hands.files[world.id]]


@pytest.mark.parametrize("steps", range(6))
def test_a_worker_that_died_is_followed_by_one_that_finishes(world, steps):
    """Whatever the first had done, the next one issues anew, and what the agent shows stays listed."""
    for _ in range(steps):
        world.step()
    world.replace_worker()
    for _ in range(int(LOAD_S) + 5):
        world.step()
        assert world.hands.files[world.id] in world.listed
    assert world.listed == [world.hands.files[world.id]] != [OLD]
    assert world.agent.certificate_expires_at > at(NOW + 80 * DAY)


def test_workers_that_die_again_and_again_list_no_more_than_four(world):
    """The list is bounded and keeps what lies on the node."""
    for _ in range(10):
        world.step()
        world.replace_worker()
        assert len(world.listed) <= MAX_LISTED
        assert world.listed[0] == OLD
    assert len(world.listed) == MAX_LISTED
    world.hands.files.clear()  # not known what is there: nothing that is listed may go
    before = world.listed
    world.step()
    assert world.listed == before


def test_what_the_loop_installed_meanwhile_counts(world):
    """An agent that was installed anew during its renewal keeps what it was given."""
    world.step()
    Agent.objects.update(certificates=["d" * 64], certificate_expires_at=at(NOW + 90 * DAY))
    world.hands.files[world.id] = "d" * 64
    for _ in range(int(LOAD_S) + 5):
        world.step()
    assert world.listed == ["d" * 64]
    assert world.hands.asked == []


def test_a_row_that_changes_under_a_step_is_left_alone(world, monkeypatch):
    """What another wrote between look and write is not overwritten."""
    issue = Renewals._issue

    def issue_late(self, agent, now):
        Agent.objects.update(certificates=["e" * 64])
        return issue(self, agent, now)

    monkeypatch.setattr(Renewals, "_issue", issue_late)
    world.step()
    assert world.listed == ["e" * 64]
    assert RouteState.objects.count() == 0


def test_an_agent_that_goes_is_forgotten(world):
    """No key is kept for an agent whose row is gone."""
    world.step()
    Agent.objects.all().delete()
    world.step()
    assert world.renewals._begun == {}


def test_many_are_renewed_some_at_a_time(authority):
    """A step takes twenty further, as one generation of the routes; all get there."""
    world = World(authority, agents=AT_ONCE + 5)
    world.step()
    begun = [agent for agent in Agent.objects.all() if len(agent.certificates) == 2]
    assert (len(begun), RouteState.objects.get().number) == (AT_ONCE, 1)
    for _ in range(int(LOAD_S) + 10):
        before = len(world.hands.asked)
        world.step()
        assert len(world.hands.asked) - before <= AT_ONCE
    assert all(agent.certificates == [world.hands.files[agent.id]] for agent in Agent.objects.all())
    assert len(world.hands.asked) == AT_ONCE + 5


def test_those_that_fail_keep_nobody_from_his_turn(authority):
    """Agents whose node refuses do not use up the places of the others for good."""
    world = World(authority, agents=AT_ONCE + 5)
    world.hands.error = OSError("disk full")
    for _ in range(10):
        world.step()
    assert {spec for spec, _ in world.hands.asked} == set(Agent.objects.values_list("id", flat=True))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_the_agent_is_accepted_at_any_time(world, seed):
    """Slow gateways, a slow node, failures and dying workers: what is shown is what gateways accept."""
    dice = random.Random(seed)
    gateway, shown = list(world.listed), OLD
    world.hands.later = True
    written_at = 0.0
    for number in itertools.count():
        world.hands.error = OSError("no") if dice.random() < 0.1 and number < 150 else None
        world.step(serve=False)
        if dice.random() < 0.05 and number < 150:
            world.replace_worker()
            world.hands.queue.clear()
        if dice.random() < 0.3:
            world.serve()
            gateway = list(world.listed)
        if dice.random() < 0.3 and world.hands.queue:
            world.hands.work()
            written_at = world.now
        if dice.random() < 0.5 or world.now - written_at > 3:
            shown = world.hands.files[world.id]
        assert shown in gateway, number
        if number > 150 and len(world.listed) == 1:
            break
        assert number < 400
    assert world.agent.certificate_expires_at > at(NOW + 80 * DAY)


@pytest.mark.django_db(transaction=True)
def test_a_list_that_could_not_be_published_is_not_forgotten(world, monkeypatch):
    """Where the routes' file cannot be written the renewal that is in the row goes on with its key."""
    with monkeypatch.context() as patched:
        patched.setattr("appliance.publish.write_routes", _refuse)
        with pytest.raises(OSError, match="disk full"):
            world.step()
    _, new = world.listed
    for _ in range(int(LOAD_S) + 3):
        world.step()
    assert world.listed == [new] == [world.hands.files[world.id]]


def _refuse():
    raise OSError("disk full")
