"""Which nodes sleep and which are woken, by load. Standard library only.

A node that holds nothing sleeps after a while, unless it is kept as headroom: so many empty nodes, and room
for so many more agents, are always awake. One is woken when an agent found no room, or headroom is below
its mark; what people ordered comes first. Each change is bounded: per node over ten minutes, per tick over
all, and after a failure by an hour's rest.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from appliance.policies.power_facts import CHANGES_WINDOW_S, PowerNode, PowerSettings, PowerStep
from appliance.policies.power_steps import is_gone, next_step, send_for, send_to_sleep

#: A node that did not sleep, or did not wake, is left alone by the loop for so long.
REST_S = 3600.0


@dataclass(frozen=True, slots=True)
class Headroom:
    """What is awake and free: nodes that hold no agent, and agents that there is room for."""

    nodes: int = 0
    agents: int = 0

    def with_more(self, nodes: int, agents: int) -> "Headroom":
        """So much more of it, or less."""
        return Headroom(self.nodes + nodes, self.agents + agents)

    def reaches(self, settings: PowerSettings) -> bool:
        """Whether it is as much as is to be kept."""
        return self.nodes >= settings.headroom_nodes and self.agents >= settings.headroom_agents


@dataclass(slots=True)
class _Turn:
    """A plan in the making: steps by node."""

    nodes: tuple[PowerNode, ...]
    settings: PowerSettings
    now: float
    steps: dict[str, PowerStep] = field(default_factory=dict)
    budget: int = 0

    def is_free(self, node: PowerNode) -> bool:
        """Whether the loop may change its power now."""
        lately = [at for at in node.changes if abs(self.now - at) < CHANGES_WINDOW_S]
        rests = bool(node.failed) and abs(self.now - node.failed_at) < REST_S
        return (
            node.wakeable
            and not node.local
            and node.wanted == "ready"
            and node.ordered != "awake"
            and not rests
            and len(lately) < self.settings.changes_per_10min
            and not _moves(self.steps.get(node.name))
        )


def plan_power(
    nodes: Iterable[PowerNode], settings: PowerSettings, now: float, *, short: int = 0
) -> list[PowerStep]:
    """The next step of every node that has one. For `short` agents there was no room in this tick."""
    turn = _Turn(tuple(sorted(nodes, key=lambda node: node.name)), settings, now)
    for node in turn.nodes:
        step = next_step(node, settings, now)
        if step is not None:
            turn.steps[node.name] = step
    turn.budget = settings.changes_per_tick
    _wake(turn, short)
    if not short:
        _put_to_sleep(turn)
    return [turn.steps[name] for name in sorted(turn.steps)]


def headroom_of(nodes: Iterable[PowerNode], steps: Mapping[str, PowerStep]) -> Headroom:
    """What is awake and free, without nodes that are on their way to sleep."""
    there = [node for node in nodes if node.awake and node.accepts and not node.stage]
    staying = [node for node in there if not _moves(steps.get(node.name))]
    return Headroom(sum(not node.agents for node in staying), sum(node.room for node in staying))


def _wake(turn: _Turn, short: int) -> None:
    """For agents without room, then for headroom. Those that people put to sleep wake for agents alone."""
    coming = [node for node in turn.nodes if _is_coming(node, turn.steps.get(node.name))]
    lack = short - sum(node.room for node in coming if node.helps)
    kept = headroom_of(turn.nodes, turn.steps).with_more(len(coming), sum(node.room for node in coming))
    able = [node for node in turn.nodes if turn.is_free(node) and _can_be_woken(node, turn.now)]
    for node in sorted(able, key=lambda one: (one.ordered == "asleep", one.cost, one.name)):
        for_agents = lack > 0 and node.helps and node.room > 0
        for_headroom = not kept.reaches(turn.settings) and node.ordered != "asleep"
        if turn.budget <= 0 or not (for_agents or for_headroom):
            continue
        found = "an agent" if short == 1 else f"{short} agents"
        why = f"{found} found no room" if for_agents else _below(turn.settings)
        turn.steps[node.name] = send_for(node, turn.now, f"woken: {why}", by_load=True)
        turn.budget -= 1
        lack -= node.room if node.helps else 0
        kept = kept.with_more(1, node.room)


def _put_to_sleep(turn: _Turn) -> None:
    """Those that cost most first, then those that are idle longest."""
    after_s = turn.settings.sleep_after_s
    if after_s <= 0:
        return
    kept = headroom_of(turn.nodes, turn.steps)
    able = [node for node in turn.nodes if turn.is_free(node) and _may_sleep(node, turn.settings, turn.now)]
    for node in sorted(able, key=lambda one: (-one.cost, one.idle_since or turn.now, one.name)):
        left = kept.with_more(-1, -node.room)
        if turn.budget <= 0 or not left.reaches(turn.settings):
            continue
        words = f"nothing was on it for {turn.now - (node.idle_since or turn.now):.0f} s: it is put to sleep"
        turn.steps[node.name] = send_to_sleep(node, turn.now, words, by_load=True)
        turn.budget -= 1
        kept = left


def _may_sleep(node: PowerNode, settings: PowerSettings, now: float) -> bool:
    """Whether it holds nothing, has for long enough, and was not woken just now."""
    if node.stage or node.ordered or not node.awake or not node.accepts or node.agents or node.busy:
        return False
    if node.idle_since is None or now - node.idle_since < settings.sleep_after_s:
        return False
    return node.awake_since is None or now - node.awake_since >= settings.stay_awake_s


def _can_be_woken(node: PowerNode, now: float) -> bool:
    """Whether it sleeps; one that failed to wake is tried again after its rest."""
    return node.stage == "asleep" or (bool(node.failed) and not node.stage and is_gone(node, now))


def _is_coming(node: PowerNode, step: PowerStep | None) -> bool:
    """Whether it is on its way up, or there this moment; after the first try others are tried too."""
    if step is not None and step.do == "wake":
        return step.changes.get("power_tries") == 1
    if node.stage != "waking" or node.wanted != "ready":
        return False
    return node.tries <= 1 if step is None else not step.problem and step.changes.get("power_stage") == ""


def _moves(step: PowerStep | None) -> bool:
    """Whether it is about to change its stage."""
    return step is not None and "power_stage" in step.changes


def _below(settings: PowerSettings) -> str:
    nodes, agents = settings.headroom_nodes, settings.headroom_agents
    marks = [f"{nodes} empty node{'s' * (nodes > 1)}"] if nodes else []
    marks += [f"room for {agents} agent{'s' * (agents > 1)}"] if agents else []
    return f"headroom is below {' and '.join(marks)}"
