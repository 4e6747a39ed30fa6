"""Recorded inputs decided again: equal row by row, and told where they are not."""

import json
from dataclasses import dataclass, field, replace

import pytest

from appliance.plain_values import apply_changes, changes_between, from_plain, to_plain
from appliance.policies.scaling import Decision, GatewayLoad, Load, ScalingPolicy, ScalingState, decide
from appliance.policies.schedules import parse_schedule
from appliance.simulate.plant import Plant, replay
from appliance.simulate.policies.ours import default_policy
from appliance.simulate.recorded import Answer, Given, Tick, answer_of, verify
from appliance.simulate.synthetic import burst

PLANT = Plant()


@dataclass
class Recording:
    """Decides on the plant as the loop does, and keeps what the loop records."""

    policy: ScalingPolicy
    name: str = "recording"
    initial: int = 1
    state: ScalingState | None = None
    ticks: list[Tick] = field(default_factory=list)

    def want(self, seen):
        gateway = GatewayLoad(
            "plant", 0.0, seen.now, seen.concurrency_s, seen.in_flight, seen.queued, seen.accepted,
            seen.finished, seen.service_s,
        )  # fmt: skip
        load = Load(seen.current, seen.ready, (gateway,), held=seen.held)
        decision: Decision = decide(self.policy, load, self.state, seen.now)
        whole = len(self.ticks) % 100 == 0
        state = self.state.to_json() if whole and self.state is not None else None
        given = Given(self.policy, load, answer_of(decision))
        self.ticks.append(Tick(seen.now, given, state, whole=whole))
        self.state = decision.state
        return decision.replicas


@pytest.fixture(scope="module")
def ticks():
    recording = Recording(replace(default_policy(PLANT), season_s=300.0))
    replay(burst(5, duration_s=420.0), recording, PLANT)
    return recording.ticks


@pytest.mark.parametrize("reload_every_s", [None, 10.0])
def test_all_is_equal(ticks, reload_every_s):
    """Each decision and its reason comes out again, also with the memory saved and loaded every 10 s."""
    found = verify(ticks, reload_every_s=reload_every_s)
    assert found.equal
    assert (found.ticks, found.different, found.breaks) == (len(ticks), 0, [])
    assert found.ticks >= 210
    assert len({tick.given.load.current for tick in ticks}) > 5
    assert (found.first, found.last) == (ticks[0].now, ticks[-1].now)


def test_a_decision_that_does_not_follow_is_found(ticks):
    """One number that was not decided so is told of, with both answers."""
    given = ticks[50].given
    forged = replace(given, answer=replace(given.answer, replicas=63))
    found = verify([*ticks[:50], replace(ticks[50], given=forged), *ticks[51:]])
    assert not found.equal
    (one,) = found.differences
    assert (one.at, one.recorded.replicas, one.replayed) == (ticks[50].now, 63, given.answer)


def test_a_tick_that_is_missing_is_found(ticks):
    """Without a tick in which requests came the memory is another from then on."""
    found = verify([*ticks[:30], *ticks[33:]])
    assert not found.equal
    assert found.breaks == [ticks[100].now]
    assert found.longest_gap_s == pytest.approx(8.0)


def test_nothing_recorded_is_equal():
    """Of no ticks there is nothing to find."""
    assert verify([]).equal
    assert verify([]).first is None


def test_what_is_recorded_is_read_as_it_was():
    """Every field of policy and load, also those within others, survives JSON."""
    schedule = parse_schedule("mon-fri 08:00-18:00 Europe/Berlin min=3 max=9")
    policy = ScalingPolicy(max_agents=9, slots=1.5, schedules=(schedule,), target_rps=2.0)
    gateway = GatewayLoad("g@1", 1.0, 2.0, 0.1 + 0.2, 1, 2, 3, 4, 5.5, 0.25, (0, 1, 2), (2, 1, 0), 700)
    load = Load(2, 1, (gateway,), complete=False, held=True, cpu_percent=1 / 3)
    given = Given(policy, load, answer_of(decide(policy, load, None, 1_800_000_000.0)))
    assert from_plain(Given, json.loads(json.dumps(to_plain(given)))) == given


def test_what_was_recorded_before_tokens_were_counted_is_read():
    """Whole or as what changed: what it does not have is unknown, and the rest is as it was."""
    policy = ScalingPolicy(max_agents=9, slots=1.5, target_p95_ms=80.0)
    gateways = [GatewayLoad("g@1", 1.0, 2.0, 0.3, 1, 2, count, count, 0.5, 0.0, (0, 1)) for count in (3, 8)]
    before, after = (Given(policy, Load(2, 1, (one,), cpu_percent=7.0), Answer(2)) for one in gateways)
    plain = to_plain(before)
    for values, names in (
        (plain["policy"], ("target_ttft_ms", "target_tokens_per_s")),
        (plain["load"], ("ttft_ms", "tokens_each")),
        (plain["load"]["gateways"][0], ("first_tokens", "tokens")),
    ):
        for name in names:
            del values[name]
    assert from_plain(Given, json.loads(json.dumps(plain))) == before
    assert apply_changes(before, json.loads(json.dumps(changes_between(before, after)))) == after
