"""Loop, gateway and agents act as chance has it, orders are lost, processes die: no rule is ever broken."""

from dataclasses import dataclass, replace
from random import Random

import pytest
from fleet_builders import NOW, agent, agent_report, deployment, deployment_report, gateway_report, snapshot

from appliance.policies.actions import Create, Forget, Park, Resume, Start, Stop
from appliance.policies.reconcile import plan

MOST = 3
PARK_S = 40.0
CALM_S = 400


@dataclass
class Process:
    """What an agent really is: its level, and the requests that it holds."""

    level: str = "loading"
    holds: int = 0
    pid: int = 0


class World:
    """A gateway that hears of routes late, agents told late or never, a worker that skips ticks."""

    def __init__(self, seed: int) -> None:
        self.dice = Random(seed)
        self.now, self.number, self.count = NOW, 1, 0
        self.facts = deployment(least=0, most=MOST, desired=0, park_s=PARK_S)
        policy = replace(self.facts.policy, idle_s=5.0, stabilization_s=0.0, stable_window_s=6.0)
        self.facts = replace(self.facts, policy=policy)
        self.rows, self.processes = {}, {}
        self.routes, self.served, self.resumed = {}, 1, set()
        self.queue = self.done = self.asked = 0
        self.concurrency_s = 0.0
        self.orders = []

    # The gateway.

    def arrive(self, count: int) -> None:
        self.queue += count
        self.asked += count

    def serve(self) -> None:
        """Send what waits to whom may have it, else wake somebody; agents refuse what they cannot take."""
        seen = {name: self.processes.get(name, Process("gone")) for name in self.routes}
        ready = [n for n, w in self.routes.items() if w != "draining" and seen[n].level == "ready"]
        targets = [n for n in ready if self.routes[n] == "warm" or n in self.resumed] or ready
        for name in targets:
            taken = min(self.queue, 12 - seen[name].holds)
            seen[name].holds, self.queue = seen[name].holds + taken, self.queue - taken
        if self.queue and not targets:
            parked = sorted(
                n for n, w in self.routes.items() if w != "draining" and seen[n].level == "parked"
            )
            warm = [n for n, w in self.routes.items()
                    if w == "warm" or (w == "parked" and seen[n].level in ("ready", "loading"))]  # fmt: skip
            if parked and len(set(warm) - {parked[0]}) < MOST:
                seen[parked[0]].level = "loading"
                if self.routes[parked[0]] == "parked":
                    self.resumed.add(parked[0])

    def hear_routes(self) -> None:
        fresh = {n: row.wanted for n, row in self.rows.items() if row.wanted != "stopped"}
        fresh = {n: "draining" if w == "resting" else w for n, w in fresh.items()}
        self.resumed = {n for n in self.resumed if fresh.get(n) == self.routes.get(n)}
        self.routes, self.served = fresh, self.number

    # The agents.

    def work(self) -> None:
        for process in self.processes.values():
            if process.level == "loading" and self.dice.random() < 0.8:
                process.level = "ready"
            if process.holds and self.dice.random() < 0.9:
                ended = self.dice.randint(1, process.holds)
                process.holds, self.done = process.holds - ended, self.done + ended

    def crash(self) -> None:
        """One dies; what it held goes back to the queue."""
        if self.processes:
            self.queue += self.processes.pop(self.dice.choice(sorted(self.processes))).holds

    def carry_out(self, lost: float) -> None:
        """Orders reach agents, or do not. To park ends what is held first, but refuses at once."""
        orders, self.orders = self.orders, []
        for order in orders:
            process = self.processes.get(order.agent)
            if process is None or self.dice.random() < lost:
                continue
            if isinstance(order, Park) and process.level == "ready":
                process.level, self.done, process.holds = "parked", self.done + process.holds, 0
                self.resumed.discard(order.agent)
            elif isinstance(order, Resume) and process.level == "parked":
                process.level = "loading"

    # The loop.

    def tick(self) -> None:
        links = [
            agent_report(
                name, "connecting" if name not in self.processes else self._link(name, wanted),
                in_flight=self._holds(name), busy=self._holds(name), resumed=name in self.resumed,
            )
            for name, wanted in self.routes.items()
        ]  # fmt: skip
        in_flight = sum(one.holds for one in self.processes.values())
        counts = deployment_report(in_flight=in_flight, queued=self.queue, concurrency_s=self.concurrency_s)
        held = self.queue and not any(self._link(n, w) == "ready" for n, w in self.routes.items())
        fleet = snapshot(
            agents=[self.rows[name] for name in sorted(self.rows)], deployments=(self.facts,), now=self.now,
            reports=[gateway_report(*links, deployments=[counts], at=self.now, number=self.served)],
            running={"local": {n: p.pid for n, p in self.processes.items()}},
            held=frozenset(["mini"] if held else []),
        )  # fmt: skip
        decided = plan(fleet)
        (each,) = decided.deployments
        self.facts = replace(self.facts, desired=each.desired, scaling_state=each.scaling_state)
        self.number += decided.routes_changed
        self.rows = {one.id: self._numbered(one) for one in decided.agents}
        for action in decided.actions:
            self._act(action)
        self.check(each)

    def _link(self, name: str, wanted: str) -> str:
        level = self.processes[name].level if name in self.processes else "connecting"
        return "draining" if wanted == "draining" and level in ("ready", "parked") else level

    def _holds(self, name: str) -> int:
        return self.processes[name].holds if name in self.processes else 0

    def _numbered(self, one):
        leaves = one.wanted in ("draining", "resting", "parked") and one.draining_generation is None
        return replace(one, draining_generation=self.number) if leaves else one

    def _act(self, action) -> None:
        self.count += 1
        if isinstance(action, Create):
            name = f"mini-{self.count}"
            self.number += 1
            self.rows[name] = agent(
                name, state="starting", created_at=self.now, started_at=self.now, ready_at=None, pid=None
            )
            self.processes[name] = Process(pid=self.count)
        elif isinstance(action, Start):
            self.processes[action.agent] = Process(pid=self.count)
        elif isinstance(action, Stop):
            gone = self.processes.pop(action.agent, Process())
            assert action.kill or not gone.holds, f"{action.agent} is stopped with {gone.holds} requests"
            self.queue += gone.holds
        elif isinstance(action, Forget):
            self.rows.pop(action.agent, None)
            assert action.agent not in self.processes
        elif isinstance(action, Park | Resume):
            self.orders.append(action)

    def check(self, each) -> None:
        warm = [one.id for one in self.rows.values() if one.wanted == "warm"]
        parked = [one.id for one in self.rows.values() if one.wanted == "parked"]
        assert len(warm) <= MOST, warm
        assert each.desired <= MOST
        assert each.desired + len(parked) <= MOST, (each.desired, parked)
        held = sum(one.holds for one in self.processes.values())
        assert self.asked == self.done + held + self.queue, "a request is lost"

    def step(self, *, lost: float = 0.0, skipped: float = 0.0) -> None:
        """A second: everything once, the worker only by chance."""
        self.now += 1.0
        self.concurrency_s += self.queue + sum(one.holds for one in self.processes.values())
        acts = [self.serve, self.work, lambda: self.carry_out(lost)]
        self.dice.shuffle(acts)
        for act in acts:
            act()
        if self.dice.random() >= skipped / 2:
            self.hear_routes()
        if self.dice.random() >= skipped:
            self.tick()


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 20))]
)
def test_no_rule_is_ever_broken(seed):
    """Never over the maximum, no request lost, nobody stopped who holds any; and it comes to rest."""
    world = World(seed)
    for _ in range(250):
        if world.dice.random() < 0.15:
            world.arrive(world.dice.randint(1, 40))
        if world.dice.random() < 0.03:
            world.crash()
        if world.dice.random() < 0.02:
            world.resumed.clear()  # another gateway process took over
        world.step(lost=0.3, skipped=0.4)
    for _ in range(CALM_S):
        world.step()
    assert (world.queue, world.done, world.rows, world.processes) == (0, world.asked, {}, {})
