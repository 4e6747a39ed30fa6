"""Random walks through all that can happen to calls, agents and routes: after each step everything adds up.

Links and clock are stubs, so that a walk of a thousand steps takes a fraction of a second.
"""

import heapq
import itertools
import random

import pytest

from agents.protocol import PROTOCOL_VERSION, AgentState, Answer, LoadReport, Refusal
from appliance.gateway.calls import Call, Served
from appliance.gateway.fleet import Fleet
from appliance.gateway.forward import Dispatcher
from appliance.gateway.routes import RoutingTable
from appliance.gateway.stats import GatewayStats
from appliance.gateway.watch import WATCH_S
from appliance.policies.snapshot import AgentRoute, DeploymentRoute, Generation

NAMES = ("one", "two")
READY = LoadReport(
    protocol=PROTOCOL_VERSION, agent="", deployment="", revision="r1", state=AgentState.READY, workers=1,
    batch_size=4, admits=6, executing=1, waiting=0, accepted_total=9, answered_total=100, refused_total=0,
    sequences_total=0, tokens_total=7, body_bytes_total=0, busy_s_total=0.0, cpu_percent=12.5,
    node_cpu_percent=25.0, rss_bytes=1000, node_available_bytes=2000, uptime_s=1.0, beats=True,
)  # fmt: skip


class Clock:
    """The loop's timers and the time, which stands still between steps."""

    def __init__(self):
        self.now = 100.0
        self._timers = []
        self._number = itertools.count()

    def call_later(self, in_s, action, *given):
        timer = Timer()
        heapq.heappush(self._timers, (self.now + in_s, next(self._number), timer, action, given))
        return timer

    def call_soon(self, action, *given):
        return self.call_later(0.0, action, *given)

    def pass_by(self, seconds):
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            at, _, timer, action, given = heapq.heappop(self._timers)
            self.now = max(self.now, at)
            if not timer.cancelled:
                action(*given)
        self.now = end


class Timer:
    """One that may be taken back."""

    cancelled = False

    def cancel(self):
        self.cancelled = True


class StubLink:
    """What the dispatcher sees of a connection."""

    def __init__(self, route, clock):
        self.route, self._clock = route, clock
        self.up = self.frozen = self.closed = False
        self.heard_at = clock.now

    @property
    def beats(self):
        return self.up

    def start(self):
        pass

    def close(self):
        self.up, self.closed = False, True

    def send(self, frame, *, at_once=False):
        pass

    def hurry(self):
        pass

    def check(self, _now):
        pass

    def forgive(self, paused_s, now):
        self.heard_at = min(now, self.heard_at + paused_s)


class Outcome:
    """Takes one outcome, and no second one."""

    def __init__(self):
        self.result = None

    def done(self):
        return self.result is not None

    def set_result(self, outcome):
        assert self.result is None, "a call has ended twice"
        self.result = outcome


class Walk:
    """A dispatcher, its surroundings, and what may happen to it."""

    def __init__(self, seed, monkeypatch):
        self.dice = random.Random(seed)
        self.clock = Clock()
        for module in ("forward", "queueing", "hedging", "retries"):
            monkeypatch.setattr(f"appliance.gateway.{module}.monotonic", lambda: self.clock.now)
        stats = GatewayStats()
        self.fleet = Fleet(stats)
        self.fleet.connect = lambda route: StubLink(route, self.clock)
        self.dispatcher = Dispatcher("gateway-1", self.fleet, stats, lambda _: None)
        for part in (self.dispatcher, self.dispatcher._hedging, self.dispatcher._queueing):
            part._loop = self.clock
        self.calls: list[Call] = []
        self.steps = [
            *[self.submit] * 7, *[self.answer] * 6, self.fail, self.be_busy, self.refuse, self.leave,
            *[self.pass_by] * 6, self.freeze, self.thaw, self.cut, *[self.connect] * 3, self.route,
        ]  # fmt: skip
        self.route()

    # What may happen.

    def submit(self, deadline_s=None, name=None):
        deployments = [d for d in self.fleet.deployments.values() if name in (None, d.route.name)]
        if not deployments:
            return None
        deployment, dice = self.dice.choice(deployments), self.dice
        call = Call(
            deployment, path="/v1/embeddings", request_id="r", body=b"x" * dice.choice([8, 400]),
            deadline_s=deadline_s or dice.choice([0.1, 1.0, 10.0]), outcome=Outcome(), key=dice.choice("abc"),
            priority=dice.choice([0, 1, 1, 2]), session=dice.choice([None, b"s", b"t"]),
            cache_key=dice.choice([None, b"r1" + b"k" * 32, b"r1" + b"l" * 32]),
        )  # fmt: skip
        self.calls.append(call)
        self.dispatcher.submit(call, self.clock.now)
        return call

    def answer(self, status=200):
        busy = [a for a in self.fleet.every_agent() if a.pending and a.link.up and not a.link.frozen]
        if busy:
            agent = self.dice.choice(busy)
            agent.link.heard_at = self.clock.now
            stream = self.dice.choice(list(agent.pending))
            self.dispatcher.link_answered(agent.link, stream, Answer(status, 1, 0, 9, "a/b", b"answer"))

    def fail(self):
        self.answer(self.dice.choice([500, 503, 400, 504]))

    def be_busy(self):
        self.answer(429)

    def refuse(self):
        busy = [a for a in self.fleet.every_agent() if a.pending and a.link.up and not a.link.frozen]
        if busy:
            agent = self.dice.choice(busy)
            stream = self.dice.choice(list(agent.pending))
            self.dispatcher.link_refused(agent.link, stream, self.dice.choice(list(Refusal)))

    def leave(self):
        here = [call for call in self.calls if not call.done]
        if here:
            self.dispatcher.leave(self.dice.choice(here))

    def pass_by(self, most=4, paused_s=None):
        for _ in range(self.dice.randint(1, most)):
            paused = self.dice.choice([0.0, 0.0, 0.0, 0.02, 0.5]) if paused_s is None else paused_s
            self.clock.pass_by(WATCH_S + paused)
            for agent in self.fleet.every_agent():
                if agent.link.up and not agent.link.frozen:
                    agent.link.heard_at = self.clock.now
            self.dispatcher.watch(self.clock.now, paused)
            self.dispatcher.tick(self.clock.now)

    def freeze(self):
        self._any_link().frozen = True

    def thaw(self):
        self._any_link().frozen = False

    def cut(self):
        link = self._any_link()
        if link.up:
            link.up = False
            self.dispatcher.link_broke(link, "cut")

    def connect(self, link=None):
        link = link or self._any_link()
        if not link.closed:
            if not link.up:
                link.frozen = False
            link.up, link.heard_at = True, self.clock.now
            self.dispatcher.link_spoke(link, READY)

    def route(self, *, everything=False):
        """Another snapshot: agents come, go, drain or park; a deployment may be gone."""
        names = [name for name in NAMES if everything or self.dice.random() < 0.9]
        agents = {}
        for number in range(5):
            name = NAMES[number % 2]
            if name in names and (everything or self.dice.random() < 0.85):
                wanted = "warm" if everything else self.dice.choice(["warm"] * 4 + ["draining", "parked"])
                agents[f"a{number}"] = AgentRoute(
                    id=f"a{number}", deployment=name, node="box", host="h", port=1, certificates=(),
                    wanted=wanted, slots=self.dice.choice([1, 3]), ahead=1,
                )  # fmt: skip
        deployments = {
            name: DeploymentRoute(
                name=name, model="m", task="embed", revision="r1", created=1, max_agents=5, queue_limit=6,
                hedging=True, sticky=self.dice.random() < 0.5, cache_bytes=self.dice.choice([0, 700]),
            )
            for name in names
        }  # fmt: skip
        self.dispatcher.apply(RoutingTable(Generation("e", 1), deployments, agents, {}))
        for deployment in self.fleet.deployments.values():
            deployment.recent.slow_s = 0.03  # as after many answers

    def _any_link(self):
        links = [agent.link for agent in self.fleet.every_agent()]
        return self.dice.choice(links) if links else StubLink(None, self.clock)

    def recover(self, steps):
        """All are there, and answer."""
        self.route(everything=True)
        for _ in range(steps):
            for agent in self.fleet.every_agent():
                agent.link.frozen = False
                self.connect(agent.link)
            self.answer()
            self.pass_by(1, paused_s=0.0)
            self.check()

    # What must hold.

    def check(self):
        fleet = self.fleet
        here = [call for call in self.calls if not call.done]
        assert all(call.outcome.done() == call.done for call in self.calls)
        assert fleet.active() == len(here)
        attempts = {}
        for call in here:
            if call.reservation is not None:
                attempts[call.reservation.agent, call.stream] = call
                if call.second is not None:
                    attempts[call.second.reservation.agent, call.second.stream] = call
            else:
                assert call.second is None
        pending = {(a.slots, s): call for a in fleet.every_agent() for s, call in a.pending.items()}
        assert pending == attempts
        for agent in fleet.every_agent():
            assert agent.slots.in_flight == len(agent.pending)
        for deployment in [*fleet.deployments.values(), *fleet._leaving]:
            own = [call for call in here if call.deployment is deployment]
            assert deployment.stats.in_flight == sum(call.reservation is not None for call in own)
            queued = list(deployment.queue)
            assert len(queued) == len(set(queued)) == len(deployment.queue)
            assert all(call in own and call.reservation is None for call in queued)
            assert deployment.queue.work == pytest.approx(sum(call.work for call in queued))
        assert self.dispatcher._budget.under_way == sum(call.borrowed for call in here)
        self.calls = here


@pytest.mark.parametrize("seed", range(8))
async def test_after_each_step_everything_adds_up(seed, monkeypatch):
    """Slots, queues, budget and counters; each call ends once; and all end where agents answer again."""
    walk = Walk(seed, monkeypatch)
    for _ in range(600):
        walk.dice.choice(walk.steps)()
        walk.check()
    walk.recover(400)
    assert walk.calls == []
    assert all(deployment.pool.held == 0 for deployment in walk.fleet.deployments.values())
    assert all(not deployment.flights for deployment in walk.fleet.deployments.values())


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_was_all_agents_get_work_again(seed, monkeypatch):
    """Ejected, on trial, refusing, half trusted: in the end each has answered, and no request has failed."""
    walk = Walk(seed, monkeypatch)
    for _ in range(300):
        walk.dice.choice(walk.steps)()
    walk.recover(400)
    before = {agent: agent.slots.answered for agent in walk.fleet.every_agent()}
    for _ in range(40):
        calls = [walk.submit(deadline_s=10.0, name=name) for name in NAMES for _ in range(6)]
        walk.recover(20)
        assert {type(call.outcome.result) for call in calls} == {Served}
    assert all(agent.slots.answered > count for agent, count in before.items())


async def test_a_stop_in_the_middle_ends_all(monkeypatch):
    """Queued, in flight, hedged, following: each call is answered, and nothing is left."""
    for seed in range(4):
        walk = Walk(seed, monkeypatch)
        for _ in range(300):
            walk.dice.choice(walk.steps)()
        walk.dispatcher.abandon_all()
        walk.clock.pass_by(0.001)
        walk.check()
        assert walk.calls == []
        assert all(agent.slots.in_flight == 0 for agent in walk.fleet.every_agent())
