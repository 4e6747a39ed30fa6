"""Beats: what an agent tells a gateway that has asked for them, and how often."""

import asyncio
import contextlib
import json
import threading

import pytest
from agent_builders import WAIT_S, config_json, wait_for
from hypothesis import given
from hypothesis import strategies as st

from agents.config import parse_config
from agents.engines.fake import FakeEngine
from agents.link import LinkProtocol
from agents.protocol import (
    AgentState,
    Answer,
    Beat,
    FrameReader,
    Kind,
    LoadReport,
    ProtocolError,
    Request,
    build_answer,
    build_beat,
    build_frame,
    build_pace,
    build_request,
    parse_answer,
    parse_beat,
    parse_pace,
)
from agents.sensors import Sensors
from agents.service import AgentService

BODY = json.dumps({"model": "tiny", "input": "the fox"}).encode()


class GatedEngine(FakeEngine):
    """Computes only when it is let."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.gate = threading.Semaphore(0)

    def infer(self, sequences):
        assert self.gate.acquire(timeout=WAIT_S)
        return super().infer(sequences)


class Wire:
    """A gateway's end of a link, without a network: what it was sent, write by write."""

    def __init__(self, service: AgentService) -> None:
        self.writes: list[list[tuple[Kind, bytes]]] = []
        self.times: list[float] = []
        self._frames = FrameReader()
        self.protocol = LinkProtocol(service, set())
        self.protocol.connection_made(self)

    def write(self, raw):
        got = [(kind, payload) for kind, _, payload in self._frames.feed(raw)]
        self.writes.append(got)
        self.times += [asyncio.get_running_loop().time() for kind, _ in got if kind is Kind.BEAT]

    def feed(self, raw):
        self.protocol.get_buffer(len(raw))[: len(raw)] = raw
        self.protocol.buffer_updated(len(raw))

    @property
    def beats(self):
        return [parse_beat(payload) for got in self.writes for kind, payload in got if kind is Kind.BEAT]

    def is_closing(self):
        return False

    def get_extra_info(self, _name):
        return None

    def set_write_buffer_limits(self, _high):
        pass

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass

    def close(self):
        pass


@contextlib.asynccontextmanager
async def linked():
    """An agent that is ready, and a link to it."""
    tls = {"ca": "/ca", "certificate": "/cert", "key": "/key"}
    engine = GatedEngine()
    service = AgentService(parse_config(json.dumps(config_json({"tls": tls})).encode()), engine)
    service.start()
    wire = Wire(service)
    try:
        await wait_for(lambda: service.state is AgentState.READY)
        yield wire, engine
    finally:
        wire.protocol.connection_lost(None)
        for _ in range(100):
            engine.gate.release()
        await service.close()


@pytest.mark.slow
@given(
    st.builds(
        Beat,
        st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF), st.integers(0, 100), st.integers(0, 100),
    )
)  # fmt: skip
def test_a_beat_comes_back(beat):
    """Whatever fits is told as it is, in 17 bytes."""
    raw = build_beat(beat)
    assert len(raw) == 17
    [(kind, stream, payload)] = FrameReader().feed(raw)
    assert (kind, stream, parse_beat(payload)) == (Kind.BEAT, 0, beat)


def test_a_beat_beyond_its_fields():
    """What is larger is told as the largest there is."""
    [(_, _, payload)] = FrameReader().feed(build_beat(Beat(1 << 20, 1 << 40, 180, -3)))
    assert parse_beat(payload) == Beat(0xFFFF, 0xFFFFFFFF, 100, 0)


@pytest.mark.parametrize("parse", [parse_beat, parse_pace])
@pytest.mark.parametrize("payload", [b"", b"\0" * 3, b"\0" * 40])
def test_payloads_that_are_none(parse, payload):
    """Too short and too long are a breach of the protocol."""
    with pytest.raises(ProtocolError):
        parse(payload)


@pytest.mark.parametrize(("asked_ms", "taken_ms"), [(0, 100), (100, 100), (2500, 2500)])
def test_no_pace_is_quicker_than_that_of_work(asked_ms, taken_ms):
    """A pace of nothing would be a busy loop."""
    [(_, _, payload)] = FrameReader().feed(build_pace(asked_ms))
    assert parse_pace(payload) == taken_ms


def test_a_load_report_of_before_there_were_beats():
    """It lacks the name, and is understood as an agent that does not beat."""
    older = json.loads(
        LoadReport(1, "a", "d", "r", AgentState.READY, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0,
                   0, 0, 0.0, beats=True).to_json()
    )  # fmt: skip
    del older["beats"]
    assert LoadReport.from_json(json.dumps(older).encode()).beats is False


async def test_who_did_not_ask_gets_no_beats():
    """A gateway that does not know them would break the link off."""
    async with linked() as (wire, engine):
        wire.feed(build_request(1, Request(0, "/v1/embeddings", "", BODY)))
        engine.gate.release()
        await wait_for(lambda: any(kind is Kind.ANSWER for got in wire.writes for kind, _ in got))
        assert wire.protocol._beat_timer is None
        assert wire.beats == []


async def test_beats_come_at_the_pace():
    """The first at once, the others in steps of the pace."""
    async with linked() as (wire, _):
        wire.feed(build_pace(100))
        await wait_for(lambda: len(wire.times) == 4)
        assert wire.times[3] - wire.times[0] >= 0.28
        assert wire.beats[-1][:2] == (0, 0)


async def test_work_quickens_a_slow_pace():
    """Idle it beats once a minute; with work of this gateway each 100 ms, and tells of it."""
    async with linked() as (wire, engine):
        wire.feed(build_pace(60_000))
        await wait_for(lambda: len(wire.beats) == 1)
        for stream in range(1, 11):
            wire.feed(build_request(stream, Request(0, "/v1/embeddings", "", BODY)))
        await wait_for(lambda: len(wire.beats) == 4)
        assert wire.beats[-1][:2] == (8, 2)
        for _ in range(10):
            engine.gate.release()
        await wait_for(lambda: wire.protocol._tickets == {})
        await wait_for(lambda: wire.protocol._beat_due > asyncio.get_running_loop().time() + 10)


async def test_a_beat_that_is_due_rides_on_an_answer():
    """One write carries both."""
    async with linked() as (wire, engine):
        wire.feed(build_pace(60_000))
        await wait_for(lambda: len(wire.beats) == 1)
        wire.feed(build_request(1, Request(0, "/v1/embeddings", "", BODY)))
        wire.protocol._beat_due = asyncio.get_running_loop().time()
        engine.gate.release()
        await wait_for(lambda: len(wire.beats) == 2)
        assert [kind for kind, _ in wire.writes[-1]] == [Kind.ANSWER, Kind.BEAT]


async def test_a_gateway_that_does_not_read_is_sent_no_more_beats():
    """Else they would pile up for as long as it lives."""
    async with linked() as (wire, _):
        wire.protocol.pause_writing()
        wire.feed(build_pace(100))
        due = wire.protocol._beat_due
        await wait_for(lambda: wire.protocol._beat_due > due + 0.2)
        assert wire.beats == []
        wire.protocol.resume_writing()
        await wait_for(lambda: wire.beats)


async def test_a_pace_that_is_none_closes_the_link():
    """As any other breach does."""
    async with linked() as (wire, _):
        wire.abort = lambda: wire.writes.append("aborted")
        wire.feed(build_frame(Kind.PACE, 0, b"never"))
        assert wire.writes[-1] == "aborted"


def test_processor_use_is_measured_at_most_each_80_ms(monkeypatch):
    """Who asks more often gets what was measured last."""
    sensors, now = Sensors(), 1000.0
    sensors._cpu_at, sensors._cores = now, 2
    sensors._own_s, sensors._busy_s, sensors._all_s = 10.0, 100.0, 1000.0
    monkeypatch.setattr("agents.sensors._cpu_seconds", lambda: (10.1, 100.15, 1000.2))
    assert sensors.read_cpu(now + 0.05) == (0, 0)
    assert sensors.read_cpu(now + 0.1) == (50, 75)
    monkeypatch.setattr("agents.sensors._cpu_seconds", lambda: pytest.fail("measured again"))
    assert sensors.read_cpu(now + 0.11) == (50, 75)


async def test_sensors_that_fail_cost_no_report_and_no_beat(monkeypatch):
    """Where no file can be opened any more, what was measured last is told."""
    monkeypatch.setattr("agents.service.REPORT_EVERY_S", 0.02)
    async with linked() as (wire, _):
        wire.feed(build_frame(Kind.PACE, 0, build_pace(100)[9:]))

        def fail(*_):
            raise OSError(24, "too many open files")

        monkeypatch.setattr("agents.sensors._cpu_seconds", fail)
        monkeypatch.setattr(Sensors, "read", fail)
        heard = len(wire.writes)
        before = len(wire.beats)
        await wait_for(lambda: len(wire.beats) > before + 1 and len(wire.writes) > heard + 10)


async def test_an_answer_that_fits_into_no_frame_is_an_error(monkeypatch):
    """The other side would break off the link, and the next agents' links as well."""
    monkeypatch.setattr("agents.link.MAX_ANSWER_BYTES", 100)
    async with linked() as (wire, engine):
        engine.gate.release()
        wire.feed(build_request(7, Request(0, "/v1/embeddings", "r", BODY)))

        def answers():
            return [payload for got in wire.writes for kind, payload in got if kind is Kind.ANSWER]

        await wait_for(answers)
        answer = parse_answer(answers()[0])
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (400, "answer_too_large")


def test_time_beyond_its_field():
    """An answer that took more than 71 minutes can be sent."""
    raw = build_answer(1, Answer(200, 0, 0, 1 << 40, "a/b", b""))
    [(_, _, payload)] = FrameReader().feed(raw)
    assert parse_answer(payload).processing_us == 0xFFFFFFFF
