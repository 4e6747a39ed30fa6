"""What is done to a plant under load: one fault at a time, chosen by a seeded chance, healed, waited out."""

import random
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from appliance.policies.balancing import policy_names
from tests.bench.plant import AgentKind, Plant, PlantAgent
from tests.bench.process_figures import Looking
from tests.bench.processes import BenchError
from tests.bench.relay import Relays
from tests.bench.soak_explain import UNDEPLOYED, Fault

COMING = "coming"
RECOVER_S = 30.0
#: systemd starts a failed agent again after this.
RESTART_S = 0.1
#: A slow agent runs so long of each turn.
SLOW_RUN_S, SLOW_STAND_S = 0.01, 0.04
STALL_S = 0.15
_LOOK_S = 0.02


class SoakPlant:
    """A plant whose agents are reached through relays that can be cut."""

    def __init__(self, plant: Plant, relays: Relays) -> None:
        self.plant = plant
        self._relays = relays
        self._ports: dict[str, int] = {}

    def add_agent(self, kind: AgentKind) -> PlantAgent:
        """Start an agent behind a relay; it is published with the next routes."""
        agent = self.plant.add_agent(kind, publish=False)
        port = agent.route.port
        agent.route = replace(agent.route, port=self._relays.open(port))
        self._ports[agent.name] = port
        return agent

    def remove_agent(self, agent: PlantAgent) -> None:
        """Take it out of the routes, drain and end it."""
        self.plant.remove_agent(agent)
        self._relays.close(self._ports.pop(agent.name))

    def cut(self, agent: PlantAgent) -> None:
        """Nothing passes between the gateway and it."""
        self._relays.cut(self._ports[agent.name])

    def mend(self, agent: PlantAgent) -> None:
        """All passes again."""
        self._relays.mend(self._ports[agent.name])

    def reset(self, agent: PlantAgent) -> None:
        """Its connections break; new ones may be made."""
        self._relays.reset(self._ports[agent.name])


class Faults:
    """The faults by name; each method does one, from its beginning to where it is healed."""

    def __init__(self, soaked: SoakPlant, seed: int) -> None:
        self._soaked = soaked
        self._plant = soaked.plant
        self._chance = random.Random(seed)
        self._left: list[str] = []
        self.kinds: dict[str, Callable[[PlantAgent], None]] = {
            "kill": self._kill,
            "stop": self._stop,
            "cut": self._cut,
            "reset": self._reset,
            "slow": self._slow,
            "replace": self._replace,
            "routes": self._routes,
            UNDEPLOYED: self._undeploy,
        }

    def run_next(self) -> Fault:
        """Do one, heal it, and wait until all agents are ready. Each has its turn, in a shuffled order."""
        if not self._left:
            self._left = list(self.kinds)
            self._chance.shuffle(self._left)
        name = self._left.pop()
        agent = self._chance.choice(self._plant.agents)
        deployment = COMING if name == UNDEPLOYED else agent.route.deployment
        began_at = time.monotonic()
        healed_at = recovered_at = None
        try:
            self.kinds[name](agent)
            healed_at = time.monotonic()
            self._plant.wait_ready(timeout_s=RECOVER_S)
            recovered_at = time.monotonic()
        except BenchError as error:
            print(f"{name} of {agent.name}: {error}", file=sys.stderr, flush=True)
        healed_at = healed_at or time.monotonic()
        return Fault(name, agent.name, began_at, healed_at, recovered_at, deployment)

    def _kill(self, agent: PlantAgent) -> None:
        agent.kill()
        time.sleep(RESTART_S)
        agent.start()

    def _stop(self, agent: PlantAgent) -> None:
        agent.stop()
        self._hold(0.3, 4.0)
        agent.cont()

    def _cut(self, agent: PlantAgent) -> None:
        self._soaked.cut(agent)
        self._hold(0.3, 6.0)
        self._soaked.mend(agent)

    def _reset(self, agent: PlantAgent) -> None:
        for _ in range(self._chance.randint(1, 5)):
            self._soaked.reset(agent)
            self._hold(0.02, 0.2)

    def _slow(self, agent: PlantAgent) -> None:
        until = time.monotonic() + self._chance.uniform(1.0, 4.0)
        while time.monotonic() < until:
            agent.stop()
            time.sleep(SLOW_STAND_S)
            agent.cont()
            time.sleep(SLOW_RUN_S)

    def _replace(self, agent: PlantAgent) -> None:
        """A new agent of the same kind joins, and then the old one goes."""
        self._soaked.add_agent(agent.kind)
        self._plant.write_routes()
        self._plant.wait_ready(timeout_s=RECOVER_S)
        self._soaked.remove_agent(agent)

    def _routes(self, _agent: PlantAgent) -> None:
        """The main deployment is served otherwise, several times in a row."""
        for _ in range(3):
            self._plant.write_routes(
                balancing=self._chance.choice(policy_names()),
                queue_limit=self._chance.randint(500, 2000),
                hedging=self._chance.random() < 0.5,
            )
            self._hold(0.0, 0.3)

    def _undeploy(self, _agent: PlantAgent) -> None:
        """A deployment takes nothing new, goes with its agents, and comes again."""
        plant = self._plant
        theirs = [agent for agent in plant.agents if agent.route.deployment == COMING]
        route = plant.remove_deployment(COMING)
        plant.restore_deployment(replace(route, accepting=False))
        plant.write_routes()
        self._hold(0.5, 1.0)
        plant.remove_deployment(COMING)
        for agent in theirs:
            self._soaked.remove_agent(agent)
        self._hold(0.3, 2.0)
        plant.restore_deployment(route)
        for agent in theirs:
            self._soaked.add_agent(agent.kind)
        plant.write_routes()

    def _hold(self, least_s: float, most_s: float) -> None:
        time.sleep(self._chance.uniform(least_s, most_s))


class StallWatch(Looking):
    """Notes when this machine stood still: a thread that sleeps 20 ms and wakes 150 ms late. A context."""

    def __init__(self) -> None:
        super().__init__(_LOOK_S)
        self.stalls: list[Fault] = []
        self._before = time.monotonic()

    def look(self) -> None:
        """Note a stall since the last look."""
        now = time.monotonic()
        before, self._before = self._before, now
        if now - before > STALL_S:
            self.stalls.append(Fault("stall", "this machine", before, now, now))
