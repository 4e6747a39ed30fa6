"""Rules with targets of their own: time to first token and tokens, each alone, and with the others."""

import json
from dataclasses import replace

import pytest

from appliance.policies.latency import BUCKETS
from appliance.policies.report import bucket_index
from appliance.policies.scaling import GatewayLoad, Load, ScalingPolicy, ScalingState, decide, state_from_json
from appliance.policies.signal_rules import figures_of, observe_signals, signal_wants
from appliance.policies.waiting_rules import Queueing
from appliance.policies.work import NO_WORK, observe_work, tokens_each, work_from_json

NOW = 1_000_000.0


def load(*, ready=8, in_flight=4, **figures):
    gateway = GatewayLoad("g@0", NOW - 900, NOW, 0.0, in_flight, 0)
    return Load(ready, ready, (gateway,), **figures)


def queueing(rate_rps):
    return Queueing(rate_rps, rate_rps, 0.1, 2, 1.0, 1.8, 4.0, 70.0)


def alone(policy, seen, rate_rps=10.0, **given):
    """What the one rule whose target is set asks for, and its words."""
    known = None if rate_rps is None else queueing(rate_rps)
    [want] = signal_wants(ScalingPolicy(max_agents=50, **policy), seen, known, grows=False, **given)
    return want


@pytest.mark.parametrize(
    ("figures", "agents"),
    [
        pytest.param({"ttft_ms": 150.0}, 12, id="half over asks half more"),
        pytest.param({"ttft_ms": 101.0}, 9, id="a little over asks one more"),
        pytest.param({"ttft_ms": 9000.0}, 16, id="at most twice as many"),
        pytest.param({"ttft_ms": 100.0}, 0, id="at its target it asks nothing"),
        pytest.param({"ttft_ms": 5.0}, 0, id="below it says nothing of fewer"),
        pytest.param({}, None, id="without a figure it cannot tell"),
        pytest.param({"in_flight": 0}, 0, id="with nothing there it need not"),
        pytest.param({"ttft_ms": 150.0, "ready": 0}, 0, id="with none ready nothing is more of it"),
        pytest.param({"p95_ms": 900.0}, None, id="the whole request's latency is another figure"),
    ],
)
def test_time_to_first_token(figures, agents):
    """By how far its p95 is over the target, of what is ready."""
    want = alone({"target_ttft_ms": 100.0}, load(**figures))
    assert (want.rule, want.agents) == ("ttft", agents)
    if "ttft_ms" in figures:
        assert want.words == f"p95 of the time to first token {figures['ttft_ms']:.0f} ms, target 100 ms"


@pytest.mark.parametrize(
    ("rate_rps", "figures", "agents"),
    [
        pytest.param(20.0, {"tokens_each": 150.0}, 3, id="the worked figure"),
        pytest.param(20.0, {"tokens_each": 152.0}, 3, id="a twentieth of an agent is none"),
        pytest.param(20.0, {"tokens_each": 156.0}, 4, id="more than that is one"),
        pytest.param(0.1, {"tokens_each": 400.0}, 0, id="little work is none"),
        pytest.param(20.0, {}, None, id="without an answer it cannot tell"),
        pytest.param(20.0, {"in_flight": 0}, 0, id="with nothing there it need not"),
        pytest.param(0.0, {"tokens_each": 150.0}, 0, id="where nothing comes it is nothing"),
        pytest.param(0.0, {}, None, id="what is there may be any work"),
        pytest.param(None, {"tokens_each": 150.0}, None, id="without a rate it cannot tell"),
    ],
)
def test_tokens_a_second(rate_rps, figures, agents):
    """By the work that comes: requests a second by the tokens of each."""
    want = alone({"target_tokens_per_s": 1000.0}, load(**figures), rate_rps)
    assert (want.rule, want.agents) == ("tokens", agents)


@pytest.mark.parametrize(
    "policy", [{"target_rps": 2.0}, {"target_tokens_per_s": 100.0}], ids=["rps", "tokens"]
)
def test_a_rate_is_over_when_people_say_it_is(policy):
    """Where the idle time is shorter than the minute of a rate, that minute asks for nothing more."""
    seen = load(tokens_each=50.0, in_flight=0)
    assert alone(policy, seen).agents == 5
    assert alone(policy, seen, is_over=True).agents == 0


def test_what_is_looked_at_is_kept():
    """The figures of targets that are set, and of no others."""
    seen = load(ttft_ms=12.34567, tokens_each=80.0, p95_ms=20.0, cpu_percent=55.0)
    assert figures_of(ScalingPolicy(), seen) == {}
    both = ScalingPolicy(target_ttft_ms=100.0, target_tokens_per_s=500.0)
    assert figures_of(both, seen) == {"ttft_ms": 12.346, "tokens_each": 80.0}
    all_four = replace(both, target_p95_ms=9.0, target_cpu_percent=60.0)
    assert figures_of(all_four, seen).keys() == {"ttft_ms", "tokens_each", "p95_ms", "cpu_percent"}


def counts(seconds, count):
    """So many requests that took so long, in buckets."""
    values = [0] * BUCKETS
    values[bucket_index(seconds)] = count
    return tuple(values)


def told(name, *, first_tokens=None, durations=None, tokens=None, finished=None):
    """What a gateway that began just now has counted."""
    return GatewayLoad(
        f"{name}@1", NOW, NOW + 1, 0.0, 1, 0, finished, finished, None, 0.0, durations, first_tokens, tokens
    )


def begun(policy):
    """A memory of gateways that had counted nothing yet."""
    gateways = tuple(
        told(name, first_tokens=counts(1, 0), durations=counts(1, 0), tokens=0, finished=0) for name in "ab"
    )
    return observe_signals(policy, replace(load(), gateways=gateways), ScalingState(NOW), NOW)[0]


@pytest.mark.parametrize(
    ("seconds", "other", "known"),
    [
        pytest.param(0.9, counts(0.01, 5), True, id="slow here, fast there"),
        pytest.param(0.9, None, True, id="what is over is enough to ask for more"),
        pytest.param(0.01, None, False, id="what is below says nothing of the gateway that does not tell"),
        pytest.param(0.01, counts(0.02, 9), True, id="all tell"),
    ],
)
@pytest.mark.parametrize("what", ["ttft", "p95"])
def test_a_gateway_that_does_not_count(what, seconds, other, known):
    """The others' figure may raise, and is none where it would let agents go."""
    field = {"ttft": "first_tokens", "p95": "durations"}[what]
    policy = replace(ScalingPolicy(), **{f"target_{what}_ms": 100.0})
    state = begun(policy)
    gateways = tuple(told(name, **{field: each}) for name, each in (("a", counts(seconds, 50)), ("b", other)))
    _, seen = observe_signals(policy, replace(load(), gateways=gateways), state, NOW + 1)
    figure = getattr(seen, f"{what}_ms")
    assert (figure is not None) == known
    if known:
        assert (figure > 100.0) == (seconds > 0.1)


def test_tokens_are_known_where_all_gateways_count_them():
    """The mean of all; None where one does not count tokens, or requests, or all count none."""
    policy = ScalingPolicy(target_tokens_per_s=1000.0)
    state = begun(policy)

    def mean(*gateways):
        return observe_signals(policy, replace(load(), gateways=gateways), state, NOW + 1)[1].tokens_each

    whole = told("a", finished=10, tokens=1000)
    assert mean(whole, told("b", finished=30, tokens=600)) == pytest.approx(40.0)
    assert mean(whole, told("b", finished=30)) is None
    assert mean(whole, told("b", tokens=600)) is None
    assert mean(told("b", finished=30, tokens=0)) is None


def test_what_is_not_asked_for_is_not_kept():
    """Without a target nothing of it is in the memory, nor after one was taken away."""
    gateways = (told("a", first_tokens=counts(0.1, 5), durations=counts(0.1, 5), tokens=9, finished=5),)
    seen = replace(load(), gateways=gateways)
    asked = ScalingPolicy(target_ttft_ms=100.0, target_p95_ms=100.0, target_tokens_per_s=10.0)
    state, _ = observe_signals(asked, seen, ScalingState(NOW), NOW)
    assert all(state.to_json()[name] for name in ("first_token", "latency", "work"))
    assert state_from_json(json.loads(json.dumps(state.to_json()))) == state
    state, _ = observe_signals(ScalingPolicy(), seen, state, NOW + 1)
    assert [state.to_json()[name] for name in ("first_token", "latency", "work")] == [None] * 3


def test_tokens_of_a_request_are_those_of_the_last_minute():
    """A restart counts anew, a lost report loses nothing, and what is old is forgotten."""
    work = observe_work(NO_WORK, [("g@0", NOW - 900, (1000, 50_000))], NOW)
    assert tokens_each(work) is None
    work = observe_work(work, [("g@0", NOW - 900, (1010, 51_000))], NOW + 7)
    assert tokens_each(work) == pytest.approx(100.0)
    work = observe_work(work, [], NOW + 20)
    work = observe_work(work, [("g@25", NOW + 25, (5, 1000))], NOW + 30)
    assert tokens_each(work) == pytest.approx(2000 / 15)
    assert work_from_json(json.loads(json.dumps(work.to_json()))) == work
    work = observe_work(work, [("g@25", NOW + 25, (5, 1000))], NOW + 68)
    assert tokens_each(work) == pytest.approx(200.0)
    assert tokens_each(observe_work(work, [], NOW + 100)) is None
    with pytest.raises(ValueError, match="3 counts, 2 are accepted"):
        work_from_json({"counters": {"g@0": [1, 2, 3]}})


def test_a_memory_of_before_these_targets_is_read():
    """What an older version kept is continued; both memories begin empty."""
    kept = replace(ScalingState(NOW), queued=3).to_json()
    del kept["first_token"], kept["work"]
    assert state_from_json(kept) == ScalingState(NOW, queued=3)


class Story:
    """A deployment whose requests have tokens and a time to first token, looked at each two seconds."""

    def __init__(self, *, current=2, **policy):
        self.policy = ScalingPolicy(
            **{
                "min_agents": 0,
                "max_agents": 40,
                "slots": 4.0,
                "stabilization_s": 14.0,
                "idle_s": 75.0,
                **policy,
            }
        )
        self.now, self.current, self.state, self.decision = NOW, current, None, None
        self.accepted = self.finished = self.tokens = 0
        self.first_tokens = [0] * BUCKETS

    def run(self, seconds, rate, *, tokens=100, ttft_s=0.03, stuck=False, cpu_percent=50.0, counted=True):
        """`stuck`: what comes is not answered."""
        for _ in range(0, seconds, 2):
            self.now += 2
            self.accepted += 2 * rate
            if not stuck:
                self.finished, self.tokens = self.finished + 2 * rate, self.tokens + 2 * rate * tokens
                self.first_tokens[bucket_index(ttft_s)] += 2 * rate
            gateway = GatewayLoad(
                "g@0", NOW, self.now, 0.0, self.accepted - self.finished or min(rate, 2), 0, self.accepted,
                self.finished, self.finished * 0.05, 0.0, None,
                tuple(self.first_tokens) if counted else None, self.tokens if counted else None,
            )  # fmt: skip
            seen = Load(self.current, self.current, (gateway,), cpu_percent=cpu_percent)
            self.decision = decide(self.policy, seen, self.state, self.now)
            self.state = state_from_json(json.loads(json.dumps(self.decision.state.to_json())))
            self.current = self.decision.replicas
        return self.current

    @property
    def wants(self):
        return {
            name.removeprefix("want_"): value
            for name, value in self.decision.inputs.items()
            if name.startswith("want_")
        }


def test_the_largest_of_all_targets_counts():
    """With every target set each asks by its own figure; what asks for most decides, and is named."""
    story = Story(
        target_rps=10.0, target_cpu_percent=60.0, target_ttft_ms=100.0, target_tokens_per_s=1000.0,
        max_agents=12,
    )  # fmt: skip
    story.run(70, 20, tokens=60)
    assert (story.wants["rps"], story.wants["tokens"], story.wants["ttft"]) == (2, 2, 0)
    assert story.run(70, 20, tokens=400) == 8  # as many requests, of more work
    assert (story.decision.kind, story.wants["rps"]) == ("tokens", 2)
    assert "20.00 requests/s of 400 tokens, target 1000/s an agent" in story.decision.reason
    assert story.decision.inputs["tokens_each"] == pytest.approx(400.0)
    story.run(4, 20, tokens=400, ttft_s=0.09)
    assert story.current == 8
    assert story.run(6, 20, tokens=400, ttft_s=2.0) == 12  # slow first tokens, until the maximum
    assert story.decision.kind == "ttft"
    assert story.decision.clamps[-1] == "max 12"
    assert story.run(120, 20, tokens=60, cpu_percent=20.0) in (2, 3)  # all is well again
    assert story.run(90, 0, cpu_percent=1.0) == 0
    assert story.decision.kind == "idle"


def test_work_that_is_stuck_lowers_nothing():
    """Where nothing is answered any more neither figure is known, and whoever is there stays."""
    targets = {"target_ttft_ms": 100.0, "target_tokens_per_s": 500.0}
    for policy, stays in ({}, False), (targets, True):
        story = Story(**policy)
        story.run(70, 10, tokens=200)
        story.run(2, 1, stuck=True)
        story.run(20, 0, stuck=True)
        story.current = 4
        assert (story.run(60, 0, stuck=True) == 4) == stays
        assert (story.decision.kind == "cannot_tell") == stays
    assert story.wants["ttft"] is None


def test_gateways_that_count_neither_lower_nothing():
    """An older gateway's figures are missing, not zero."""
    story = Story(target_ttft_ms=100.0, target_tokens_per_s=500.0)
    before = story.run(70, 10, tokens=200)
    assert story.run(90, 1, counted=False) == before == 4
    assert story.decision.kind == "cannot_tell"
    assert (story.wants["ttft"], story.wants["tokens"]) == (None, None)
    assert story.run(90, 1, tokens=20) < before


def test_a_short_idle_time_ends_the_rates_of_the_last_minute():
    """Ten seconds without a request are zero agents, whatever work the minute before brought."""
    story = Story(target_rps=1.0, target_tokens_per_s=100.0, idle_s=10.0, stabilization_s=5.0)
    assert story.run(70, 10) == 10
    story.finished = story.accepted
    assert story.run(25, 0) == 0
