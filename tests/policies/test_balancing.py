"""What every balancing policy promises, and what each one does of its own."""

from dataclasses import dataclass

import pytest

from appliance.policies.balancing import (
    DEFAULT_POLICY,
    Nothing,
    UnknownPolicy,
    Wait,
    find_policy,
    policy_names,
)

NOW = 100.0


@dataclass(frozen=True)
class Box:
    """An agent as policies see it; by default it takes 10 ms, and what it has is done in 4 ms."""

    in_flight: int
    slots: int = 4
    limit: int = 6
    busy_until: float = NOW + 0.004
    fixed_s: float = 0.010
    per_work_s: float = 0.0
    doubt_until: float = 0.0


def choose(name, boxes, turn=0, *, work=1.0, behind=0):
    return find_policy(name).pick(boxes, turn, NOW, work, behind)


@pytest.fixture(params=policy_names())
def pick(request):
    return lambda boxes, turn: choose(request.param, boxes, turn)


def test_there_are_policies():
    """The package finds its policies by itself, and the default is among them."""
    found = set(policy_names())
    assert found >= {
        "expected_completion",
        "first_available",
        "least_in_flight",
        "round_robin",
        "two_choices",
    }
    assert DEFAULT_POLICY in found


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

    def test_no_agent_of_equals_gets_more_than_it_can_execute_while_another_is_free(self, pick):
        """Twelve requests at once over three agents of four slots: four each."""
        counts = [0, 0, 0]
        for turn in range(12):
            boxes = [Box(count, limit=4, busy_until=NOW + 0.0025 * count) for count in counts]
            counts[pick(boxes, turn)] += 1
        assert counts == [4, 4, 4]

    def test_same_input_same_answer(self, pick):
        """A policy keeps nothing between two calls."""
        boxes = [Box(2), Box(1), Box(1, slots=8)]
        assert len({pick(boxes, 1) for _ in range(5)}) == 1


@pytest.mark.parametrize("name", [name for name in policy_names() if name != "first_available"])
def test_equals_take_turns(name):
    """Idle agents of one size get the same share, save where packing is the purpose."""
    picks, turn = [], 0
    for _ in range(9):
        index = choose(name, [Box(0), Box(0), Box(0)], turn)
        picks.append(index)
        turn = index + 1
    assert picks == [0, 1, 2] * 3


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
    assert choose("least_in_flight", boxes, turn) == wanted


def test_round_robin_ignores_load():
    """The turn decides, not the load."""
    assert choose("round_robin", [Box(0), Box(5)], 1) == 1


@pytest.mark.parametrize(
    ("boxes", "wanted"),
    [
        pytest.param([Box(3), Box(0)], 0, id="a free slot of the first is enough"),
        pytest.param([Box(4), Box(3)], 1, id="a free slot before a place ahead"),
        pytest.param([Box(4), Box(5)], 0, id="ahead: the first again"),
    ],
)
def test_first_available(boxes, wanted):
    """Work is packed on the first agents, so that the last ones stay idle."""
    assert choose("first_available", boxes, 1) == wanted


@pytest.mark.parametrize(
    ("boxes", "wanted"),
    [
        pytest.param([Box(3), Box(1)], 1, id="the less loaded"),
        pytest.param([Box(1), Box(3)], 0, id="the first one"),
        pytest.param([Box(3, slots=8, limit=8), Box(2, slots=4)], 0, id="relative to size"),
    ],
)
def test_two_choices(boxes, wanted):
    """Of two the one with less for its size."""
    assert choose("two_choices", boxes) == wanted


FAST_FULL = Box(1, slots=1, limit=1, busy_until=NOW + 0.003)
SLOW_IDLE = Box(0, slots=1, limit=1, fixed_s=0.040)


class TestExpectedCompletion:
    """What will have answered first gets the request, also if it is not free yet."""

    @pytest.mark.parametrize(
        ("boxes", "wanted"),
        [
            pytest.param([SLOW_IDLE, Box(0)], 1, id="the faster of two idle ones"),
            pytest.param(
                [SLOW_IDLE, Box(3, busy_until=NOW + 0.008)], 1, id="fast and busy before slow and idle"
            ),
            pytest.param([Box(0, fixed_s=0.011), Box(3, busy_until=NOW + 0.008)], 0, id="idle before busy"),
            pytest.param([Box(0, doubt_until=NOW + 0.2), SLOW_IDLE], 1, id="doubt makes slow"),
            pytest.param([Box(0, doubt_until=NOW - 9), SLOW_IDLE], 0, id="doubt that has passed"),
            pytest.param(
                [Box(4, busy_until=NOW - 0.1), SLOW_IDLE], 1, id="one long overdue may take longer yet"
            ),
            pytest.param([Box(0, busy_until=NOW - 0.1), SLOW_IDLE], 0, id="idle and so not overdue"),
            pytest.param([Box(0, per_work_s=0.001), SLOW_IDLE], 1, id="slow for much work"),
        ],
    )
    def test_choice(self, boxes, wanted):
        """Time before it, time for this work, and doubt add up."""
        assert choose("expected_completion", boxes, work=50.0) == wanted

    def test_it_is_better_to_wait(self):
        """An idle agent of 40 ms stays idle while one of 10 ms is free in 3."""
        found = choose("expected_completion", [SLOW_IDLE, FAST_FULL])
        assert isinstance(found, Wait)
        assert found.for_s == pytest.approx(0.033)

    def test_with_many_behind_it_the_slow_one_is_used(self):
        """The fast one could answer three before the slow one answers; PATIENCE makes it two."""
        found = [choose("expected_completion", [SLOW_IDLE, FAST_FULL], behind=n) for n in range(4)]
        assert [isinstance(one, Wait) for one in found] == [True, True, False, False]

    def test_nobody_waits_for_one_that_refuses(self):
        """A limit of 0 is no promise."""
        refusing = Box(0, slots=1, limit=0)
        assert choose("expected_completion", [SLOW_IDLE, refusing]) == 0

    @pytest.mark.parametrize("full", [FAST_FULL, Box(4, slots=4, limit=4, busy_until=NOW + 0.008)])
    def test_after_the_wait_nothing_is_waited_for(self, full):
        """A fast one that did not answer in that time is overdue, and the slow one gets the request."""
        found = choose("expected_completion", [SLOW_IDLE, full])
        pick = find_policy("expected_completion").pick
        assert pick([SLOW_IDLE, full], 0, NOW + found.for_s, 1.0, 0) == 0
