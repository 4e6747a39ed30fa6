"""What agents are told themselves: to park, to resume, to be of another shape. No node is needed for that."""

from collections.abc import Iterable

from appliance.control.levels import LevelOrders
from appliance.control.shape_orders import ShapeOrders
from appliance.models import Agent
from appliance.policies.actions import Action, Park, Reshape, Resume


def give_orders(actions: Iterable[Action], levels: LevelOrders, shapes: ShapeOrders) -> None:
    """Have agents told; returns at once. Must not be called in a transaction."""
    actions = tuple(actions)
    parks = [action.agent for action in actions if isinstance(action, Park)]
    resumes = [action.agent for action in actions if isinstance(action, Resume)]
    for agents, order in ((parks, levels.park), (resumes, levels.resume)):
        if agents:
            order(Agent.objects.filter(pk__in=agents).values_list("id", "host", "port"))
    wanted = {action.agent: action.shape for action in actions if isinstance(action, Reshape)}
    if wanted:
        rows = Agent.objects.filter(pk__in=wanted).values_list("id", "host", "port")
        shapes.order((address, wanted[address[0]]) for address in rows)
