"""The route snapshot: all that a gateway must know to serve, in one immutable document.

`appliance.publish` writes it, gateways read it (JSON of these dataclasses, field by field).
Its generation orders snapshots: a new or restored database has a new epoch, which always wins;
within an epoch the larger number does.
"""

from dataclasses import dataclass, field
from typing import Literal

SNAPSHOT_FORMAT = 1

#: What the control plane wants of an agent. A draining one gets no new work.
WantedRoute = Literal["warm", "parked", "draining"]


@dataclass(frozen=True, slots=True)
class Generation:
    """Which snapshot: `epoch` names the database, `number` counts its changes."""

    epoch: str
    number: int

    def supersedes(self, other: "Generation | None") -> bool:
        """Whether a gateway that serves `other` must take this one instead."""
        return other is None or self.epoch != other.epoch or self.number > other.number

    def reached(self, wanted: "Generation") -> bool:
        """Whether serving this one means that all `wanted` says is served."""
        return self.epoch == wanted.epoch and self.number >= wanted.number


@dataclass(frozen=True, slots=True)
class DeploymentRoute:
    """What clients may ask for. `created` is in Unix seconds, `max_agents` counts warm agents.

    `queue_limit` requests and `queue_tokens` tokens of work may wait in each gateway.
    `cache_bytes` of answers are kept there and given again, 0: none; across teams where `cache_shared`.
    Where `sticky`, requests of one session go to one agent while it has room; where `hedging`, a request that
    is slower than 95 % of them is tried at a second agent too.
    Where all warm agents are full and a request has waited `resume_after_s`, gateways resume a parked one.
    One that is not `accepting` is being removed: what waits already is served, nothing new is taken.
    """

    name: str
    model: str
    task: str
    revision: str
    created: int
    max_agents: int
    queue_limit: int = 1000
    queue_tokens: int = 4_000_000
    deadline_s: float = 60.0
    balancing: str = "expected_completion"
    accepting: bool = True
    cache_bytes: int = 0
    cache_shared: bool = False
    sticky: bool = False
    hedging: bool = False
    resume_after_s: float = 4.0


@dataclass(frozen=True, slots=True)
class AgentRoute:
    """Where an agent listens, and the SHA-256 (hex, of the DER) of each certificate it may show.

    There is more than one while a renewed certificate is on its way to the agent.
    `slots` is how many requests it executes at once (workers x batch size), `ahead` how many
    more it may be given so that its next batch is already there.
    Where it is known how fast it is, a batch takes `fixed_s + per_token_s x tokens`, and it does at most
    `capacity_rps` requests per second, other agents of its box considered; 0: not known.
    """

    id: str
    deployment: str
    node: str
    host: str
    port: int
    certificates: tuple[str, ...]
    wanted: WantedRoute
    slots: int
    ahead: int
    fixed_s: float = 0.0
    per_token_s: float = 0.0
    capacity_rps: float = 0.0


@dataclass(frozen=True, slots=True)
class KeyRoute:
    """A key by the SHA-256 (hex) of its text. `rpm` bounds its requests per minute, None: no bound."""

    sha256: str
    name: str
    team: str
    rpm: int | None = None
    scopes: tuple[str, ...] = ("inference",)


@dataclass(frozen=True, slots=True)
class RouteSnapshot:
    """The whole document. `written_at` is in Unix seconds, for people."""

    generation: Generation
    written_at: float
    deployments: tuple[DeploymentRoute, ...] = ()
    agents: tuple[AgentRoute, ...] = ()
    keys: tuple[KeyRoute, ...] = ()
    format: int = field(default=SNAPSHOT_FORMAT)
