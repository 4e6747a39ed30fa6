"""What the policies make of unequal, failing and newly started agents, in simulated time."""

import random

import pytest
from queue_simulator import (
    Simulated,
    Simulation,
    central_queue_ms,
    latencies_ms,
    percentile,
    poisson,
)

from agents.protocol import PROTOCOL_VERSION, AgentState, LoadReport
from appliance.gateway import tracker
from appliance.gateway.tracker import Pool
from appliance.policies.balancing import DEFAULT_POLICY, Nothing, find_policy
from appliance.policies.service_time import ServiceTime

pytestmark = pytest.mark.slow

UNEQUAL_S = (0.010, 0.010, 0.040)
SEEDS = (7, 19)


def fixed(services_s, **changes):
    return [Simulated(lambda s=s: s, **changes) for s in services_s]


def p99_of(policy, agents, arrivals, **changes):
    return percentile(latencies_ms(Simulation(policy, agents, **changes).run(arrivals)), 0.99)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("rate", [112, 180])
def test_default_is_near_the_ideal_queue_and_far_from_early_binding(rate, ahead, seed):
    """p99 at most 1.3 x that of a queue that knows all service times, and half of least connections'."""
    arrivals = poisson(rate, 6000, seed)
    ours = p99_of(DEFAULT_POLICY, fixed(UNEQUAL_S, ahead=ahead), arrivals)
    early = p99_of("least_in_flight", fixed(UNEQUAL_S), arrivals, late_binding=False)
    assert ours <= 1.3 * percentile(central_queue_ms(arrivals, UNEQUAL_S), 0.99)
    assert ours <= 0.5 * early


def test_every_request_is_answered_under_overload():
    """Twice what the agents can carry: the slow one works too, and what they carry is served."""
    agents = fixed(UNEQUAL_S)
    arrivals = poisson(450, 4500, 7)
    requests = Simulation(DEFAULT_POLICY, agents).run(arrivals)
    assert all(request.answered_at is not None for request in requests)
    lasted_s = max(request.answered_at for request in requests)
    assert len(requests) / lasted_s >= 0.95 * 225
    assert agents[2].served == pytest.approx(len(requests) / 9, rel=0.1)


@pytest.mark.parametrize("rate", [60, 150, 240])
def test_one_that_fails_fast_attracts_nothing(rate):
    """An agent that answers 500 after 1 ms gets less than its share, and the others keep their pace."""
    agents = [*fixed((0.010, 0.010)), Simulated(lambda: 0.001, fails=lambda: True)]
    requests = Simulation(DEFAULT_POLICY, agents).run(poisson(rate * 0.8, 4000, 7))
    assert agents[2].served <= 0.02 * len(requests)


def test_a_recovered_agent_gets_its_share_again():
    """Once it answers well, doubt fades within seconds."""
    fails = [True]
    agents = [*fixed((0.010, 0.010)), Simulated(lambda: 0.010, fails=lambda: fails[0])]
    simulation = Simulation(DEFAULT_POLICY, agents)
    arrivals = poisson(180, 9000, 7)
    before = []
    simulation.at(10.0, lambda _now: fails.clear() or fails.append(False))
    simulation.at(35.0, lambda _now: before.extend(agent.served for agent in agents))
    simulation.run(arrivals)
    after = [agent.served - count for agent, count in zip(agents, before, strict=True)]
    assert after[2] >= 0.25 * sum(after)


def test_a_slow_spell_is_noticed_at_once():
    """One of four agents is 20 times slower for two seconds in ten: p99 is better than with early binding."""

    def run(policy, **changes):
        factor = [1.0]
        agents = [Simulated(lambda: 0.010 * factor[0]), *fixed((0.010, 0.010, 0.040))]
        simulation = Simulation(policy, agents, **changes)
        for start in range(5, 35, 10):
            simulation.at(start, lambda _now: factor.__setitem__(0, 20.0))
            simulation.at(start + 2, lambda _now: factor.__setitem__(0, 1.0))
        return percentile(latencies_ms(simulation.run(poisson(180, 6000, 7))), 0.99)

    assert run(DEFAULT_POLICY) <= 0.5 * run("least_in_flight", late_binding=False)


def test_newcomers_are_used_while_work_waits():
    """Of forty agents none has answered yet: all are busy within a few service times."""
    agents = fixed((0.010,) * 40)
    Simulation(DEFAULT_POLICY, agents).run(poisson(3200, 1600, 7))
    assert min(agent.served for agent in agents) > 0


def test_a_sample_of_many_is_as_good_as_looking_at_all(monkeypatch):
    """With 120 agents of three speeds p99 is within 5 % of the full scan's."""

    def run():
        draw = random.Random(3)
        agents = [Simulated(lambda s=s: s * draw.lognormvariate(-0.02, 0.2)) for s in (0.01, 0.01, 0.04) * 40]
        requests = Simulation(DEFAULT_POLICY, agents).run(poisson(0.8 * 40 * 225, 6000, 7))
        return percentile(latencies_ms(requests[2000:]), 0.99)

    sampled = run()
    monkeypatch.setattr(tracker, "SAMPLE_OVER", 10_000)
    assert sampled <= 1.05 * run()


class TestServiceTime:
    """What is learned of an agent's speed."""

    def test_the_line_is_found(self):
        """2 ms and 0.1 ms per unit of work, from answers of different sizes."""
        speed, draw = ServiceTime(), random.Random(1)
        for n in range(400):
            work = draw.choice((10, 40, 200))
            speed.answered(0.002 + 0.0001 * work, work, n * 0.02)
        assert speed.fixed_s == pytest.approx(0.002, rel=0.1)
        assert speed.per_work_s == pytest.approx(0.0001, rel=0.1)

    def test_a_slow_answer_counts_at_once_and_fades(self):
        """100 ms instead of 10: doubted in proportion, trusted again after 160 ms."""
        speed = ServiceTime()
        for n in range(50):
            speed.answered(0.010, 1.0, n * 0.01)
        speed.answered(0.100, 1.0, 1.0)
        assert speed.doubt_until == pytest.approx(1.16)
        assert speed.fixed_s < 0.011
        speed.answered(0.010, 1.0, 1.02)
        assert speed.doubt_until == pytest.approx(1.09)

    def test_failures_in_a_row_cost_more_and_more_up_to_a_bound(self):
        """However fast they come."""
        speed = ServiceTime()
        until = []
        for _ in range(8):
            speed.failed(10.0)
            until.append(speed.doubt_until - 10)
        assert until == [0.5, 1, 2, 4, 8, 16, 16, 16]

    def test_what_was_very_slow_is_forgotten_little_by_little(self):
        """So that it is tried again; what is no slower than the bound is kept."""
        speed = ServiceTime()
        speed.answered(1.0, 1.0, 0.0)
        for _ in range(20):
            speed.forget(0.04)
        assert speed.fixed_s == pytest.approx(0.04)


def report(state, answered, node_cpu=0.0):
    return LoadReport(
        PROTOCOL_VERSION, "a", "d", "r", state, 1, 8, 12, 0, 0, 0, answered, 0, 0, 0, 0, 0.0, 0.0,
        node_cpu, 0, 0, 1.0,
    )  # fmt: skip


def started_pool(answered=0):
    agent = Simulated(lambda: 0.01, slots=8, ahead=4)
    Simulation(DEFAULT_POLICY, [agent])
    slots = agent.book
    slots.lost()
    slots.spoke(report(AgentState.READY, answered), 1.0)
    pool = Pool(find_policy(DEFAULT_POLICY))
    pool.agents = [slots]
    pool.refresh()
    return pool, slots


class TestSlowStart:
    """A cold agent is given one request, and with each answer one more."""

    def test_limit_grows_with_the_answers(self):
        """One, two, three, ... up to all its slots and what goes ahead."""
        pool, slots = started_pool()
        limits = []
        for n in range(13):
            limits.append(slots.limit)
            held = pool.reserve(None, 1.0 + n)
            held.answered(1.01 + n)
            held.release()
            slots.reopen()
        assert limits == [*range(1, 13), 12]

    def test_limit_doubles_with_each_report(self):
        """So that answers which take long do not keep it cold."""
        _, slots = started_pool()
        limits = []
        for n in range(5):
            limits.append(slots.limit)
            slots.spoke(report(AgentState.READY, 0), 2.0 + n)
        assert limits == [1, 2, 4, 8, 12]

    def test_errors_do_not_warm_it(self):
        """Only good answers widen the limit."""
        pool, slots = started_pool()
        held = pool.reserve(None, 1.0)
        held.failed(1.01)
        held.release()
        slots.reopen()
        assert slots.limit == 1

    def test_one_that_served_before_is_warm(self):
        """A gateway that restarts finds its agents as they are."""
        assert started_pool(answered=5)[1].limit == 12

    def test_a_crowded_node_counts_as_slower(self):
        """Other processes take half of the machine: half as much time again is expected."""
        _, slots = started_pool(answered=5)
        before = slots.fixed_s
        slots.spoke(report(AgentState.READY, 5, node_cpu=50.0), 2.0)
        assert slots.fixed_s == pytest.approx(1.5 * before)


class TestManyAgents:
    """Of more agents than are looked at one by one."""

    def pool(self, count=60):
        pool = Pool(find_policy(DEFAULT_POLICY))
        simulated = fixed((0.010,) * count)
        Simulation(DEFAULT_POLICY, simulated)
        pool.agents = [agent.book for agent in simulated]
        pool.refresh()
        return pool

    def test_each_slot_is_found(self):
        """Also the last free one; then all are full, and a slot that comes back is found again."""
        pool = self.pool()
        held = [pool.reserve(None, 1.0) for _ in range(60)]
        assert len({one.agent for one in held}) == 60
        assert pool.reserve(None, 1.0) is Nothing.ALL_FULL
        held[17].release()
        assert pool.reserve(None, 1.0).agent is held[17].agent

    def test_one_that_left_gets_nothing(self):
        """Its last answer gives back a slot that is no longer offered."""
        pool = self.pool()
        held = [pool.reserve(None, 1.0) for _ in range(60)]
        gone = held[5].agent
        pool.agents.remove(gone)
        pool.refresh()
        for one in held:
            one.release()
        assert gone not in {pool.reserve(None, 1.0).agent for _ in range(59)}
