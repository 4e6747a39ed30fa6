"""How long the first answer takes where no agent is warm: of one that is parked, and of one that is stopped.

One gateway, one agent, no control plane: the gateway resumes a parked agent itself. A stopped one is started
in the moment of the request, as the control loop does within a tick.
"""

import concurrent.futures
import http.client
import json
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from agents.protocol import PATH_PARK
from appliance.control.ask import request_agent
from tests.bench.inputs import MODEL_NAME
from tests.bench.plant import AgentKind, Plant
from tests.bench.processes import BenchError
from tests.bench.report import Mark, render_table

TOGETHER = 200
PARKED_MS = 200.0
STOPPED_MS = 1500.0
FAKE, REAL = "fixed 50 ms", "MiniLM"
_STATE_S = 30.0
_ANSWER_S = 60.0


@dataclass(frozen=True, slots=True)
class ColdStarts:
    """Of one kind of agent: milliseconds to the first answer, round by round; and of many requests at once.

    `together` says how many of them were answered, `last_ms` after how long the last was.
    """

    kind: str
    parked_ms: list[float] = field(default_factory=list)
    stopped_ms: list[float] = field(default_factory=list)
    together: int = 0
    last_ms: float = 0.0


def measure_cold_start(model: Path, scratch: Path, rounds: int) -> list[ColdStarts]:
    """Each kind of agent, so many rounds. Raises BenchError where one does not come back."""
    kinds = {
        FAKE: AgentKind(service_ms=50.0),
        REAL: AgentKind(model_dir=model, workers=2, batch_size=8),
    }
    return [
        _measure(name, kind, scratch / f"cold-{n}", rounds) for n, (name, kind) in enumerate(kinds.items())
    ]


def _measure(name: str, kind: AgentKind, scratch: Path, rounds: int) -> ColdStarts:
    found = ColdStarts(name)
    with Plant(scratch, [kind]) as plant:
        _ask(plant)
        for _ in range(rounds):
            _park(plant)
            found.parked_ms.append(_ask(plant))
        _park(plant)
        with concurrent.futures.ThreadPoolExecutor(TOGETHER) as pool:
            took = list(pool.map(lambda _: _ask(plant), range(TOGETHER)))
        found = replace(found, together=len(took), last_ms=max(took))
        for _ in range(rounds):
            plant.agents[0].end()
            _wait(plant, "connecting")
            found.stopped_ms.append(_ask(plant, plant.agents[0].start))
        plant.check_conservation()
    return found


def _park(plant: Plant) -> None:
    """The agent leaves service, is told to park, and its gateway knows."""
    (agent,) = plant.agents
    plant.write_routes()
    plant.wait_ready()
    plant.write_routes([replace(agent.route, wanted="parked")])
    status, _ = request_agent(
        "POST", PATH_PARK, agent.route.host, agent.route.port, plant.client, timeout_s=_STATE_S
    )
    if status != http.client.OK:
        raise BenchError(f"an agent told to park answered {status}")
    _wait(plant, "parked")


def _wait(plant: Plant, state: str) -> None:
    deadline = time.monotonic() + _STATE_S
    while not plant.scrape().get(f"millwright_agents{{{MODEL_NAME},{state}}}"):
        if time.monotonic() > deadline:
            raise BenchError(f"the agent was not {state} within {_STATE_S:g} s")
        time.sleep(0.02)


def _ask(plant: Plant, meanwhile: Callable[[], object] = lambda: None) -> float:
    """Milliseconds to the answer to one request. Raises BenchError where it is no success."""
    place = urlsplit(plant.url)
    body = json.dumps({"model": MODEL_NAME, "input": "the mill by the river grinds at night"})
    headers = {"Authorization": f"Bearer {plant.key_file.read_text()}", "Content-Type": "application/json"}
    with closing(http.client.HTTPConnection(str(place.hostname), place.port, timeout=_ANSWER_S)) as wire:
        started = time.perf_counter()
        wire.request("POST", place.path, body, headers)
        meanwhile()
        answer = wire.getresponse()
        answer.read()
        if answer.status != http.client.OK:
            raise BenchError(f"a request of a cold start was answered {answer.status}")
        return (time.perf_counter() - started) * 1000


def render_cold_start(found: Sequence[ColdStarts]) -> str:
    """A row for each kind of agent."""
    rows = [
        [
            one.kind, f"{median(one.parked_ms):.0f}", f"{max(one.parked_ms):.0f}",
            f"{median(one.stopped_ms):.0f}", f"{one.together} / {TOGETHER}", f"{one.last_ms:.0f}",
        ]
        for one in found
    ]  # fmt: skip
    head = ["agent", "from parked ms", "worst", "from stopped ms", f"{TOGETHER} at once", "last ms"]
    return render_table(head, rows)


def compute_cold_start_marks(found: Sequence[ColdStarts]) -> list[Mark]:
    """From parked within 200 ms and from stopped within 1.5 s, the median; all of many at once answered."""
    marks = []
    for one in found:
        parked, stopped = median(one.parked_ms), median(one.stopped_ms)
        marks += [
            Mark(f"{one.kind}: from parked <= {PARKED_MS:.0f} ms", parked <= PARKED_MS, f"{parked:.0f} ms"),
            Mark(
                f"{one.kind}: from stopped <= {STOPPED_MS:.0f} ms", stopped <= STOPPED_MS,
                f"{stopped:.0f} ms",
            ),
            Mark(
                f"{one.kind}: all of {TOGETHER} at once answered", one.together == TOGETHER,
                f"{one.together}, the last after {one.last_ms:.0f} ms",
            ),
        ]  # fmt: skip
    return marks
