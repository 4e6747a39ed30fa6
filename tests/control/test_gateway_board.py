"""What is known of gateways, and the threads that listen to them."""

import threading
from dataclasses import replace

from fleet_builders import NOW, gateway_report

from appliance.control.gateway_board import GatewayBoard, Listeners
from appliance.control.runtime import Share
from appliance.policies.report import GenerationEvent, WantEvent
from appliance.policies.snapshot import Generation

HELD = WantEvent("gateway-1", NOW, "mini", "held")


def test_fresh_silent_and_gone_are_three_things():
    """A report counts for 3 s, then its gateway is silent; one that closed is forgotten."""
    board = GatewayBoard()
    board.hear("gateway-1", gateway_report(), NOW)
    assert (len(board.view(NOW + 2.9).reports), board.view(NOW + 2.9).silent) == (1, ())
    late = board.view(NOW + 3)
    assert (late.reports, late.silent, late.heard_since) == ((), ("gateway-1",), None)
    board.lose("gateway-1")
    assert board.view(NOW + 3).silent == ()


def test_heard_since_starts_anew_after_a_gap():
    """Agents are only judged by what was heard without a gap."""
    board = GatewayBoard()
    for second in range(5):
        board.hear("gateway-1", gateway_report(), NOW + second)
    assert board.view(NOW + 4).heard_since == NOW
    board.hear("gateway-1", gateway_report(), NOW + 60)
    assert board.view(NOW + 60).heard_since == NOW + 60


def test_generation_event_is_taken_over_at_once():
    """The handshake need not wait for the next report."""
    board = GatewayBoard()
    board.hear("gateway-1", gateway_report(number=1), NOW)
    assert not board.hear("gateway-1", GenerationEvent("gateway-1", NOW, Generation("e", 2)), NOW)
    assert board.view(NOW).reports == (replace(gateway_report(), generation=Generation("e", 2)),)


def test_want_calls_the_loop():
    """Both wants hurry the loop; a held request is remembered for a moment."""
    board = GatewayBoard()
    assert board.hear("gateway-1", HELD, NOW)
    assert board.view(NOW + 1).held == {"mini"}
    assert board.view(NOW + 4).held == set()
    assert board.hear("gateway-1", replace(HELD, reason="agent_lost"), NOW)
    assert board.view(NOW + 4).held == set()


def test_a_queue_calls_the_loop_by_its_own_way(tmp_path):
    """What tells of a queue goes where it may be left alone; it holds no request."""
    (tmp_path / "gateway-1.sock").touch()
    board, wanted, queued = GatewayBoard(), threading.Semaphore(0), threading.Semaphore(0)

    def read(path, *, silence_s):
        yield replace(HELD, reason="queued")
        raise ConnectionResetError

    listeners = Listeners(tmp_path, board, wanted.release, on_queue=queued.release, read=read)
    thread = threading.Thread(target=listeners.run)
    thread.start()
    assert queued.acquire(timeout=10)
    listeners.stop()
    thread.join(10)
    assert not wanted.acquire(blocking=False)
    assert board.view(NOW).held == set()


def test_ticks_for_queues_take_a_fifth_of_the_time():
    """After one of 0.3 s none begins for 1.2 s."""
    share = Share()
    assert share.allows(0.0)
    share.ran(10.0, 10.3)
    assert not share.allows(11.4)
    assert share.allows(11.6)


def test_listeners_follow_each_gateway(tmp_path):
    """Each socket gets a thread; wants are passed on, and a gateway that closes is lost, then tried again."""
    (tmp_path / "gateway-1.sock").touch()
    board, wanted, connections = GatewayBoard(), threading.Semaphore(0), []

    def read(path, *, silence_s):
        connections.append(path.stem)
        yield gateway_report()
        yield HELD
        raise ConnectionResetError

    listeners = Listeners(tmp_path, board, wanted.release, read=read)
    thread = threading.Thread(target=listeners.run)
    thread.start()
    assert wanted.acquire(timeout=10)
    assert wanted.acquire(timeout=10)  # the second connection
    listeners.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert connections[:2] == ["gateway-1", "gateway-1"]
