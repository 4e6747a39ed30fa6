"""The frozen view of the fleet that one tick decides on. Standard library only.

Wanted state comes from rows, observed state from gateways' reports and from the machine. What could
not be observed is None, never zero. Times are Unix seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from appliance.policies.placement_rules import DEFAULT_RULES, PlacementRules
from appliance.policies.report import AgentReport, DeploymentReport, GatewayReport, LinkState
from appliance.policies.scaling import ScalingPolicy, ScalingState
from appliance.policies.shapes import Reach, Shape
from appliance.policies.snapshot import Generation

#: How well a state serves, for agents that several gateways see differently.
_BEST_FIRST: tuple[LinkState, ...] = ("ready", "parked", "draining", "ejected", "loading", "connecting")


@dataclass(frozen=True, slots=True)
class DeploymentFacts:
    """A deployment as people want it, and the last decision on it.

    `proven` says that an agent of its revision has been ready once; until then one is wanted anyway.
    `capacities` are, by node, the requests per second that one agent of it does that has the node for itself;
    nodes of which that is not known are left out. `desired_rps` is what the last decision wanted in requests
    per second, None where speeds were not known; `moves` are when agents of it were last moved.
    In a `dry_run` the load changes nothing, and `would` is what `desired` would be by it. `reach` says by
    node what an agent of it may be there; since `lacking_since` load asks for agents that cannot be added.
    """

    name: str
    revision: int | None
    model_bytes: int
    policy: ScalingPolicy
    desired: int
    deadline_s: float
    paused: bool = False
    removing: bool = False
    removing_at: float | None = None
    proven: bool = True
    scaling_state: ScalingState | None = None
    reason_kind: str = ""
    problem: str = ""
    capacities: Mapping[str, float] = field(default_factory=dict)
    placement: PlacementRules = DEFAULT_RULES
    desired_rps: float | None = None
    moves: tuple[float, ...] = ()
    dry_run: bool = False
    would: int | None = None
    reach: Mapping[str, Reach] = field(default_factory=dict)
    lacking_since: float | None = None

    @property
    def decided(self) -> int:
        """The number that the last decision asked for; in a dry run the one that would be."""
        return self.would if self.dry_run and self.would is not None else self.desired


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """An agent's row.

    `attempt` counts restarts since it last was ready for a while; `unready_at` is since when it runs
    without being ready; `leaving_at` when it was last told to leave; `away_at` since when it is out
    of service with its node, until it is ready again; `parked_at` when it was told to park. `capacity_rps`
    is what it can do beside the other agents of its node, 0: not known. One that is `outdated` makes room
    for one with a better profile; since `moving_at` one of the same on node `moving_to` is to take its place;
    without a time that was tried in vain. `shape` is what it is to be, None where its row does not say; it
    started under a `limit` of engine threads, None: none, and is larger than then where it is `stretched`.
    `damage` names what cannot be read of its row: until it is started anew it stays as it is.
    """

    id: str
    deployment: str
    revision: int
    node: str
    created_at: float
    wanted: str = "warm"
    state: str = "starting"
    attempt: int = 0
    pid: int | None = None
    threads: int = 1
    capacity_rps: float = 0.0
    outdated: bool = False
    model_bytes: int = 0
    started_at: float | None = None
    ready_at: float | None = None
    unready_at: float | None = None
    retry_at: float | None = None
    leaving_at: float | None = None
    away_at: float | None = None
    parked_at: float | None = None
    moving_at: float | None = None
    moving_to: str = ""
    draining_generation: int | None = None
    error: str = ""
    shape: Shape | None = None
    limit: int | None = None
    stretched: bool = False
    damage: str = ""


#: What becomes of agents on a node: they stay, they rest while it is worked on, or they leave it for good.
Stay = Literal["stay", "rest", "leave"]


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """A node: hardware where it is known, and whether new agents may come to it.

    `stay` says what becomes of its agents, `leaving_since` since when they are to go. One that is `lost` was
    not seen for so long that its agents count as gone; one that is `settling` will take new agents once it
    was looked at, which is a matter of seconds. A `preemptible` one may be taken away by its owner; one that
    `can_sleep` can be woken again; `power_stage` says how far it is with that, '' where it is awake. Agents
    of one whose row is not `readable` stay as they are.
    """

    name: str
    ram_bytes: int | None
    cores: int
    accepts: bool = True
    stay: Stay = "stay"
    leaving_since: float | None = None
    lost: bool = False
    settling: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    region: str = ""
    cost_per_hour: float | None = None
    preemptible: bool = False
    can_sleep: bool = False
    power_stage: str = ""
    readable: bool = True


@dataclass(frozen=True, slots=True)
class Exit:
    """How an agent's process ended: its exit code where it can be known, and its last log lines."""

    code: int | None
    log: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Link:
    """One agent as all fresh gateways see it together: the best state, the sum of what is in flight.

    `busy` is what the agent itself said it is executing or has waiting, None where nobody was told lately.
    It is `resumed` where a gateway did that by itself. `idle_s` is how long ago it answered last, None where
    no gateway has had an answer of it. One that is `ejected` counts as ready, and gets no work just now.
    `shape` is what it said last that it is, None where it did not.
    """

    state: LinkState
    in_flight: int
    busy: int | None
    resumed: bool = False
    idle_s: float | None = None
    ejected: bool = False
    shape: Shape | None = None


@dataclass(frozen=True)  # without slots, for what is looked up again and again is put in order once
class FleetSnapshot:
    """Everything at one instant.

    `reports` are of gateways heard within 3 s, `silent` names those connected but not heard;
    `heard_since` is since when there has been a fresh report without a gap. `running` maps each node to its
    agents and their process ids, None where it could not be told. Agents `in_hand` are just being brought
    or changed; `failures` tells why that failed. `busy` is what draining agents answered when asked.
    `unshapable` agents did not take another shape lately, and why.
    """

    now: float
    epoch: str
    deployments: tuple[DeploymentFacts, ...] = ()
    agents: tuple[AgentFacts, ...] = ()
    nodes: tuple[NodeFacts, ...] = ()
    reports: tuple[GatewayReport, ...] = ()
    silent: tuple[str, ...] = ()
    heard_since: float | None = None
    held: frozenset[str] = frozenset()
    running: Mapping[str, Mapping[str, int] | None] = field(default_factory=dict)
    in_hand: frozenset[str] = frozenset()
    failures: Mapping[str, str] = field(default_factory=dict)
    exits: Mapping[str, Exit] = field(default_factory=dict)
    busy: Mapping[str, int] = field(default_factory=dict)
    unshapable: Mapping[str, str] = field(default_factory=dict)

    def node(self, name: str) -> NodeFacts | None:
        """The node of that name, None where there is none any more."""
        return self._nodes_by_name.get(name)

    def can_tell(self, agent: AgentFacts) -> bool:
        """Whether it is known what runs on the agent's node."""
        return self.running.get(agent.node) is not None

    def pid(self, agent: AgentFacts) -> int | None:
        """The agent's process id, None where it does not run or nobody can tell."""
        return (self.running.get(agent.node) or {}).get(agent.id)

    def is_lost(self, agent: AgentFacts) -> bool:
        """Whether its node was not seen for so long that it counts as gone, unless gateways see it serve."""
        node = self.node(agent.node)
        if node is None or not node.lost:
            return False
        link = self.link(agent)
        return link is None or link.state not in ("ready", "parked")

    def link(self, agent: AgentFacts) -> Link | None:
        """How gateways see an agent since it was started last; None where no fresh one knows it.

        One that is ejected is ready: whether it gets requests is the gateways' matter, and changes quickly.
        """
        key = (agent.id, agent.started_at)
        if key not in self._links:
            since = agent.started_at or 0.0
            self._links[key] = _join([one for at, one in self._seen.get(agent.id, ()) if at >= since])
        return self._links[key]

    def deployment_reports(self, name: str) -> list[tuple[GatewayReport, DeploymentReport]]:
        """What each fresh gateway counted for a deployment."""
        return self._counted.get(name, [])

    def all_serve(self, generation: Generation) -> bool:
        """Whether every gateway that is there serves this generation or a newer one."""
        if self.silent:
            return False
        return all(one.generation is not None and one.generation.reached(generation) for one in self.reports)

    def out_of_service(self, agent: str, number: int) -> bool:
        """Whether all fresh gateways serve generation `number` or newer, with nothing in flight there."""
        wanted = Generation(self.epoch, number)
        served = all(one.generation is not None and one.generation.reached(wanted) for one in self.reports)
        return served and not any(one.in_flight for _, one in self._seen.get(agent, ()))

    def newest_word(self, node: str) -> AgentReport | None:
        """The newest of what its agents said of a node's CPU, with its age; None where nobody did."""
        return self._words.get(node)

    # What is looked up by name, put in order at the first question.

    @cached_property
    def _nodes_by_name(self) -> dict[str, NodeFacts]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def _seen(self) -> dict[str, list[tuple[float, AgentReport]]]:
        """By agent what each gateway reports of it, and when."""
        seen: dict[str, list[tuple[float, AgentReport]]] = {}
        for report in self.reports:
            for one in report.agents:
                seen.setdefault(one.id, []).append((report.at, one))
        return seen

    @cached_property
    def _counted(self) -> dict[str, list[tuple[GatewayReport, DeploymentReport]]]:
        counted: dict[str, list[tuple[GatewayReport, DeploymentReport]]] = {}
        for report in self.reports:
            for one in report.deployments:
                counted.setdefault(one.name, []).append((report, one))
        return counted

    @cached_property
    def _words(self) -> dict[str, AgentReport]:
        words: dict[str, AgentReport] = {}
        newest: dict[str, float] = {}
        for report in self.reports:
            for one in report.agents:
                age_s = one.load_age_s
                if age_s is None or one.node_cpu_percent is None:
                    continue
                if one.node not in newest or age_s < newest[one.node]:
                    newest[one.node], words[one.node] = age_s, one
        return words

    @cached_property
    def _links(self) -> dict[tuple[str, float | None], Link | None]:
        """Answers of `link`, by agent and start."""
        return {}


def _join(seen: list[AgentReport]) -> Link | None:
    if not seen:
        return None
    state = min((one.state for one in seen), key=_BEST_FIRST.index)
    ejected = state == "ejected"
    state = "ready" if ejected else state
    resumed = any(one.resumed for one in seen)
    idle_s = min((one.idle_s for one in seen if one.idle_s is not None), default=None)
    in_flight = sum(one.in_flight for one in seen)
    return Link(state, in_flight, _freshest_busy(seen), resumed, idle_s, ejected, _freshest_shape(seen))


def _freshest_busy(seen: list[AgentReport], *, at_most_s: float = 3.0) -> int | None:
    told = [
        (one.load_age_s, one.executing + one.waiting)
        for one in seen
        if one.load_age_s is not None and one.executing is not None and one.waiting is not None
    ]
    if not told:
        return None
    youngest_s = min(age_s for age_s, _ in told)
    return max(busy for age_s, busy in told if age_s == youngest_s) if youngest_s <= at_most_s else None


def _freshest_shape(seen: list[AgentReport]) -> Shape | None:
    told = [one for one in seen if one.load_age_s is not None and one.speed is not None]
    speed = min(told, key=lambda one: one.load_age_s or 0.0).speed if told else None
    if speed is None:
        return None
    shape = Shape(speed.workers, speed.threads, speed.batch_size)
    return shape if shape.engine_threads else None  # one of an older release does not say its threads
