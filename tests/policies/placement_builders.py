"""Fleets of several nodes, and the same fleet a tick later, for tests of where agents are."""

from dataclasses import replace

from fleet_builders import (
    GB,
    NOW,
    agent,
    agent_report,
    deployment,
    deployment_report,
    gateway_report,
    snapshot,
)

from appliance.policies.actions import Create, Forget, Start, Stop
from appliance.policies.fleet import NodeFacts
from appliance.policies.placement_rules import PlacementRules
from appliance.policies.reconcile import plan
from appliance.policies.scaling import ScalingPolicy, ScalingState


def node(name, *, cores=2, ram_gb=16, **given) -> NodeFacts:
    return NodeFacts(name, ram_gb * GB, cores, **given)


def calm(at=NOW) -> ScalingState:
    """Of a deployment that is long idle unless it is busy now, and not in panic."""
    return ScalingState(at=at - 1, active_at=at - 1000)


def wanted(count, name="mini", *, least=None, most=20, rules=None, unit_rps=None, **given):
    """A deployment with so many agents, whatever its load is; `unit_rps` is what an average agent does."""
    least = count if least is None else least
    given = {"scaling_state": calm(), "placement": rules or PlacementRules(), **given}
    made = deployment(name, desired=count, **given)
    policy = ScalingPolicy(min_agents=least, max_agents=most, target=10.0, capacity_rps=unit_rps, park_s=0.0)
    return replace(made, policy=policy)


def on(names, *, owner="mini", **given):
    """Agents, one on each of the nodes: `mini-1` on the first."""
    return [
        agent(f"{owner}-{number}", deployment=owner, node=name, pid=10 + number, **given)
        for number, name in enumerate(names, 1)
    ]


def fleet(nodes, agents, deployments, *, reports=None, **given):
    """All run where they are, and one gateway sees them as they say."""
    running = {
        one.name: {each.id: each.pid or 9 for each in agents if each.node == one.name and each.pid}
        for one in nodes
    }
    if reports is None:
        seen = [agent_report(one.id, link_state(one)) for one in agents if one.pid]
        counts = [deployment_report(one.name) for one in deployments]
        reports = [gateway_report(*seen, deployments=counts, at=given.get("now", NOW))]
    return snapshot(
        agents=agents, deployments=deployments, nodes=tuple(nodes), running=running, reports=reports, **given
    )


def link_state(one) -> str:
    """How gateways see an agent that stands like this."""
    return one.state if one.state in ("ready", "draining", "parked") else "loading"


def busy(units, name="mini", *, at=NOW):
    """Requests for so many average agents, ever since the gateway started."""
    return deployment_report(name, in_flight=10 * units, concurrency_s=10.0 * units * (at - NOW + 1000))


class World:
    """A fleet that does as it is told: what is created is ready a tick later, what is stopped is gone.

    `load` is, by deployment, how many average agents its requests need.
    """

    def __init__(self, nodes, agents, deployments) -> None:
        self.nodes, self.agents, self.deployments = list(nodes), list(agents), list(deployments)
        self.now, self.made, self.generation = NOW, 0, 1
        self.load = {}

    def look(self):
        """The snapshot of this instant."""
        states = [
            replace(one, state="ready", pid=one.pid or 7) if one.wanted == "warm" else one
            for one in self.agents
        ]
        self.agents = states
        seen = [agent_report(one.id, "draining" if one.wanted != "warm" else "ready") for one in states]
        counts = [busy(self.load.get(one.name, 0), one.name, at=self.now) for one in self.deployments]
        reports = [gateway_report(*seen, deployments=counts, at=self.now, number=self.generation)]
        running = {
            one.name: {each.id: 7 for each in states if each.node == one.name and each.wanted != "stopped"}
            for one in self.nodes
        }
        return snapshot(
            agents=states, deployments=self.deployments, nodes=tuple(self.nodes), running=running,
            reports=reports, now=self.now, heard_since=NOW - 100,
        )  # fmt: skip

    def tick(self, seconds=61.0):
        """One pass, and what it asks for done; the plan."""
        before = self.look()
        decided = plan(before)
        self.agents = list(decided.agents)
        cores = {one.name: one.cores for one in self.nodes}
        self.generation += decided.routes_changed
        for action in decided.actions:
            if isinstance(action, Create):
                self.made += 1
                self.agents.append(
                    agent(f"new-{self.made}", deployment=action.deployment, node=action.node,
                    threads=cores[action.node],
                          created_at=self.now, started_at=self.now, ready_at=self.now)
                )  # fmt: skip
            elif isinstance(action, Forget):
                self.agents = [one for one in self.agents if one.id != action.agent]
            else:
                assert isinstance(action, Start | Stop)
        self.agents = [
            replace(one, draining_generation=self.generation)
            if one.wanted == "draining" and one.draining_generation is None
            else one
            for one in self.agents
        ]
        known = {each.name: each for each in decided.deployments}
        self.now += seconds
        self.deployments = [
            replace(
                one, desired=known[one.name].desired, desired_rps=known[one.name].desired_rps,
                moves=known[one.name].moves, scaling_state=calm(self.now),
            )
            for one in self.deployments
        ]  # fmt: skip
        return decided

    def settle(self, most=60):
        """Ticks until nothing is done any more; how many that took."""
        for number in range(most):
            if is_still(self.tick()):
                return number
        raise AssertionError(f"it does not come to rest: {[one.did for one in self.tick().deployments]}")

    def where(self, owner="mini"):
        """The nodes that agents are on."""
        return sorted(one.node for one in self.agents if one.deployment == owner and one.wanted == "warm")


def is_still(decided) -> bool:
    return not decided.actions and not any(one.did for one in decided.deployments)
