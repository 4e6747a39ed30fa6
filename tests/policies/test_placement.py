"""On which node a new agent goes."""

import pytest

from appliance.policies.placement import NodeSpace, Placement, Refusal, Wish, agent_bytes, place
from appliance.policies.placement_rules import PlacementRules

GB = 10**9


def test_room_for_one_and_a_half_models():
    """A node with exactly the promised bytes left takes the agent; one byte less refuses with the figures."""
    need = agent_bytes(2 * GB)
    assert place(2 * GB, [NodeSpace("a", need, 2)]) == Placement("a")
    refusal = place(2 * GB, [NodeSpace("a", need - 1, 2)])
    assert isinstance(refusal, Refusal)
    assert "3,268 MB of RAM" in refusal.reason
    assert "a has 3,268 MB" in refusal.reason


def test_what_is_promised_counts():
    """RAM that other agents were promised is not given twice."""
    need = agent_bytes(GB)
    assert isinstance(place(GB, [NodeSpace("a", 2 * need - 1, 2, promised_bytes=need)]), Refusal)


@pytest.mark.parametrize(
    ("nodes", "taken"),
    [
        pytest.param([NodeSpace("a", GB, 2, engine_threads=2), NodeSpace("b", GB, 8, engine_threads=2)], "b",
                     id="least-crowded"),
        pytest.param([NodeSpace("a", GB, 2), NodeSpace("b", 2 * GB, 2)], "b", id="most-ram-left"),
        pytest.param([NodeSpace("b", GB, 2), NodeSpace("a", GB, 2)], "a", id="by-name"),
        pytest.param([NodeSpace("a", GB, 2, engine_threads=64)], "a", id="crowded-is-no-refusal"),
        pytest.param([NodeSpace("a", GB, 8, accepts=False), NodeSpace("b", GB, 1)], "b", id="cordoned"),
    ],
)  # fmt: skip
def test_cores_are_a_score(nodes, taken):
    """The least crowded node with room is taken."""
    assert place(24_000_000, nodes) == Placement(taken)


def test_a_node_that_was_not_looked_at_yet():
    """Who is patient waits for it where it is the best; nobody goes there blindly."""
    seen, new = NodeSpace("a", GB, 2, engine_threads=2), NodeSpace("b", GB, 2, accepts=False, settling=True)
    assert place(24_000_000, [seen, new]) == Placement("a")
    refusal = place(24_000_000, [seen, new], patient=True)
    assert isinstance(refusal, Refusal)
    assert "first look at b" in refusal.reason
    idle = NodeSpace("a", 2 * GB, 2)
    assert place(24_000_000, [idle, new], patient=True) == Placement("a")
    alone = place(24_000_000, [new])
    assert isinstance(alone, Refusal)
    assert "b was not looked at yet" in alone.reason


def test_refusals_say_why():
    """Each node's own reason is named."""
    refusal = place(GB, [NodeSpace("a", None, 2), NodeSpace("b", GB, 2, accepts=False)])
    assert isinstance(refusal, Refusal)
    assert "a: its hardware is not known yet" in refusal.reason
    assert "b takes no new agents" in refusal.reason
    assert "there is no node" in place(GB, []).reason


@pytest.mark.parametrize(
    ("nodes", "taken"),
    [
        pytest.param([NodeSpace("a", GB, 2, capacity_rps=100), NodeSpace("b", GB, 2, capacity_rps=300)], "b",
                     id="the faster box"),
        pytest.param([NodeSpace("a", GB, 2, capacity_rps=100),
                      NodeSpace("b", GB, 2, capacity_rps=300, engine_threads=2)], "a", id="free cores first"),
        pytest.param([NodeSpace("a", GB, 2, capacity_rps=100, engine_threads=2),
                      NodeSpace("b", GB, 2, capacity_rps=300, engine_threads=4)], "b",
                     id="a third of a fast one is as much as half of a slow one, and more"),
        pytest.param([NodeSpace("a", GB, 2, capacity_rps=100), NodeSpace("b", GB, 8)], "b",
                     id="unknown: by its cores, as fast as the known"),
        pytest.param([NodeSpace("a", GB // 4, 2, capacity_rps=900),
                      NodeSpace("b", GB, 2, capacity_rps=1)], "b", id="RAM stays the limit"),
    ],
)  # fmt: skip
def test_speed_is_a_score(nodes, taken):
    """Among nodes with free cores, and then among the others, the one where it will do most is taken."""
    assert place(24_000_000, nodes) == Placement(taken)


def space(name, **given):
    return NodeSpace(name, 4 * GB, 2, **given)


@pytest.mark.parametrize(
    ("nodes", "wish", "taken"),
    [
        pytest.param([space("a"), space("b", labels={"disk": "ssd"})],
                     Wish(rules=PlacementRules(require=(("disk", "ssd"),))), "b", id="a required label"),
        pytest.param([space("a", labels={"spot": "yes"}), space("b", engine_threads=8)],
                     Wish(rules=PlacementRules(avoid=(("spot", ""),))), "b", id="an avoided label"),
        pytest.param([space("a", labels={"disk": "ssd"}), space("b", engine_threads=8)],
                     Wish(rules=PlacementRules(avoid=(("disk", "hdd"),))), "a", id="another value"),
        pytest.param([space("a", region="east"), space("b", region="west", engine_threads=2)],
                     Wish(rules=PlacementRules(regions=("west",))), "b", id="a preferred region"),
        pytest.param([space("a", region="north"), space("b", region="east"), space("c", region="west")],
                     Wish(rules=PlacementRules(regions=("west", "east"))), "c", id="the first region most"),
        pytest.param([space("a", region="east"), space("b", region="west", engine_threads=2)],
                     Wish(rules=PlacementRules(spread="region"), in_region={"east": 1}), "b",
                     id="the region with fewest"),
        pytest.param([space("a"), space("b", engine_threads=2)],
                     Wish(rules=PlacementRules(spread="node"), on_node={"a": 1}), "b", id="its fewest"),
        pytest.param([space("a", preemptible=True, capacity_rps=900.0), space("b", capacity_rps=1.0)],
                     Wish(base=True), "b", id="an owned node for the first"),
        pytest.param([space("a", preemptible=True, capacity_rps=900.0), space("b", capacity_rps=1.0)],
                     Wish(), "a", id="any for those beyond"),
        pytest.param([space("a", preemptible=True), space("b", accepts=False)],
                     Wish(base=True), "a", id="a preemptible one rather than none"),
        pytest.param([space("a", cost_per_hour=0.9, capacity_rps=900.0), space("b", cost_per_hour=0.1)],
                     Wish(rules=PlacementRules(prefer="cost")), "b", id="the cheapest"),
        pytest.param([space("a", cost_per_hour=0.9, agents=1), space("b", cost_per_hour=0.1)],
                     Wish(rules=PlacementRules(prefer="cost")), "a", id="what is on anyway"),
        pytest.param([space("a"), space("b", agents=1, engine_threads=1)],
                     Wish(rules=PlacementRules(prefer="fewest")), "b", id="a node in use"),
        pytest.param([space("a"), space("b", agents=1, engine_threads=2)],
                     Wish(rules=PlacementRules(prefer="fewest")), "a", id="free cores before few nodes"),
        pytest.param([space("a", engine_threads=7), space("b", engine_threads=6, capacity_rps=0.1)],
                     Wish(rules=PlacementRules(regions=("x",)), capacities={"a": 900.0}), "b",
                     id="four engine threads a core"),
        pytest.param([space("a"), space("b", engine_threads=2)], Wish(shun=frozenset("a")), "b",
                     id="not where it leaves"),
    ],
)  # fmt: skip
def test_what_people_ask_of_a_node(nodes, wish, taken):
    """Labels are limits; the rest decides among nodes with room."""
    assert place(24_000_000, nodes, wish=wish) == Placement(taken)


def test_forbidden_nodes_are_named_with_the_label():
    """And a large fleet is not listed to its end."""
    wish = Wish(rules=PlacementRules(require=(("disk", "ssd"),), avoid=(("spot", ""),)))
    nodes = [space("a"), space("b", labels={"disk": "ssd", "spot": "yes"})]
    refusal = place(GB, nodes, wish=wish)
    assert isinstance(refusal, Refusal)
    assert "a lacks the label disk=ssd; b has the label spot=yes, which is avoided" in refusal.reason
    many = place(GB, [space(f"n{number}") for number in range(200)], wish=wish)
    assert isinstance(many, Refusal)
    assert many.reason.endswith("and 192 more")
