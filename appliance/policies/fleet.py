"""The frozen view of the fleet that one tick decides on. Standard library only.

Wanted state comes from rows, observed state from gateways' reports and from the machine. What could
not be observed is None, never zero. Times are Unix seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from appliance.policies.report import AgentReport, DeploymentReport, GatewayReport, LinkState
from appliance.policies.scaling import ScalingPolicy, ScalingState
from appliance.policies.snapshot import Generation

#: How well a state serves, for agents that several gateways see differently.
_BEST_FIRST: tuple[LinkState, ...] = ("ready", "parked", "draining", "loading", "connecting")


@dataclass(frozen=True, slots=True)
class DeploymentFacts:
    """A deployment as people want it, and the last decision on it.

    `proven` says that an agent of its revision has been ready once; until then one is wanted anyway.
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


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """An agent's row.

    `attempt` counts restarts since it last was ready for a while; `unready_at` is since when it runs
    without being ready; `leaving_at` when it was last told to leave.
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
    model_bytes: int = 0
    started_at: float | None = None
    ready_at: float | None = None
    unready_at: float | None = None
    retry_at: float | None = None
    leaving_at: float | None = None
    draining_generation: int | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """A node: hardware where it is known, and whether new agents may come to it."""

    name: str
    ram_bytes: int | None
    cores: int
    accepts: bool = True


@dataclass(frozen=True, slots=True)
class Exit:
    """How an agent's process ended: its exit code where it can be known, and its last log lines."""

    code: int | None
    log: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Link:
    """One agent as all fresh gateways see it together: the best state, the sum of what is in flight.

    `busy` is what the agent itself said it is executing or has waiting, None where nobody was told lately.
    """

    state: LinkState
    in_flight: int
    busy: int | None


@dataclass(frozen=True, slots=True)
class FleetSnapshot:
    """Everything at one instant.

    `reports` are of gateways heard within 3 s, `silent` names those connected but not heard;
    `heard_since` is since when there has been a fresh report without a gap. `running` maps agents to
    process ids, None where it could not be told. `busy` is what draining agents answered when asked.
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
    running: Mapping[str, int] | None = None
    exits: Mapping[str, Exit] = field(default_factory=dict)
    busy: Mapping[str, int] = field(default_factory=dict)

    def link(self, agent: AgentFacts) -> Link | None:
        """How gateways see an agent since it was started last; None where no fresh one knows it."""
        since = agent.started_at or 0.0
        seen = [
            one
            for report in self.reports
            if report.at >= since
            for one in report.agents
            if one.id == agent.id
        ]
        if not seen:
            return None
        state = min((one.state for one in seen), key=_BEST_FIRST.index)
        return Link(state, sum(one.in_flight for one in seen), _freshest_busy(seen))

    def deployment_reports(self, name: str) -> list[tuple[GatewayReport, DeploymentReport]]:
        """What each fresh gateway counted for a deployment."""
        return [(report, one) for report in self.reports for one in report.deployments if one.name == name]

    def out_of_service(self, agent: str, number: int) -> bool:
        """Whether all fresh gateways serve generation `number` or newer, with nothing in flight there."""
        wanted = Generation(self.epoch, number)
        for report in self.reports:
            if report.generation is None or not report.generation.reached(wanted):
                return False
            if any(one.id == agent and one.in_flight for one in report.agents):
                return False
        return True


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
