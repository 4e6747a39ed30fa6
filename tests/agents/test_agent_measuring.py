"""An agent that measures itself, out of rotation meanwhile; and what it learns by serving."""

import asyncio
import json

import pytest
from agent_builders import WAIT_S, AgentProcess, Pki, config_json, fetch, wait_for
from test_agent_service import TLS, GatedEngine, send, serving

from agents.calibrate import Stopped
from agents.config import BATCH_BUDGET_MS, parse_config
from agents.engines.fake import FakeEngine
from agents.errors import BadTransition
from agents.protocol import AgentState, LoadReport, Refusal
from agents.service_line import EVIDENCE


@pytest.fixture(autouse=True)
def _short_cells(monkeypatch):
    """Measure for milliseconds: what is found does not matter here."""
    monkeypatch.setattr("agents.calibrate.CELL_S", 0.005)
    monkeypatch.setattr("agents.calibrate.BUDGET_S", 0.5)


async def test_measures_out_of_rotation():
    """What it holds is answered first, new work goes elsewhere meanwhile, and then it serves as before."""
    engine = GatedEngine()
    async with serving(engine, workers=1, fake_service_ms=1) as service:
        states: list[AgentState] = []
        service.listeners.add(lambda report: states.append(report.state))
        answers: list = []
        send(service, answers)
        measuring = asyncio.ensure_future(service.model.calibrate())
        await wait_for(lambda: service.state is AgentState.LOADING)
        assert send(service, answers) is Refusal.LOADING
        assert not measuring.done()
        engine.gate.release()
        measured = await measuring
        assert len(answers) == 1
        assert measured.capacity_rps > 0
        await wait_for(lambda: service.state is AgentState.READY)
        assert AgentState.LOADING in states
        engine.gate.release()
        send(service, answers)
        await wait_for(lambda: len(answers) == 2)
        assert [answer.status for answer in answers] == [200, 200]


async def test_measures_once_at_a_time_and_only_when_ready():
    """A second measurement at the same time is refused, and so is one of a parked agent."""
    async with serving(FakeEngine(0.0), fake_service_ms=1) as service:
        measuring = asyncio.ensure_future(service.model.calibrate())
        await wait_for(lambda: service.state is AgentState.LOADING)
        with pytest.raises(BadTransition):
            await service.model.calibrate()
        await measuring
        await wait_for(lambda: service.state is AgentState.READY)
        await service.model.park()
        with pytest.raises(BadTransition):
            await service.model.calibrate()


async def test_told_to_end_it_ends_at_once():
    """A drain calls a measurement off; nothing is loaded again."""
    async with serving(FakeEngine(0.0), fake_service_ms=20, fake_service_per="sequence") as service:
        measuring = asyncio.ensure_future(service.model.calibrate())
        await wait_for(lambda: service.state is AgentState.LOADING)
        await service.drain()
        with pytest.raises(Stopped):
            await measuring
        assert service.state is AgentState.DRAINING


async def test_learns_from_what_it_serves():
    """After some batches its reports tell how long they take, and how much it can do."""
    async with serving(FakeEngine(0.002), workers=1) as service:
        assert service.report().capacity_rps == 0.0
        answers: list = []
        for number in range(EVIDENCE + 5):
            send(service, answers, "word " * (1 + number % 8))
            await wait_for(lambda wanted=number + 1: len(answers) == wanted)
        report = service.report()
        assert 0.002 <= report.fixed_s + 10 * report.per_token_s < 0.1
        assert 0 < report.capacity_rps < 4 / 0.002
        assert (report.engine, report.engine_version, report.threads) == ("fake", "1", 1)
        assert LoadReport.from_json(report.to_json()) == report


def test_reports_of_older_agents_are_understood():
    """What an older agent does not say is not known, and no error."""
    fields = {
        "protocol": 1, "agent": "a", "deployment": "d", "revision": "r", "state": "ready", "workers": 1,
        "batch_size": 8, "admits": 16, "executing": 0, "waiting": 0, "accepted_total": 0,
        "answered_total": 0, "refused_total": 0, "sequences_total": 0, "tokens_total": 0,
        "body_bytes_total": 0, "busy_s_total": 0.0, "cpu_percent": 0.0, "node_cpu_percent": 0.0,
        "rss_bytes": 0, "node_available_bytes": 0, "uptime_s": 1.0,
    }  # fmt: skip
    report = LoadReport.from_json(json.dumps(fields).encode())
    assert (report.threads, report.capacity_rps, report.fixed_s) == (0, 0.0, 0.0)


def test_budget_is_optional():
    """Configurations without a latency budget have the usual one."""
    given = config_json({"tls": TLS})
    assert parse_config(json.dumps(given).encode()).batch_budget_ms == BATCH_BUDGET_MS
    assert parse_config(json.dumps(given | {"batch_budget_ms": 20}).encode()).batch_budget_ms == 20.0


@pytest.mark.slow
async def test_measured_over_http(tmp_path):
    """A running agent measures itself when it is asked to, answers with figures, and serves again."""
    pki = Pki(tmp_path)
    agent = AgentProcess(tmp_path, config_json({"tls": pki.tls, "fake_service_ms": 1}))
    try:
        port, context = await agent.port(), pki.context(pki.client)
        await wait_ready(port, context)
        status, _, body = await fetch(port, context, "POST", "/calibrate")
        assert status == 200
        assert json.loads(body)["capacity_rps"] > 100
        await wait_ready(port, context)
        again, _, _ = await fetch(port, context, "POST", "/v1/embeddings", b'{"model": "tiny", "input": "a"}')
        assert again == 200
    finally:
        agent.close()


async def wait_ready(port, context) -> None:
    """Ask until it is."""
    async with asyncio.timeout(WAIT_S):
        while (await fetch(port, context, "GET", "/readyz"))[0] != 200:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)
