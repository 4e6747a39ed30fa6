"""What the loop records of each tick: complete, consistent with its state, small and bounded."""

import pytest
from control_builders import START, Stage, add_model
from django.db import DatabaseError
from fleet_builders import histogram

from appliance.control import lease
from appliance.control.inputs import KEPT_S, prune_inputs, read_ticks
from appliance.deployments import deploy
from appliance.models import Decision, Deployment, RecordedTick
from appliance.simulate.recorded import verify

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "history"])


def deploy_mini():
    add_model()
    deploy("mini", model="tiny", min_agents=0, max_agents=4, actor="test")


def work(stage, ticks, accepted, **given):
    """Requests come, a few a second, each of a fifth of a second; how many have come by then."""
    for _ in range(ticks):
        accepted += 3
        stage.tick(accepted=accepted, executed=accepted, service_s=accepted / 5, **given)
    return accepted


@pytest.mark.slow
def test_every_tick_is_decided_again_as_it_was(stage):
    """Through load, silence and a new worker: each recorded decision follows from what is recorded."""
    deploy_mini()
    accepted = work(stage, 8, 0, in_flight=9, queued=30)
    for _ in range(4):
        stage.tick(report=False)
    accepted = work(stage, 4, accepted, in_flight=2)
    lease.release(stage.loop.owner)
    successor = Stage(owner="test:2:2", node=stage.node)
    successor.now, successor.concurrency_s = stage.now, stage.concurrency_s
    work(successor, 6, accepted, in_flight=1)
    ticks = list(read_ticks("mini"))
    found = verify(ticks)
    assert (found.equal, found.ticks, found.longest_gap_s) == (True, 22, 1.0)
    assert [tick.whole for tick in ticks].count(True) == 2
    assert len({tick.given.load.current for tick in ticks}) > 1
    assert {tick.given.answer.valid for tick in ticks} == {True, False}
    successor.lane.close()


def test_first_tokens_and_tokens_are_decided_again(stage):
    """With targets for them: what gateways counted is in the record, and what each rule asked in the row."""
    deploy_mini()
    Deployment.objects.update(scaling={"target_ttft_ms": 100, "target_tokens_per_s": 50})
    for number in range(1, 9):
        answered = 3 * number
        stage.tick(
            accepted=answered, executed=answered, service_s=answered / 5, tokens=answered * 40, in_flight=1,
            first_token=histogram(b5=3, b17=answered - 3),
        )  # fmt: skip
    found = verify(read_ticks("mini"))
    assert (found.equal, found.ticks) == (True, 8)
    row = Decision.objects.order_by("-pk").first()
    assert row.inputs["want_ttft"] > 1
    assert (row.inputs["tokens_each"], row.inputs["ttft_ms"] > 100) == (40.0, True)
    assert (row.policy["target_ttft_ms"], row.policy["target_tokens_per_s"]) == (100, 50)
    *_, last = read_ticks("mini")
    [gateway] = last.given.load.gateways
    assert (sum(gateway.first_tokens), gateway.tokens, gateway.durations) == (24, 960, None)


def test_state_and_input_are_written_together(stage, monkeypatch):
    """Where the transaction fails neither is there, and the next tick goes on from what is."""
    deploy_mini()
    accepted = work(stage, 3, 0)
    before = Deployment.objects.get().scaling_state

    def refuse(*_):
        raise DatabaseError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(stage.loop._outside.office, "record", refuse)
        with pytest.raises(DatabaseError):
            work(stage, 1, accepted)
    assert RecordedTick.objects.count() == 3
    assert Deployment.objects.get().scaling_state == before
    work(stage, 2, accepted)
    found = verify(read_ticks("mini"))
    assert (found.equal, found.ticks) == (True, 5)


def test_memory_changed_from_outside_is_told(stage):
    """Where somebody changed the policy's memory the tick is recorded whole, and a replay says when."""
    deploy_mini()
    work(stage, 3, 0)
    Deployment.objects.update(scaling_state={})
    work(stage, 3, 9)
    found = verify(read_ticks("mini"))
    assert (found.different, found.breaks) == (0, [START + 4])
    assert not found.equal


@pytest.mark.slow
def test_idle_ticks_are_small(stage):
    """With nothing to tell but the time a tick takes less than 50 bytes of each deployment."""
    add_model()
    for number in range(20):
        deploy(f"d{number}", model="tiny", min_agents=0, max_agents=4, actor="test")
    for _ in range(3):
        stage.tick(name="d0")
    assert len(bytes(RecordedTick.objects.last().body)) < 1000
    assert len(list(read_ticks("d19"))) == 3


def test_what_is_old_goes(stage):
    """Beyond two hours, and the ten minutes to the last whole tick, nothing is kept."""
    deploy_mini()
    stage.tick()
    stage.tick()
    prune_inputs(START + KEPT_S)
    assert RecordedTick.objects.count() == 2
    prune_inputs(START + KEPT_S + 602)
    assert [row.at for row in RecordedTick.objects.all()] == [START + 2]
    assert list(read_ticks("mini")) == []


def test_a_decision_tells_what_it_was_made_from(stage):
    """A row has each rule's want, what the policy has otherwise than by default, and who was heard."""
    deploy_mini()
    for number in range(1, 12):
        stage.tick(accepted=200 * number, executed=200 * number, service_s=40.0 * number)
    row = Decision.objects.filter(after__gt=1).first()
    assert row.policy["max"] == 4
    assert row.gateways == [f"gateway-1@{START:.3f}"]
    assert row.kind == "load"
    assert row.inputs["want_wait"] == row.want


def test_a_damaged_row_is_left_out(stage):
    """What cannot be read is passed over, up to the next tick that was recorded whole."""
    deploy_mini()
    stage.tick()
    stage.tick()
    row = RecordedTick.objects.first()
    row.body = b"damaged"
    row.save()
    assert list(read_ticks("mini")) == []
