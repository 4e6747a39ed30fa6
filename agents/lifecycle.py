"""The states of an agent, and what leads from one to another. Pure."""

from enum import Enum
from typing import Final

from agents.errors import BadTransition
from agents.protocol import AgentState, Refusal


class Event(str, Enum):
    """What happens to an agent."""

    LOADED = "loaded"
    PARK = "park"
    RESUME = "resume"
    DRAIN = "drain"
    MEASURE = "measure"
    RESHAPE = "change its shape"


_NEXT: Final[dict[tuple[AgentState, Event], AgentState]] = {
    (AgentState.LOADING, Event.LOADED): AgentState.READY,
    (AgentState.LOADING, Event.RESUME): AgentState.LOADING,
    (AgentState.LOADING, Event.DRAIN): AgentState.DRAINING,
    (AgentState.READY, Event.PARK): AgentState.PARKED,
    (AgentState.READY, Event.RESUME): AgentState.READY,
    (AgentState.READY, Event.DRAIN): AgentState.DRAINING,
    # Whoever measures itself or changes its shape has no weights: to gateways that is an agent that loads.
    (AgentState.READY, Event.MEASURE): AgentState.LOADING,
    (AgentState.READY, Event.RESHAPE): AgentState.LOADING,
    (AgentState.PARKED, Event.PARK): AgentState.PARKED,
    (AgentState.PARKED, Event.RESUME): AgentState.LOADING,
    (AgentState.PARKED, Event.DRAIN): AgentState.DRAINING,
    # Draining is final; a load that was under way may still end.
    (AgentState.DRAINING, Event.LOADED): AgentState.DRAINING,
    (AgentState.DRAINING, Event.DRAIN): AgentState.DRAINING,
}

_REFUSALS: Final = {
    AgentState.LOADING: Refusal.LOADING,
    AgentState.PARKED: Refusal.PARKED,
    AgentState.DRAINING: Refusal.DRAINING,
}


def next_state(state: AgentState, event: Event) -> AgentState:
    """The state after `event`. Raises BadTransition where it is not possible in `state`."""
    try:
        return _NEXT[state, event]
    except KeyError:
        raise BadTransition(f"an agent that is {state.value} cannot {event.value}") from None


def refusal_in(state: AgentState) -> Refusal | None:
    """Why an agent in `state` takes no request, or None where it does."""
    return _REFUSALS.get(state)
