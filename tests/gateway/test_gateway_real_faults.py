"""Real agent processes that are stopped or cut off under load: nobody sees an error, and they come back."""

import asyncio
import contextlib
import datetime as dt
import os
import signal
import time

import pytest
from agent_builders import AgentProcess, config_json
from gateway_harness import deployment, until

from appliance.policies.snapshot import AgentRoute

pytestmark = pytest.mark.slow


class Cable:
    """Passes bytes between a gateway and an agent, until it is cut: then neither end is told."""

    def __init__(self, port):
        self._to = port
        self._joined = asyncio.Event()
        self._joined.set()
        self._tasks = set()

    async def start(self):
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def cut(self):
        self._joined.clear()

    def join(self):
        self._joined.set()

    async def close(self):
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.CancelledError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
            await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))

    async def _pass(self, reader, writer):
        try:
            while piece := await reader.read(1 << 16):
                await self._joined.wait()
                writer.write(piece)
        finally:
            writer.transport.abort()


class Machine:
    """An agent process, the cable to it, and what the route snapshot says of it."""

    def __init__(self, process, cable, route):
        self.id = route.id
        self.process, self.cable, self._route = process, cable, route

    def route(self):
        return self._route

    def signal(self, number):
        os.kill(self.process.process.pid, number)


@pytest.fixture
async def machines(authority, tmp_path):
    """Three agents that take 10 ms for a request, two at a time."""
    made = [await _make_machine(authority, tmp_path / f"machine-{number}") for number in range(3)]
    yield made
    for machine in made:
        await machine.cable.close()
        machine.process.close()


async def _make_machine(authority, folder):
    folder.mkdir()
    issued = authority.issue_server(folder.name, ["127.0.0.1"], dt.datetime.now(dt.UTC))
    contents = {
        "cert.pem": issued.certificate_pem,
        "key.pem": issued.key_pem,
        "ca.pem": authority.certificate_pem,
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    tls = {
        "ca": str(folder / "ca.pem"),
        "certificate": str(folder / "cert.pem"),
        "key": str(folder / "key.pem"),
    }
    config = config_json({
        "agent": folder.name, "deployment": "mini", "revision": "r1", "tls": tls, "workers": 2,
        "batch_size": 1, "admits": 4, "fake_service_ms": 10.0,
    })  # fmt: skip
    process = AgentProcess(folder, config)
    cable = await Cable(await process.port()).start()
    route = AgentRoute(
        id=folder.name, deployment="mini", node="box", host="127.0.0.1", port=cable.port,
        certificates=(issued.sha256,), wanted="warm", slots=2, ahead=1,
    )  # fmt: skip
    return Machine(process, cable, route)


class Load:
    """Clients that ask one request after the other, and how long the slowest took."""

    def __init__(self, gateway, clients):
        self.statuses, self.slowest_s = set(), 0.0
        self._gateway, self._ended = gateway, False
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(clients)]

    async def _ask(self):
        while not self._ended:
            began = time.monotonic()
            self.statuses.add((await self._gateway.embed()).status)
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            await asyncio.sleep(0.01)

    async def end(self):
        self._ended = True
        await asyncio.gather(*self._tasks)


async def test_a_stopped_process(gateway, machines):
    """Ejected in half a second, no request fails or waits for a second; continued it serves again."""
    slots = await serve(gateway, machines)
    load = Load(gateway, 6)
    for _ in range(2):
        stopped = machines[0]
        await until(lambda: slots[0].in_flight, 20)
        stopped.signal(signal.SIGSTOP)
        began = time.monotonic()
        await until(lambda: gateway.state(stopped) == "ejected")  # noqa: B023 - awaited at once
        assert time.monotonic() - began < 4.0  # 0.5 s where nothing else runs
        answered = slots[0].answered
        stopped.signal(signal.SIGCONT)
        await until(lambda: slots[0].answered > answered + 5, 20)  # noqa: B023 - awaited at once
    await load.end()
    assert load.statuses == {200}
    assert load.slowest_s < 4.0  # without ejection: until the deadline, 60 s
    await gateway.assert_conserved()


async def test_a_cut_link(gateway, machines):
    """No request fails or waits for much more than a second; joined again it is connected anew and used."""
    slots = await serve(gateway, machines)
    load = Load(gateway, 6)
    await until(lambda: slots[0].in_flight, 20)
    machines[0].cable.cut()
    await until(lambda: gateway.state(machines[0]) == "ejected")
    await until(lambda: gateway.state(machines[0]) == "connecting", 20)
    answered = slots[0].answered
    machines[0].cable.join()
    await until(lambda: slots[0].answered > answered + 5, 20)
    await load.end()
    assert load.statuses == {200}
    assert load.slowest_s < 4.0  # without ejection: until the deadline, 60 s
    await gateway.assert_conserved()


async def serve(gateway, machines):
    await gateway.serve_by(*machines, deployments=[deployment(max_agents=3)])
    await gateway.ready(*machines)
    slots = [gateway.gateway.fleet.agents[machine.id].slots for machine in machines]
    await until(lambda: all(one.beat for one in slots))
    return slots
