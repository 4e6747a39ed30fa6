"""What scaling decides on, and what it remembers and answers: values alone. Standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from appliance.policies.demand import NO_DEMAND, Demand
from appliance.policies.forecast import Season
from appliance.policies.idle_gaps import NO_GAPS, IdleGaps
from appliance.policies.latency import NO_LATENCY, Latency, latency_from_json
from appliance.policies.schedules import Bounds, Schedule
from appliance.policies.slices import Counts
from appliance.policies.windows import Window, window_from_json, window_to_json
from appliance.policies.work import NO_WORK, Work, work_from_json


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """The knobs. `target` is the concurrency one agent should carry; rates are factors of ready agents.

    `tolerance` is the band around the target in which nothing is done, as a fraction. Where `slots`, what one
    agent executes at once, is known, the rules of waiting decide, and that of concurrency only where
    `by_concurrency` is set or requests are not counted. `capacity_rps` is what an agent does, as measured: a
    request then executes slots / capacity_rps seconds, else that is learned from answers. A request that
    waits longer than `slo_wait_s` is a miss, worth up to `miss_cost_s` agent-seconds. Targets that are None
    are not looked at. A new agent serves `start_s` after it is ordered; the first are `activation` at once.
    `hold` is the number that people ordered whatever load asks; `schedules` are bounds by the clock. Agents
    that are too many stay parked for `park_s` before they end; 0: they end. An agent starts with at most
    `threads` engine threads; where no more agents can be added it grows to `max_threads`, and its batches to
    `max_batch` sequences (None: to all cores of its box, as large as was measured to do most).
    """

    min_agents: int = 1
    max_agents: int = 1
    target: float = 1.0
    stable_window_s: float = 60.0
    panic_window_s: float = 6.0
    panic_threshold: float = 2.0
    tolerance: float = 0.1
    max_up_rate: float = 1000.0
    max_down_rate: float = 2.0
    stabilization_s: float = 60.0
    idle_s: float = 60.0
    slots: float | None = None
    capacity_rps: float | None = None
    by_concurrency: bool = False
    slo_wait_s: float = 2.0
    start_s: float = 3.0
    miss_cost_s: float = 70.0
    peak_s: float = 30.0
    season_s: float = 0.0
    warm_floor: int = 0
    max_up_per_min: int | None = None
    max_down_per_min: int | None = None
    target_cpu_percent: float | None = None
    target_rps: float | None = None
    target_p95_ms: float | None = None
    target_ttft_ms: float | None = None
    target_tokens_per_s: float | None = None
    park_s: float = 300.0
    activation: int = 1
    hold: int | None = None
    schedules: tuple[Schedule, ...] = ()
    threads: int | None = None
    max_threads: int | None = None
    max_batch: int | None = None


@dataclass(frozen=True, slots=True)
class GatewayLoad:
    """What one gateway process counted for the deployment. `process` names it: id and start.

    Totals since its start: requests `accepted` and `finished`, `service_s` that finished ones executed, their
    `tokens`, and how many took how long, in buckets: `durations` to their end, `first_tokens` to the first
    token. None where it does not tell. `oldest_wait_s` is how long the first in its queue has waited.
    """

    process: str
    started_at: float
    at: float
    concurrency_s: float
    in_flight: int
    queued: int
    accepted: int | None = None
    finished: int | None = None
    service_s: float | None = None
    oldest_wait_s: float = 0.0
    durations: Counts | None = None
    first_tokens: Counts | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """What is known now. `current` is the number wanted so far, `ready` what can serve.

    `complete` is false where a gateway is silent: the load may then be more than what is seen.
    `held` says that a gateway told of a request that no warm agent can take. From `cpu_percent` on: of all
    agents together, None where nobody could tell. `p95_ms` is of whole requests, `ttft_ms` the same to
    the first token, `tokens_each` the mean tokens of a request.
    """

    current: int
    ready: int
    gateways: tuple[GatewayLoad, ...]
    complete: bool = True
    held: bool = False
    cpu_percent: float | None = None
    p95_ms: float | None = None
    ttft_ms: float | None = None
    tokens_each: float | None = None

    @property
    def in_flight(self) -> int:
        """Requests that agents have."""
        return sum(gateway.in_flight for gateway in self.gateways)

    @property
    def queued(self) -> int:
        """Requests that wait in gateways."""
        return sum(gateway.queued for gateway in self.gateways)


@dataclass(frozen=True, slots=True)
class ScalingState:
    """The policy's memory. Times are Unix seconds; `recent` are (time, want) that may still hold it up.

    `peaks` are (time, slots) that bursts needed lately, `steps` (time, agents more or fewer) of a minute.
    `queued` waited at the last look. `latency`, `first_token` and `work` are kept where a target of p95, of
    the time to first token, of tokens is set. `gaps` are idle ones.
    """

    at: float
    window: Window = ()
    previous: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    panic_at: float | None = None
    panic_peak: int = 0
    active_at: float = 0.0
    recent: tuple[tuple[float, int], ...] = ()
    demand: Demand = NO_DEMAND
    peaks: tuple[tuple[float, float], ...] = ()
    steps: tuple[tuple[float, int], ...] = ()
    season: Season | None = None
    queued: int = 0
    latency: Latency = NO_LATENCY
    gaps: IdleGaps = NO_GAPS
    first_token: Latency = NO_LATENCY
    work: Work = NO_WORK

    def to_json(self) -> dict[str, Any]:
        """The state as JSON types."""
        return {
            "at": self.at,
            "window": window_to_json(self.window),
            "previous": {name: list(pair) for name, pair in self.previous.items()},
            "panic_at": self.panic_at,
            "panic_peak": self.panic_peak,
            "active_at": self.active_at,
            "recent": [list(pair) for pair in self.recent],
            "demand": self.demand.to_json(),
            "peaks": [list(pair) for pair in self.peaks],
            "steps": [list(pair) for pair in self.steps],
            "season": None if self.season is None else self.season.to_json(),
            "queued": self.queued,
            "latency": None if self.latency is NO_LATENCY else self.latency.to_json(),
            "gaps": None if self.gaps is NO_GAPS else self.gaps.to_json(),
            "first_token": None if self.first_token is NO_LATENCY else self.first_token.to_json(),
            "work": None if self.work is NO_WORK else self.work.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do and why. `want` is what the load asks before any clamp, None: cannot tell.

    `kind` names the sort of reason in one word; a change of it is worth a row. `unbounded` is what would be
    done without minimum and maximum, `bounds` are those that hold now, schedules counted in. Unless it
    `lowers`, something is missing that it should be seen by: then nobody goes.
    """

    replicas: int
    state: ScalingState
    reason: str
    kind: str
    valid: bool
    want: int | None = None
    clamps: tuple[str, ...] = ()
    inputs: Mapping[str, float | int | None] = field(default_factory=dict)
    unbounded: int | None = None
    bounds: Bounds | None = None
    lowers: bool = True


@dataclass(frozen=True, slots=True)
class Want:
    """What one rule asks for, and why in words; None: it cannot tell, so nothing may be lowered."""

    rule: str
    agents: int | None
    words: str


def state_from_json(given: Mapping[str, Any]) -> ScalingState | None:
    """The opposite of `to_json`; None where there is none, or it is not understood."""
    try:
        season, latency, gaps = given.get("season"), given.get("latency"), given.get("gaps")
        first_token, work = given.get("first_token"), given.get("work")
        return ScalingState(
            at=float(given["at"]),
            window=window_from_json(given["window"]),
            previous={str(k): (float(v[0]), float(v[1])) for k, v in given["previous"].items()},
            panic_at=None if given["panic_at"] is None else float(given["panic_at"]),
            panic_peak=int(given["panic_peak"]),
            active_at=float(given["active_at"]),
            recent=tuple((float(at), int(want)) for at, want in given["recent"]),
            demand=Demand.from_json(given.get("demand", {})),
            peaks=tuple((float(at), float(need)) for at, need in given.get("peaks", ())),
            steps=tuple((float(at), int(step)) for at, step in given.get("steps", ())),
            season=None if season is None else Season.from_json(season),
            queued=int(given.get("queued", 0)),
            latency=NO_LATENCY if latency is None else latency_from_json(latency),
            gaps=NO_GAPS if gaps is None else IdleGaps.from_json(gaps),
            first_token=NO_LATENCY if first_token is None else latency_from_json(first_token),
            work=NO_WORK if work is None else work_from_json(work),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return None
