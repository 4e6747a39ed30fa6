"""What every balancing policy promises, and what each one does of its own."""

from dataclasses import dataclass

import pytest

from appliance.policies.balancing import Nothing, UnknownPolicy, find_policy, policy_names


@dataclass(frozen=True)
class Box:
    """An agent as policies see it."""

    in_flight: int
    slots: int = 4
    limit: int = 6


@pytest.fixture(params=policy_names())
def pick(request):
    return find_policy(request.param)


def test_there_are_policies():
    """The package finds its policies by itself."""
    assert {"least_in_flight", "round_robin"} <= set(policy_names())


def test_unknown_name_is_refused_with_the_known_ones():
    """A wrong name tells which are right."""
    with pytest.raises(UnknownPolicy, match=r"'fastest'.*least_in_flight, round_robin"):
        find_policy("fastest")


class TestEveryPolicy:
    """The shared suite."""

    def test_nobody_there(self, pick):
        """Without an agent it says so."""
        assert pick([], 0) is Nothing.NO_AGENT

    def test_everybody_full(self, pick):
        """With agents that have no room it says so."""
        assert pick([Box(6), Box(0, limit=0)], 0) is Nothing.ALL_FULL

    @pytest.mark.parametrize("turn", range(5))
    def test_only_one_has_room(self, pick, turn):
        """The one with room is found, wherever the turn is."""
        assert pick([Box(6), Box(5), Box(9)], turn) == 1

    def test_a_refusing_agent_is_passed_over(self, pick):
        """A limit of 0 keeps work away, however idle the agent is."""
        assert pick([Box(0, limit=0), Box(3)], 0) == 1

    def test_equals_take_turns(self, pick):
        """Idle agents of one size get the same share."""
        picks, turn = [], 0
        for _ in range(9):
            index = pick([Box(0), Box(0), Box(0)], turn)
            picks.append(index)
            turn = index + 1
        assert picks == [0, 1, 2] * 3

    def test_same_input_same_answer(self, pick):
        """A policy keeps nothing between two calls."""
        boxes = [Box(2), Box(1), Box(1, slots=8)]
        assert len({pick(boxes, 1) for _ in range(5)}) == 1


@pytest.mark.parametrize(
    ("boxes", "turn", "wanted"),
    [
        pytest.param([Box(1), Box(0)], 0, 1, id="fewest in flight"),
        pytest.param([Box(3, slots=4), Box(5, slots=8, limit=10)], 0, 1, id="relative to size"),
        pytest.param([Box(2, slots=4), Box(4, slots=8, limit=10)], 0, 1, id="tie goes to the idler"),
        pytest.param([Box(1), Box(1), Box(1)], 2, 2, id="equals: the next in turn"),
        pytest.param([Box(1), Box(1), Box(1)], 3, 0, id="the turn comes round"),
    ],
)
def test_least_in_flight(boxes, turn, wanted):
    """The least load for its size wins."""
    assert find_policy("least_in_flight")(boxes, turn) == wanted


def test_round_robin_ignores_load():
    """The turn decides, not the load."""
    assert find_policy("round_robin")([Box(0), Box(5)], 1) == 1
