"""What holds of any fleet: where agents go, and that they come to rest."""

from dataclasses import replace

import pytest
from fleet_builders import GB, agent
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from placement_builders import World, is_still, node, wanted

from appliance.policies.actions import Create
from appliance.policies.placement import agent_bytes
from appliance.policies.placement_rules import BASES, PREFERS, SPREADS, PlacementRules
from appliance.policies.reconcile import plan

MODEL_BYTES = 24_000_000
NAMES = ("n0", "n1", "n2", "n3", "n4")


@st.composite
def nodes(draw):
    """Two to five boxes, each with its own hardware and facts; some take no agents."""
    found = []
    for name in NAMES[: draw(st.integers(2, 5))]:
        ram = draw(st.integers(0, 5)) * agent_bytes(MODEL_BYTES) / GB
        found.append(
            node(
                name, cores=draw(st.sampled_from((1, 2, 4))), ram_gb=1,
                accepts=draw(st.sampled_from((True, True, True, False))),
                labels=draw(st.sampled_from(({}, {"disk": "ssd"}, {"disk": "hdd"}))),
                region=draw(st.sampled_from(("", "east", "west"))),
                cost_per_hour=draw(st.sampled_from((None, 0.1, 0.5))),
                preemptible=draw(st.booleans()), can_sleep=draw(st.booleans()),
            )
        )  # fmt: skip
        found[-1] = replace(found[-1], ram_bytes=round(ram * GB))
    return found


@st.composite
def rules(draw):
    """Any rules that people can set."""
    return PlacementRules(
        require=draw(st.sampled_from(((), (("disk", "ssd"),)))),
        avoid=draw(st.sampled_from(((), (("disk", "hdd"),)))),
        regions=draw(st.sampled_from(((), ("east",), ("west", "east")))),
        spread=draw(st.sampled_from(SPREADS)),
        base=draw(st.sampled_from(BASES)),
        prefer=draw(st.sampled_from(PREFERS)),
    )


@st.composite
def worlds(draw):
    """A fleet with one or two deployments, agents where they happen to be, and any load."""
    boxes = draw(nodes())
    speeds = {one.name: draw(st.sampled_from((50.0, 100.0, 200.0))) for one in boxes}
    deployments, agents, load = [], [], {}
    for name in ("mini", "big")[: draw(st.integers(1, 2))]:
        there = draw(st.lists(st.sampled_from([one.name for one in boxes]), max_size=4))
        known = draw(st.booleans())
        deployments.append(
            wanted(
                len(there), name, least=draw(st.integers(0, 3)), most=6, rules=draw(rules()),
                unit_rps=100.0 if known else None, capacities=speeds if known else {},
            )
        )  # fmt: skip
        load[name] = draw(st.integers(0, 5))
        cores = {one.name: one.cores for one in boxes}
        agents += [
            agent(f"{name}-{number}", deployment=name, node=each, threads=cores[each])
            for number, each in enumerate(there)
        ]
    world = World(boxes, agents, deployments)
    world.load = load
    return world


def promised(world):
    """RAM promised by node."""
    found = dict.fromkeys((one.name for one in world.nodes), 0)
    for one in world.agents:
        found[one.node] += agent_bytes(one.model_bytes)
    return found


def some(examples):
    """So many fleets, the same in each run."""
    return settings(
        max_examples=examples, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
    )


def created_by(decided):
    return [one for one in decided.actions if isinstance(one, Create)]


def check_limits(world, decided, before):
    """New agents are where RAM, the node and its rules let them be."""
    boxes = {one.name: one for one in world.nodes}
    allowed = {one.name: one.placement for one in world.deployments}
    for one in created_by(decided):
        before[one.node] += agent_bytes(MODEL_BYTES)
        assert before[one.node] <= boxes[one.node].ram_bytes
        assert boxes[one.node].accepts
        assert allowed[one.deployment].why_not(boxes[one.node].labels) == ""


def check_serving(world, decided, serving, began):
    """No fewer serve than are wanted, or than did before."""
    for each in decided.deployments:
        left = sum(
            one.deployment == each.name and one.wanted == "warm" and one.created_at < began
            for one in world.agents
        )
        assert left >= min(each.desired, serving[each.name])


def check_all(world, most=80):
    """Tick until nothing changes, and look at each step."""
    for _ in range(most):
        before, began, room = world.look(), world.now, promised(world)
        serving = {
            one.name: sum(each.deployment == one.name and each.wanted == "warm" for each in before.agents)
            for one in before.deployments
        }
        assert plan(before) == plan(before)
        decided = world.tick()
        check_limits(world, decided, room)
        check_serving(world, decided, serving, began)
        if is_still(decided):
            return
    raise AssertionError(f"it does not come to rest: {[one.did for one in decided.deployments]}")


@pytest.mark.slow
@some(8)
@given(worlds())
def test_any_fleet_comes_to_rest(world):
    """Actions end, by the same plan for the same input.

    No new agent where there is no RAM, on a node that takes none, or that its rules forbid; and moving leaves
    no fewer ready than are wanted.
    """
    check_all(world)


@pytest.mark.slow
@some(250)
@given(worlds())
def test_many_fleets_come_to_rest(world):
    """The same of many more."""
    check_all(world)
