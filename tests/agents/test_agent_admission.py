"""Admission and the states of an agent."""

import pytest

from agents.admission import Admission
from agents.errors import BadTransition
from agents.lifecycle import Event, next_state, refusal_in
from agents.protocol import AgentState, Refusal

LOADING, READY, PARKED, DRAINING = AgentState


@pytest.mark.parametrize(
    ("state", "refusal"),
    [(LOADING, Refusal.LOADING), (PARKED, Refusal.PARKED), (DRAINING, Refusal.DRAINING), (READY, None)],
)
def test_only_a_ready_agent_admits(state, refusal):
    """Each other state is a refusal of its own name, and counted under it."""
    admission = Admission(1)
    assert admission.admit(state) is refusal is refusal_in(state)
    assert admission.in_hand == admission.accepted_total == (refusal is None)
    assert admission.refused_total == (refusal is not None)


def test_full_is_refused_until_a_permit_comes_back():
    """The bound holds exactly, and a permit given back can be taken again."""
    admission = Admission(2)
    assert [admission.admit(READY) for _ in range(4)] == [None, None, Refusal.FULL, Refusal.FULL]
    admission.release()
    assert admission.admit(READY) is None
    assert (admission.accepted_total, admission.refused_totals[Refusal.FULL]) == (3, 2)


def test_a_permit_comes_back_once():
    """Giving back what was never taken is a fault, not a negative count."""
    with pytest.raises(RuntimeError):
        Admission(1).release()


@pytest.mark.parametrize(
    ("state", "event", "after"),
    [
        (LOADING, Event.LOADED, READY),
        (READY, Event.PARK, PARKED),
        (PARKED, Event.PARK, PARKED),
        (PARKED, Event.RESUME, LOADING),
        (READY, Event.RESUME, READY),
        (READY, Event.RESHAPE, LOADING),
        (LOADING, Event.DRAIN, DRAINING),
        (READY, Event.DRAIN, DRAINING),
        (PARKED, Event.DRAIN, DRAINING),
        (DRAINING, Event.DRAIN, DRAINING),
        (DRAINING, Event.LOADED, DRAINING),
    ],
)
def test_transitions(state, event, after):
    """Where each event leads."""
    assert next_state(state, event) is after


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (LOADING, Event.PARK),
        (DRAINING, Event.PARK),
        (DRAINING, Event.RESUME),
        (READY, Event.LOADED),
        (PARKED, Event.LOADED),
        (LOADING, Event.RESHAPE),
        (DRAINING, Event.RESHAPE),
    ],
)
def test_impossible_transitions(state, event):
    """What makes no sense is refused, naming both."""
    with pytest.raises(BadTransition, match=f"{state.value} cannot {event.value}"):
        next_state(state, event)
