"""A loop on a scripted node, with scripted gateways and an explicit clock."""

import json
from dataclasses import dataclass, field, replace

from django.conf import settings
from fleet_builders import agent_report, deployment_report, gateway_report

from appliance.authority import ensure_authority
from appliance.control.calibration import Calibrations
from appliance.control.gateway_board import GatewayBoard
from appliance.control.hands import Hands, Lane, describe
from appliance.control.history import Usage
from appliance.control.measure import Measured, Measurer, Outcome
from appliance.control.node_orders import NodeOffice
from appliance.control.node_power import PowerOffice
from appliance.control.node_views import NodeViews
from appliance.control.renewal import Renewals
from appliance.control.tick import Loop, Outside
from appliance.models import Agent, InferenceModel, RouteState
from appliance.policies.snapshot import Generation
from provisioning.errors import ProvisioningError

START = 1_800_000_000.0
DIGEST = "ab" * 32
HARDWARE = {"cores_physical": 2, "ram_bytes": 16 * 10**9}


def add_model(name="tiny", **given):
    """A model that is ready to be deployed."""
    manifest = {"digest": DIGEST, "size_bytes": 24_000_000, "engine": "ctranslate2", **given}
    return InferenceModel.objects.create(
        name=name, source="dir:/models/tiny", state="ready", digest=manifest["digest"], manifest=manifest
    )


@dataclass
class FakeProcess:
    """What the loop looks at of a process."""

    pid: int


@dataclass
class FakeNode:
    """Does to memory what a node does to processes; `calls` tells the order."""

    configs: dict = field(default_factory=dict)
    alive: dict = field(default_factory=dict)
    codes: dict = field(default_factory=dict)
    calls: list = field(default_factory=list)
    refuses: str = ""

    def install(self, agent, config, certificate_pem, key_pem, ca_pem):
        self.calls.append(("install", agent))
        self.configs[agent] = dict(config)
        folder = settings.ENVIRONMENT.agents_dir / agent
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(dict(config)))
        (folder / "cert.pem").write_bytes(certificate_pem)
        (folder / "ca.pem").write_bytes(ca_pem)

    def start(self, agent):
        self.calls.append(("start", agent))
        if self.refuses:
            raise ProvisioningError(self.refuses)
        self.codes.pop(agent, None)
        self.alive[agent] = FakeProcess(1000 + len(self.calls))
        return self.alive[agent]

    def running(self):
        return dict(self.alive)

    def stop(self, agent, *, kill=False):
        self.calls.append(("kill" if kill else "stop", agent))
        self.end(agent, -9 if kill else 0)

    def forget(self, agent):
        self.calls.append(("forget", agent))
        self.configs.pop(agent, None)
        folder = settings.ENVIRONMENT.agents_dir / agent
        for path in folder.glob("*"):
            path.unlink()
        if folder.is_dir():
            folder.rmdir()

    def exit_code(self, agent):
        return self.codes.get(agent)

    def last_log_lines(self, agent, count=20):
        return [f"log of {agent}"]

    def end(self, agent, code=-9):
        self.alive.pop(agent, None)
        self.codes[agent] = code

    def did(self, *what):
        return [call for call in self.calls if call[0] in what]


class FakeAsker:
    """Agents that answer what the test says."""

    def __init__(self):
        self.asked, self.said = [], {}

    def ask(self, agents):
        self.asked += [agent for agent, _, _ in agents]

    def answers(self, now):
        return dict(self.said)


class FakeLevels:
    """Agents that are told to park and to resume; `told` says which, in order."""

    def __init__(self):
        self.told = []

    def park(self, agents):
        self.told += [("park", agent) for agent, _, _ in agents]

    def resume(self, agents):
        self.told += [("resume", agent) for agent, _, _ in agents]


class FakeShapes:
    """Orders of another shape that were given; `failed` are agents that did not follow, and why."""

    def __init__(self):
        self.told, self.failed, self.busy = [], {}, frozenset()

    def order(self, agents):
        self.told += [(agent, str(shape)) for (agent, _, _), shape in agents]

    def in_hand(self):
        return self.busy

    def failures(self):
        return dict(self.failed)


class FakeSwitch:
    """Sends for machines; `refuses` is what keeps it from that."""

    def __init__(self):
        self.sent, self.refuses = [], ""

    def wake(self, address):
        if self.refuses:
            raise ProvisioningError(self.refuses)
        self.sent.append(address)


class FakeMeasurer(Measurer):
    """Agents that are told to measure themselves; the test says how it ends."""

    def __init__(self):
        super().__init__(None)
        self.begun = []

    def begin(self, agent, host, port):
        self._agent = agent
        self.begun.append(agent)

    def end(self, error="", **figures):
        values = {
            "workers": 1, "threads": 2, "batch_size": 16, "capacity_rps": 500.0, "default_rps": 480.0,
            "tokens_per_s": 16_000.0, "fixed_s": 0.001, "per_token_s": 0.00005, **figures,
        }  # fmt: skip
        self._outcome = Outcome(self._agent, None if error else Measured(**values), error)


class FakeLanes:
    """Lanes by node name, as a test puts them there; `hands_of` gives what the lane holds."""

    def __init__(self):
        self.by_name, self.kept = {}, []

    def keep(self, wanted):
        self.kept = list(wanted)

    def lane(self, name):
        return self.by_name.get(name)

    def hands_of(self, lane):
        return lane.hands


class FakeShelf:
    """One release for every node; `release` may be an error, or None while it is built."""

    release = None

    def wanted(self, python, arch):
        return self.release

    def digests(self):
        return frozenset()


class Stage:
    """A loop with all that it touches; `tick` moves the clock by a second first."""

    def __init__(self, owner="test:1:1", node=None, lanes=None):
        self.now = START
        self.node = node or FakeNode()
        self.board = GatewayBoard()
        self.asker = FakeAsker()
        self.levels = FakeLevels()
        self.shapes = FakeShapes()
        self.switch = FakeSwitch()
        self.measurer = FakeMeasurer()
        self.imports = []
        self.ports = iter(range(20001, 30000))
        self.lane = Lane("test")
        self.served = True
        self.concurrency_s = 0.0
        environment = settings.ENVIRONMENT
        authority = ensure_authority(environment)
        self.hands = Hands(
            environment, self.node, authority, find_port=lambda host: next(self.ports), lane=self.lane
        )
        self.lanes = lanes or FakeLanes()
        self.shelf = FakeShelf()
        self.loop = Loop(
            Outside(
                board=self.board,
                nodes=NodeViews(self.hands, self.lanes, self.lanes.hands_of, lambda: HARDWARE),
                office=NodeOffice(self.shelf, environment.home / "releases"),
                renewals=Renewals(authority, describe),
                calibrations=Calibrations(self.measurer),
                asker=self.asker,
                levels=self.levels,
                shapes=self.shapes,
                power=PowerOffice(lambda power: self.switch, begin=lambda work: work()),
                routes_file=environment.routes_file,
                read_usage=lambda: Usage(12.5, 40.0),
                enqueue_import=self.imports.append,
                enroll=lambda: None,
            ),
            owner=owner,
        )

    def report(self, name="mini", *, seen=None, in_flight=0, queued=0, **counters):
        """A gateway that serves the newest routes; unless `seen` says otherwise all agents are ready.

        `seen` has the state of each, or more of what a gateway tells of it.
        """
        route = RouteState.objects.first()
        states = dict.fromkeys(self.node.alive, "ready") if seen is None else seen
        self.concurrency_s += in_flight + queued
        message = gateway_report(
            *(
                agent_report(agent, **state) if isinstance(state, dict) else agent_report(agent, state)
                for agent, state in states.items()
            ),
            deployments=[
                deployment_report(
                    name, in_flight=in_flight, queued=queued, concurrency_s=self.concurrency_s, **counters
                )
            ],
            at=self.now, started_at=START,
        )  # fmt: skip
        generation = Generation(route.epoch, route.number) if route else None
        self.board.hear("gateway-1", _with(message, generation), self.now)

    def tick(self, trigger="tick", *, report=True, **seen):
        self.now += 1.0
        if report:
            self.report(**seen)
        return self.loop.tick(trigger, self.now)

    def agents(self):
        return list(Agent.objects.order_by("created_at", "id"))

    def agent(self):
        (only,) = self.agents()
        return only


def _with(report, generation):
    return replace(report, generation=generation)
