"""What a tick may do, and the plan that says so. Standard library only."""

from dataclasses import dataclass

from appliance.policies.fleet import AgentFacts
from appliance.policies.scaling import Decision, Load, ScalingPolicy, ScalingState
from appliance.policies.shapes import Shape


@dataclass(frozen=True, slots=True)
class Create:
    """Make a new agent of a revision on a node, and start it."""

    deployment: str
    revision: int
    node: str


@dataclass(frozen=True, slots=True)
class Start:
    """Start an agent that has a row; on another port where the old one is taken."""

    agent: str
    node: str
    new_port: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask an agent to end (SIGTERM), or end it at once."""

    agent: str
    node: str
    kill: bool = False


@dataclass(frozen=True, slots=True)
class Forget:
    """An agent has ended for good: its files and its row go away."""

    agent: str
    node: str


@dataclass(frozen=True, slots=True)
class Park:
    """Tell an agent that is out of service to give its weights' memory back."""

    agent: str
    node: str


@dataclass(frozen=True, slots=True)
class Resume:
    """Tell a parked agent to load its weights again."""

    agent: str
    node: str


@dataclass(frozen=True, slots=True)
class Reshape:
    """Tell an agent to be of another shape, without a new process."""

    agent: str
    node: str
    shape: Shape


@dataclass(frozen=True, slots=True)
class EndOrphan:
    """End a process that no row knows."""

    agent: str
    node: str


@dataclass(frozen=True, slots=True)
class Remove:
    """The last agent of a removed deployment is gone: so goes the deployment."""

    deployment: str


Action = Create | Start | Stop | Park | Resume | Reshape | Forget | EndOrphan | Remove


@dataclass(frozen=True, slots=True)
class Asked:
    """What `decide` was given for a deployment, and what it answered."""

    policy: ScalingPolicy
    load: Load
    state: ScalingState | None
    answer: Decision


@dataclass(frozen=True, slots=True)
class DeploymentPlan:
    """What was decided for a deployment. `did` says in words what is done now, for the Decision row.

    In a dry run `would` is the number that would be wanted by the load, else it is None. `desired_rps`,
    `moves` and `lacking_since` are what `DeploymentFacts` says of the next tick.
    """

    name: str
    before: int
    desired: int
    want: int | None
    reason: str
    kind: str
    problem: str
    clamps: tuple[str, ...]
    inputs: dict[str, float | int | None]
    scaling_state: ScalingState | None
    removing_at: float | None
    proven: bool
    did: tuple[str, ...]
    asked: Asked | None = None
    would: int | None = None
    desired_rps: float | None = None
    moves: tuple[float, ...] = ()
    lacking_since: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything one tick does: facts of agents afterwards, decisions, actions in order.

    `routes_changed` says that gateways must learn of it.
    """

    agents: tuple[AgentFacts, ...]
    deployments: tuple[DeploymentPlan, ...]
    actions: tuple[Action, ...]
    routes_changed: bool
