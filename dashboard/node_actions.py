"""What can be ordered of a node from its page: which, when, by whom, and the words around it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from appliance import nodes, power
from appliance.fleet import node_state
from appliance.models import Node

CHANGE: Final = "appliance.change_node"
RETIRE: Final = "appliance.delete_node"


@dataclass(frozen=True, slots=True)
class NodeAction:
    """One order. `order(name, actor)` calls the verb; `offered` says for which nodes it makes sense."""

    key: str
    label: str
    question: str
    consequence: str
    done: str
    order: Callable[[str, str], object]
    offered: Callable[[Node], bool]
    permission: str = CHANGE
    is_grave: bool = False


def _serves(node: Node) -> bool:
    """A node that agents may be on."""
    is_kept = node.retired_at is None and node.wanted != Node.Wanted.RETIRED
    return is_kept and (node.is_local or node.enrolled_at is not None)


def _can_be_worked_on(node: Node) -> bool:
    """A box of its own, with nothing else under way."""
    return _serves(node) and not node.is_local and not node.operation


def _can_sleep(node: Node) -> bool:
    """One that can be woken again, and does not sleep already."""
    return bool(node.power) and not node.power_stage and node.power_wanted != Node.PowerOrder.ASLEEP


def _can_be_woken(node: Node) -> bool:
    """One that sleeps or goes to sleep, or that is not there and has a way to be switched on."""
    if node.power_wanted == Node.PowerOrder.AWAKE:
        return False
    is_gone = node_state(node, time.time()) == "unreachable" and bool(node.power)
    return is_gone or bool(node.power_stage) or node.power_wanted == Node.PowerOrder.ASLEEP


ACTIONS: Final = (
    NodeAction(
        "uncordon", "Uncordon", "Uncordon this node?",
        "Agents may be placed on it again.",
        "takes agents again",
        lambda name, actor: nodes.uncordon_node(name, actor=actor),
        lambda node: _serves(node) and node.wanted in {Node.Wanted.CORDONED, Node.Wanted.DRAINED},
    ),
    NodeAction(
        "cordon", "Cordon", "Cordon this node?",
        "No new agents are placed on it. Those that are there go on serving.",
        "takes no new agents",
        lambda name, actor: nodes.cordon_node(name, actor=actor),
        lambda node: _serves(node) and node.wanted == Node.Wanted.READY,
    ),
    NodeAction(
        "drain", "Drain", "Drain this node?",
        "Its agents finish what they hold and leave; others take their place elsewhere where there is room. "
        "It stays so until it is uncordoned.",
        "is being drained",
        lambda name, actor: nodes.drain_node(name, actor=actor),
        lambda node: _serves(node) and node.wanted in {Node.Wanted.READY, Node.Wanted.CORDONED},
    ),
    NodeAction(
        "reboot", "Reboot", "Reboot this node?",
        "Its agents finish what they hold, the machine restarts, and they come back.",
        "is drained, then rebooted",
        lambda name, actor: nodes.reboot_node(name, actor=actor),
        _can_be_worked_on,
    ),
    NodeAction(
        "suspend", "Suspend", "Put this node to sleep?",
        "Its agents finish what they hold and leave; others take their place elsewhere where there is room. "
        "Then the machine sleeps, until it is woken or agents find no room without it.",
        "goes to sleep",
        lambda name, actor: power.suspend_node(name, actor=actor),
        lambda node: _can_be_worked_on(node) and _can_sleep(node),
    ),
    NodeAction(
        "wake", "Wake", "Wake this node?",
        "It is sent for, and serves again once it answers.",
        "is being woken",
        lambda name, actor: power.wake_node(name, actor=actor),
        lambda node: _serves(node) and not node.is_local and _can_be_woken(node),
    ),
    NodeAction(
        "calibrate", "Measure", "Measure this node?",
        "One agent of each deployment there leaves service for some seconds and measures how fast its model "
        "is on this machine, while others carry the load.",
        "is being measured",
        lambda name, actor: nodes.calibrate_node(name, actor=actor),
        _serves,
    ),
    NodeAction(
        "upgrade", "Upgrade", "Upgrade this node?",
        "The present release is brought there; its agents are replaced by ones that run it.",
        "is upgraded to the present release",
        lambda name, actor: nodes.upgrade_nodes([name], actor=actor),
        _can_be_worked_on,
    ),
    NodeAction(
        "retire", "Retire", "Retire this node?",
        "Its agents finish what they hold and leave; then account, key, units and files of the appliance are "
        "removed from the box. To use it again it has to be enrolled again.",
        "is being retired",
        lambda name, actor: nodes.retire_node(name, actor=actor),
        lambda node: node.retired_at is None and not node.is_local,
        permission=RETIRE, is_grave=True,
    ),
)  # fmt: skip


def offered_actions(node: Node, user: Any) -> list[NodeAction]:
    """What this user may order of this node as it is."""
    return [action for action in ACTIONS if action.offered(node) and user.has_perm(action.permission)]
