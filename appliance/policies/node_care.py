"""What is done to nodes as such: reboot, upgrade, retire. Standard library only.

An order goes through stages, kept in the node's row, so that a killed loop goes on where it was:

- reboot: '' (its turn comes at once) -> resting (agents leave service and end) -> rebooting -> done,
  or failed where the machine goes on as if nothing had been said
- retire: '' (agents leave for good) -> removing (the box is told to forget us) -> done
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
#: A machine that was told to reboot, and goes on for so long after the order, does not.
REBOOT_S = 900.0
#: A node that is away so long in the middle of its upgrade gives up its turn.
AWAY_S = 600.0
#: Agents of a new release must be ready within this time.
PROVE_S = 120.0
#: Runs that fail in a row before a new release counts as bad.
PROVE_ATTEMPTS = 3
#: What is said of a node that keeps what it has, since another's upgrade failed.
CALLED_OFF = "not upgraded: another node's upgrade failed"
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
    power_stage: str = ""
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
    if node.wanted in ("drained", "retired") or node.power_stage:
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
        and not node.power_stage
        and node.operation != "reboot"
        and not (node.problems & BLOCKING)
        and (node.local or bool(node.release))
    )


def plan_care(nodes: Iterable[NodeOrders], agents: Iterable[AgentFacts], now: float) -> list[NodeStep]:
    """The next step of every node that has one.

    One node is out at a time, for reboots and upgrades together; one that is away for long gives up its turn.
    Of nodes that are to be upgraded those with agents come first: only agents prove a release.
    """
    known = list(nodes)
    own: dict[str, list[AgentFacts]] = {node.name: [] for node in known}
    for agent in agents:
        own.setdefault(agent.node, []).append(agent)
    steps = [_go_on(node, own[node.name], now) for node in known]
    turn_taken = any(node.operation and node.stage and now - node.stage_at <= AWAY_S for node in known)
    waiting = [node for node in known if node.operation and not node.stage and node.wanted != "retired"]
    for node in sorted(waiting, key=lambda one: (not own[one.name], one.ordered_at, one.name)):
        begin = _begin_reboot if node.operation == "reboot" else _begin_upgrade
        step = begin(node, now, my_turn=not turn_taken)
        steps.append(step)
        turn_taken = turn_taken or (step is not None and step.changes.get("operation_stage") == "resting")
    taken = [step for step in steps if step is not None]
    upgrades = {node.name for node in known if node.operation == "upgrade"}
    if any(step.problem and step.node in upgrades for step in taken):
        return _call_off(taken, [node for node in waiting if node.operation == "upgrade"])
    return taken


def _go_on(node: NodeOrders, own: list[AgentFacts], now: float) -> NodeStep | None:
    """The next step of an order whose turn has come."""
    if node.wanted == "retired":
        return _retire(node, own, now)
    if not node.stage:
        return None
    return _reboot(node, own, now) if node.operation == "reboot" else _upgrade(node, own, now)


def _call_off(steps: Iterable[NodeStep], waiting: Iterable[NodeOrders]) -> list[NodeStep]:
    """One node failed: all that wait for their turn keep what they have."""
    names = {node.name for node in waiting}
    kept = [step for step in steps if step.problem or step.node not in names]
    failed = {step.node for step in kept}
    return kept + [NodeStep(name, "", {"operation": ""}, CALLED_OFF) for name in sorted(names - failed)]


def _retire(node: NodeOrders, own: list[AgentFacts], now: float) -> NodeStep | None:
    if own:
        return None
    if node.stage == "removing" and "key_refused" in node.problems:
        # What lets us in goes last: it is done, and only the answer was lost.
        return NodeStep(node.name, "retired", {}, "")
    if is_unseen(node):
        return None
    if node.stage == "removing":
        return NodeStep(node.name, "retire", {}, "")
    return _to_stage(node, "removing", now, "take everything of ours off the box", do="retire")


def is_unseen(node: NodeOrders) -> bool:
    """Whether it cannot be told what runs there now."""
    return node.runs is None


def _all_rest(node: NodeOrders, own: list[AgentFacts]) -> bool:
    """Whether no agent there serves or runs any more, as far as can be told."""
    if node.runs is None:
        return False
    return not node.runs and all(agent.wanted != "warm" and agent.state == "stopped" for agent in own)


def _has_rebooted(node: NodeOrders) -> bool:
    return bool(node.boot_id) and node.boot_id != node.ordered_boot_id and not is_unseen(node)


def _begin_reboot(node: NodeOrders, now: float, *, my_turn: bool) -> NodeStep | None:
    if _has_rebooted(node):
        return _finished(node, now, "rebooted")
    if not my_turn or is_unseen(node):
        return None
    return _to_stage(node, "resting", now, "agents leave service for a reboot", operation_at=now)


def _reboot(node: NodeOrders, own: list[AgentFacts], now: float) -> NodeStep | None:
    if _has_rebooted(node):
        return _finished(node, now, "rebooted")
    if node.stage == "resting" and _all_rest(node, own):
        return _to_stage(node, "rebooting", now, "reboot", do="reboot")
    if node.stage == "rebooting" and node.runs is not None and now - node.stage_at > ASK_AGAIN_S:
        if now - node.ordered_at > REBOOT_S:
            done = _finished(node, now, "not rebooted")
            why = "it was told to reboot and goes on as before"
            return NodeStep(done.node, "", done.changes, done.words, problem=why)
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
        kept = [agent for agent in own if agent.wanted == "warm"]  # others leave, whatever they run
        why = _bad_release(kept, now - node.stage_at)
        if why:
            return _to_stage(node, "reverting", now, f"back to the release before: {why}")
        if node.runs is not None and all(agent.state in ("ready", "parked") for agent in kept):
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
