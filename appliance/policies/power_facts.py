"""What decisions on nodes' power are made of, and what they say. Standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

#: Changes of power are counted over so long.
CHANGES_WINDOW_S = 600.0
DID_NOT_WAKE, DID_NOT_SLEEP = "did_not_wake", "did_not_sleep"


@dataclass(frozen=True, slots=True)
class PowerSettings:
    """How eagerly nodes sleep and wake; see `appliance.power_settings` for each in words."""

    sleep_after_s: float = 600.0
    headroom_nodes: int = 1
    headroom_agents: int = 0
    stay_awake_s: float = 300.0
    wake_timeout_s: float = 180.0
    changes_per_10min: int = 4
    changes_per_tick: int = 2


@dataclass(frozen=True, slots=True)
class PowerNode:
    """A node, for decisions on its power.

    `wakeable` says that it has a way to be woken, `ordered` what people ordered of its power. It is `awake`
    where it answers and it can be told what runs there. `agents` counts those that are wanted there or run
    there, with those of this very tick; `busy` is any other reason why it must not sleep, '' for none. `told`
    is how the newest command to its power ended: None not yet, '' done, else the error. `room` is for how
    many more agents its RAM is enough; it `helps` where an agent that found no room may go there. `failed_at`
    is since when it has a problem of its power.
    """

    name: str
    wakeable: bool = True
    local: bool = False
    wanted: str = "ready"
    ordered: str = ""
    stage: str = ""
    stage_at: float = 0.0
    tries: int = 0
    awake: bool = True
    seen_at: float | None = None
    accepts: bool = True
    agents: int = 0
    busy: str = ""
    told: str | None = None
    idle_since: float | None = None
    awake_since: float | None = None
    changes: tuple[float, ...] = ()
    failed: str = ""
    failed_at: float = 0.0
    room: int = 1
    helps: bool = True
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class PowerStep:
    """What is done to a node's power, and what its row says afterwards.

    `words` are for people, '' where there is nothing to tell. With a `problem` (its code) the node could not
    be changed, and `detail` says why; `clears` takes such problems away. `by_load`: nobody ordered it.
    """

    node: str
    do: Literal["", "sleep", "wake"] = ""
    changes: Mapping[str, object] = field(default_factory=dict)
    words: str = ""
    problem: str = ""
    detail: str = ""
    clears: bool = False
    by_load: bool = False
