"""What is done to nodes as such: reboot, upgrade, retire. Standard library only.

An order goes through stages, kept in the node's row, so that a killed loop goes on where it was:

- reboot: '' (its turn comes at once) -> resting (agents leave service and end) -> rebooting -> done
- upgrade: '' (the release is brought) -> resting -> proving (agents run the new release) -> done, or
  reverting (agents rest again, the old release comes back) -> failed

Upgrades go one node at a time, the first as canary: when it fails, all others keep what they have.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from appliance.policies.fleet import AgentFacts, Stay

#: A node that was not seen for longer is unreachable, and its agents count as gone.
LOST_AFTER_S = 10.0
#: A reboot that did not happen is asked for again.
ASK_AGAIN_S = 60.0
#: A node that is away so long in the middle of its upgrade gives up its turn.
AWAY_S = 600.0
#: Agents of a new release must be ready within this time.
PROVE_S = 120.0
#: Runs that fail in a row before a new release counts as bad.
PROVE_ATTEMPTS = 3
#: Problems with which a node takes no new agents.
BLOCKING = frozenset(
    {"disk_full", "clock_off", "python_missing", "python_too_old", "steward_missing", "host_key_changed"}
)


@dataclass(frozen=True, slots=True)
class NodeOrders:
    """A node as people want it and as it was seen; `boot_id` is its present boot.

    `runs` says which agents run there, None where it cannot be told. `delivered` is the digest of the newest
    release for its Python and processor once the node has it, `newest` that digest, '' where not known yet.
    """

    name: str
    local: bool = False
    enrolled: bool = True
    wanted: str = "ready"
    operation: str = ""
    stage: str = ""
    ordered_at: float = 0.0
    stage_at: float = 0.0
    ordered_boot_id: str = ""
    boot_id: str = ""
    release: str = ""
    next_release: str = ""
    newest: str = ""
    delivered: bool = False
    trouble: str = ""
    seen_at: float | None = None
    runs: frozenset[str] | None = None
    problems: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class NodeStep:
    """One step for a node: what is to be done there ('' nothing), and what its row says afterwards."""

    node: str
    do: str
    changes: Mapping[str, object]
    words: str
    problem: str = ""


def is_lost(node: NodeOrders, now: float) -> bool:
    """Whether it was not seen for so long that its agents count as gone."""
    return not node.local and (node.seen_at is None or now - node.seen_at >= LOST_AFTER_S)


def stay_of(node: NodeOrders) -> Stay:
    """What becomes of agents there."""
    if node.wanted in ("drained", "retired"):
        return "leave"
    if node.stage in ("resting", "rebooting", "reverting"):
        return "rest"
    return "stay"


def accepts(node: NodeOrders) -> bool:
    """Whether new agents may come."""
    return (
        node.enrolled
        and node.wanted == "ready"
        and not node.stage
        and node.operation != "reboot"
        and not (node.problems & BLOCKING)
        and (node.local or bool(node.release))
    )


def plan_care(nodes: Iterable[NodeOrders], agents: Iterable[AgentFacts], now: float) -> list[NodeStep]:
    """The next step of every node that has one."""
    every = list(agents)
    known = list(nodes)
    steps = []
    turn_taken = any(node.operation == "upgrade" and node.stage for node in known)
    waiting = sorted(
        (node for node in known if node.operation == "upgrade" and not node.stage),
        key=lambda node: (node.ordered_at, node.name),
    )
    for node in known:
        own = [agent for agent in every if agent.node == node.name]
        if node.wanted == "retired":
            step = _retire(node, own)
        elif node.operation == "reboot":
            step = _reboot(node, own, now)
        elif node.operation == "upgrade" and node.stage:
            step = _upgrade(node, own, now)
        else:
            continue
        if step is not None:
            steps.append(step)
    for node in waiting:
        step = _begin_upgrade(node, now, my_turn=not turn_taken)
        if step is not None:
            steps.append(step)
            turn_taken = turn_taken or step.changes.get("operation_stage") == "resting"
    return _call_off(steps, waiting) if any(step.problem for step in steps) else steps


def _call_off(steps: Iterable[NodeStep], waiting: Iterable[NodeOrders]) -> list[NodeStep]:
    """One node failed: all that wait for their turn keep what they have."""
    names = {node.name for node in waiting}
    kept = [step for step in steps if step.problem or step.node not in names]
    failed = {step.node for step in kept}
    words = "not upgraded: another node's upgrade failed"
    return kept + [NodeStep(name, "", {"operation": ""}, words) for name in sorted(names - failed)]


def _retire(node: NodeOrders, own: list[AgentFacts]) -> NodeStep | None:
    if own or is_unseen(node):
        return None
    return NodeStep(node.name, "retire", {}, "take everything of ours off the box")


def is_unseen(node: NodeOrders) -> bool:
    """Whether it cannot be told what runs there now."""
    return node.runs is None


def _all_rest(node: NodeOrders, own: list[AgentFacts]) -> bool:
    """Whether no agent there serves or runs any more, as far as can be told."""
    if node.runs is None:
        return False
    return not node.runs and all(agent.wanted != "warm" and agent.state == "stopped" for agent in own)


def _reboot(node: NodeOrders, own: list[AgentFacts], now: float) -> NodeStep | None:
    rebooted = bool(node.boot_id) and node.boot_id != node.ordered_boot_id
    if rebooted and node.runs is not None and node.stage in ("", "resting", "rebooting"):
        return _finished(node, now, "rebooted")
    if not node.stage:
        return _to_stage(node, "resting", now, "agents leave service for a reboot")
    if node.stage == "resting" and _all_rest(node, own):
        return _to_stage(node, "rebooting", now, "reboot", do="reboot")
    if node.stage == "rebooting" and node.runs is not None and now - node.stage_at > ASK_AGAIN_S:
        return _to_stage(node, "rebooting", now, "reboot, asked again", do="reboot")
    return None


def _begin_upgrade(node: NodeOrders, now: float, *, my_turn: bool) -> NodeStep | None:
    if node.trouble:
        return NodeStep(
            node.name, "", {"operation": ""}, "the new release could not be brought", problem=node.trouble
        )
    if not node.newest:
        return None
    if node.newest == node.release:
        return _finished(node, now, "has the newest release already")
    if not node.delivered:
        return None if is_unseen(node) else NodeStep(node.name, "deliver", {}, "")
    if not my_turn or is_unseen(node):
        return None
    return _to_stage(
        node, "resting", now, "agents leave service for an upgrade", next_release_sha256=node.newest
    )


def _upgrade(node: NodeOrders, own: list[AgentFacts], now: float) -> NodeStep | None:
    swap = {"release_sha256": node.next_release, "next_release_sha256": node.release}
    if is_unseen(node) and now - node.stage_at > AWAY_S:
        back = {} if node.stage == "resting" else swap
        return _failed_upgrade(node, now, "it could not be reached in the middle of its upgrade", back)
    if node.stage == "resting" and _all_rest(node, own):
        return _to_stage(node, "proving", now, "agents start with the new release", **swap)
    if node.stage == "proving":
        why = _bad_release(own, now - node.stage_at)
        if why:
            return _to_stage(node, "reverting", now, f"back to the release before: {why}")
        if node.runs is not None and all(agent.state in ("ready", "parked") for agent in own):
            return _finished(node, now, "upgraded")
    if node.stage == "reverting" and _all_rest(node, own):
        why = "agents did not become ready with the new release; it has its old one again"
        return _failed_upgrade(node, now, why, swap)
    return None


def _failed_upgrade(node: NodeOrders, now: float, why: str, back: Mapping[str, object]) -> NodeStep:
    """The node keeps, or has again, its old release."""
    done = _finished(node, now, "not upgraded", **back)
    return NodeStep(done.node, "", {**done.changes, "next_release_sha256": ""}, done.words, problem=why)


def _bad_release(own: list[AgentFacts], waited_s: float) -> str:
    for agent in own:
        if agent.state == "failed" or agent.attempt >= PROVE_ATTEMPTS:
            return f"{agent.id} failed: {agent.error.partition(chr(10))[0]}"
    late = [agent.id for agent in own if agent.state not in ("ready", "parked")]
    return f"{late[0]} was not ready within {PROVE_S:g} s" if late and waited_s > PROVE_S else ""


def _to_stage(
    node: NodeOrders, stage: str, now: float, words: str, *, do: str = "", **changes: object
) -> NodeStep:
    told = {"operation_stage": stage, "operation_stage_at": now, **changes}
    return NodeStep(node.name, do, told, words)


def _finished(node: NodeOrders, now: float, words: str, **changes: object) -> NodeStep:
    over = {"operation": "", "operation_stage": "", "operation_stage_at": now, "next_release_sha256": ""}
    return NodeStep(node.name, "", over | changes, words)
