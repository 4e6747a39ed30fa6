"""What holds of `decide` whatever the load, the policy, the gaps and the restarts."""

import json
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.policies.latency import BUCKETS
from appliance.policies.scaling import GatewayLoad, Load, ScalingPolicy, decide, state_from_json
from appliance.policies.schedules import bounds_at, parse_schedule

NOW = 1_767_600_000.0  # a Monday, 08:00 UTC
MINUTE_S = 60.0
SCHEDULES = tuple(
    parse_schedule(text)
    for text in (
        "mon 08:00-08:01 UTC min=4", "daily 08:01-08:02 UTC min=0 max=3", "mon 09:01-09:03 CET min=2 max=9",
    )
)  # fmt: skip

policies = st.builds(
    ScalingPolicy,
    min_agents=st.integers(0, 4),
    max_agents=st.integers(4, 12),
    target=st.sampled_from([0.7, 5.6]),
    slots=st.sampled_from([None, 1.0, 8.0]),
    capacity_rps=st.sampled_from([None, 4.0]),
    by_concurrency=st.booleans(),
    warm_floor=st.integers(0, 2),
    activation=st.integers(1, 3),
    max_up_per_min=st.none() | st.integers(1, 6),
    max_down_per_min=st.none() | st.integers(1, 6),
    stabilization_s=st.sampled_from([0.0, 14.0]),
    idle_s=st.sampled_from([4.0, 75.0]),
    season_s=st.sampled_from([0.0, 120.0]),
    target_rps=st.none() | st.just(3.0),
    target_cpu_percent=st.none() | st.just(60.0),
    target_p95_ms=st.none() | st.just(200.0),
    target_ttft_ms=st.none() | st.just(150.0),
    target_tokens_per_s=st.none() | st.just(100.0),
    hold=st.none() | st.none() | st.integers(0, 14),
    schedules=st.sampled_from([(), SCHEDULES[:1], SCHEDULES]),
)


@dataclass
class Step:
    """What happens between two looks: rates by gateway, and what of them is seen.

    `untold` gateways count neither tokens nor times to the first; of what is `stuck` nothing is answered.
    """

    after_s: float
    rates: tuple[int, int]
    queued: int
    oldest_s: float
    slow: bool
    lost: frozenset
    silent: bool
    restarts: bool
    uncounted: bool
    held: bool
    cpu_percent: float | None
    tokens: int = 50
    untold: frozenset = frozenset()
    stuck: bool = False


steps = st.lists(
    st.builds(
        Step,
        after_s=st.sampled_from([0.2, 1.0, 1.0, 2.0, 7.0, 90.0]),
        rates=st.tuples(st.integers(0, 30), st.integers(0, 5)),
        queued=st.sampled_from([0, 0, 0, 3, 80]),
        oldest_s=st.sampled_from([0.0, 0.0, 1.6, 30.0]),
        slow=st.booleans(),
        lost=st.sampled_from([frozenset()] * 3 + [frozenset("a"), frozenset("ab")]),
        silent=st.sampled_from([False, False, False, True]),
        restarts=st.sampled_from([False, False, False, True]),
        uncounted=st.sampled_from([False, False, False, True]),
        held=st.booleans(),
        cpu_percent=st.none() | st.floats(0, 100),
        tokens=st.sampled_from([0, 5, 50, 900]),
        untold=st.sampled_from([frozenset()] * 3 + [frozenset("a"), frozenset("ab")]),
        stuck=st.sampled_from([False, False, False, True]),
    ),
    min_size=1,
    max_size=14,
)


@dataclass
class Counter:
    """One gateway's totals; a restart begins them anew under another name."""

    name: str
    started_at: float
    accepted: int = 0
    finished: int = 0
    tokens: int = 0
    area: float = 0.0
    durations: list = field(default_factory=lambda: [0] * BUCKETS)
    first_tokens: list = field(default_factory=lambda: [0] * BUCKETS)

    def count(self, rate, step):
        came = int(rate * step.after_s)
        self.accepted += came
        self.area += step.after_s * (rate * 0.3 + step.queued)
        if not step.stuck:
            self.finished += came
            self.tokens += came * step.tokens
            self.durations[22 if step.slow else 10] += came
            self.first_tokens[20 if step.slow else 8] += came

    def seen(self, now, step):
        figures = {} if step.uncounted else {
            "accepted": self.accepted, "finished": self.finished, "service_s": self.finished * 0.3,
        }  # fmt: skip
        if self.name not in step.untold:
            figures |= {"first_tokens": tuple(self.first_tokens), "tokens": self.tokens}
        return GatewayLoad(
            f"{self.name}@{self.started_at}", self.started_at, now, self.area, step.queued // 2, step.queued,
            oldest_wait_s=step.oldest_s, durations=tuple(self.durations), **figures,
        )  # fmt: skip


def run(policy, given_steps, current):
    """Yield (load, state before, now, decision) of each look; the state goes through JSON each time."""
    now, state = NOW, None
    gateways = [Counter("a", NOW - 50), Counter("b", NOW - 500)]
    for step in given_steps:
        now += step.after_s
        if step.restarts:
            gateways[0] = Counter("a", now - step.after_s / 2)
        for gateway, rate in zip(gateways, step.rates, strict=True):
            gateway.count(rate, step)
        heard = tuple(one.seen(now, step) for one in gateways if one.name not in step.lost)
        load = Load(
            current, current, heard, complete=not (step.silent or step.lost), held=step.held,
            cpu_percent=step.cpu_percent,
        )  # fmt: skip
        decision = decide(policy, load, state, now)
        yield load, state, now, decision
        state = state_from_json(json.loads(json.dumps(decision.state.to_json())))
        current = decision.replicas


@given(policies, steps, st.integers(0, 12))
@settings(max_examples=40)
def test_what_always_holds(policy, given_steps, current):
    """Bounds and schedules are kept, missing data never lowers, and the answer is told."""
    for load, _, now, decision in run(policy, given_steps, current):
        bounds = bounds_at(
            policy.schedules, policy.min_agents, policy.max_agents, now, lead_s=policy.start_s + 2.0
        )
        assert bounds.least <= decision.replicas <= bounds.most
        assert decision.reason
        if policy.hold is not None:
            assert decision.replicas == min(max(policy.hold, bounds.least), bounds.most)
        elif not load.complete or not load.gateways or lacks_first_tokens(policy, load):
            assert decision.replicas >= min(load.current, bounds.most)
        elif load.held or load.queued:
            assert decision.replicas >= min(1, bounds.most)


def lacks_first_tokens(policy, load):
    """Whether people set a target for a figure that a gateway does not tell, while requests are there."""
    wanted = policy.target_ttft_ms is not None and load.in_flight + load.queued > 0
    return wanted and any(one.first_tokens is None for one in load.gateways)


@given(
    policies,
    steps,
    st.sampled_from(["target_ttft_ms", "target_tokens_per_s"]),
    st.sampled_from([{"untold": frozenset("b")}, {"untold": frozenset("ab")}, {"stuck": True}]),
    st.integers(0, 12),
)
@settings(max_examples=15)
def test_a_figure_that_is_missing_or_old_never_lowers(policy, given_steps, target, how, current):
    """Where a figure is not told, or nothing is answered for a minute, nobody goes with requests there."""
    others = dict.fromkeys(("target_ttft_ms", "target_tokens_per_s", "hold"))
    policy = replace(policy, **{**others, target: 100.0}, schedules=())
    working = Step(7.0, (1, 1), 3, 0.0, False, frozenset(), False, False, False, False, 1.0, **how)
    tail_at = sum(step.after_s for step in given_steps) + NOW
    for load, _, now, decision in run(policy, [*given_steps, *[working] * 14], current):
        if now > tail_at + (66.0 if "stuck" in how else 0.0):
            assert decision.replicas >= min(load.current, policy.max_agents)


@given(policies, steps, st.integers(0, 12))
@settings(max_examples=20)
def test_steps_are_kept(policy, given_steps, current):
    """Within any minute no more come, and no more go, than people allow; only bounds are above that."""
    policy = replace(policy, hold=None, schedules=())
    made = []
    for load, _, now, decision in run(
        policy, given_steps, min(max(current, policy.min_agents), policy.max_agents)
    ):
        made.append((now, decision.replicas - load.current))
        within = [step for at, step in made if now - at < MINUTE_S]
        if policy.max_up_per_min is not None and decision.valid and decision.replicas > policy.min_agents:
            assert sum(step for step in within if step > 0) <= policy.max_up_per_min
        if policy.max_down_per_min is not None:
            assert -sum(step for step in within if step < 0) <= policy.max_down_per_min


@given(policies, steps, st.integers(0, 12))
@settings(max_examples=20)
def test_a_killed_loop_goes_on_where_it_was(policy, given_steps, current):
    """The same input gives the same output; so do a state from JSON and the one it was written from."""
    carried = None
    for load, state, now, decision in run(policy, given_steps, current):
        assert decide(policy, load, state, now) == decision
        assert decide(policy, load, carried, now) == decision
        carried = decision.state
        assert len(json.dumps(carried.to_json())) < 20_000
