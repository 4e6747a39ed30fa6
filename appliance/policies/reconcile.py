"""From what is wanted and what is seen to the actions that close the gap. Standard library only.

New agents come up before old ones go; an agent leaves only after a handshake: every gateway has
taken it out of service, and it says itself that it holds nothing.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from appliance.policies.actions import (
    Action,
    Create,
    DeploymentPlan,
    EndOrphan,
    Forget,
    Plan,
    Remove,
    Start,
    Stop,
)
from appliance.policies.fleet import AgentFacts, DeploymentFacts, FleetSnapshot
from appliance.policies.placement import NodeSpace, Refusal, agent_bytes, place
from appliance.policies.scaling import Decision, GatewayLoad, Load, decide
from appliance.policies.standing import assess, give_up, not_ready_in_time, start_limit_s

#: How long agents of a removed deployment are kept for requests that still wait in gateways.
REMOVAL_GRACE_S = 60.0
#: Beyond the longest request: by then whatever was under way has been answered or given up.
LEAVING_MARGIN_S = 5.0
#: How long agents of a node that is to be empty wait for others to take their place.
REPLACEMENT_S = 120.0
#: The port was taken: the next start takes another one.
EXIT_PORT_TAKEN = 4


def plan(snapshot: FleetSnapshot) -> Plan:
    """Compute the tick's actions. Where everything is as wanted there are none."""
    agents = [assess(agent, snapshot) for agent in snapshot.agents]
    spaces = _Spaces(snapshot)
    after: list[AgentFacts] = []
    plans: list[DeploymentPlan] = []
    actions: list[Action] = []
    for deployment in snapshot.deployments:
        turn = _Turn(snapshot, deployment, [one for one in agents if one.deployment == deployment.name])
        plans.append(turn.run(spaces))
        after.extend(turn.agents)
        actions.extend(turn.actions)
    known = {agent.id for agent in snapshot.agents}
    for node, running in sorted(snapshot.running.items()):
        actions.extend(EndOrphan(agent, node) for agent in sorted(running or ()) if agent not in known)
    before = {agent.id: agent.wanted for agent in snapshot.agents}
    changed = any(agent.wanted != before[agent.id] for agent in after)
    changed = changed or any(isinstance(action, Create | Forget | Remove) for action in actions)
    return Plan(tuple(after), tuple(plans), tuple(actions), changed)


class _Spaces:
    """What is promised on the nodes, counting what this tick adds."""

    def __init__(self, snapshot: FleetSnapshot) -> None:
        self._nodes = {
            node.name: NodeSpace(
                node.name, node.ram_bytes, node.cores, accepts=node.accepts and not node.lost
            )
            for node in snapshot.nodes
        }
        for agent in snapshot.agents:
            self._promise(agent.node, agent.model_bytes, agent.threads)

    def place(self, model_bytes: int, capacities: Mapping[str, float]) -> str | Refusal:
        """Take room for one agent: the node's name, or why there is none."""
        spaces = [replace(node, capacity_rps=capacities.get(name, 0.0)) for name, node in self._nodes.items()]
        found = place(model_bytes, spaces)
        if isinstance(found, Refusal):
            return found
        self._promise(found.node, model_bytes, self._nodes[found.node].cores)
        return found.node

    def _promise(self, name: str, model_bytes: int, threads: int) -> None:
        if name in self._nodes:
            node = self._nodes[name]
            self._nodes[name] = replace(
                node,
                promised_bytes=node.promised_bytes + agent_bytes(model_bytes),
                engine_threads=node.engine_threads + threads,
            )


class _Turn:
    """One deployment's part of a plan."""

    def __init__(
        self, snapshot: FleetSnapshot, deployment: DeploymentFacts, agents: list[AgentFacts]
    ) -> None:
        self.snapshot = snapshot
        self.deployment = deployment
        self.agents = agents
        self.actions: list[Action] = []
        self.did: list[str] = []
        self.problem = ""

    def run(self, spaces: _Spaces) -> DeploymentPlan:
        deployment, now = self.deployment, self.snapshot.now
        removing_at = (deployment.removing_at or now) if deployment.removing else None
        proven = deployment.proven or any(
            agent.revision == deployment.revision and agent.state == "ready" for agent in self.agents
        )
        decision = self._decide(removing_at, proven=proven)
        self._call_back()
        short = 0 if deployment.removing else self._create_missing(decision.replicas, spaces)
        if not self._waits_for_queue(removing_at):
            self._drain_surplus(decision.replicas, short)
        self._mend()
        self._let_go()
        if deployment.removing and not self.agents:
            self.actions.append(Remove(deployment.name))
            self.did.append("remove the deployment")
        failed = [agent for agent in self.agents if agent.state == "failed"]
        if failed and not self.problem:
            self.problem = f"agent {failed[0].id} failed: {failed[0].error}"
        return DeploymentPlan(
            deployment.name, deployment.desired, decision.replicas, decision.want, decision.reason,
            decision.kind, self.problem, decision.clamps, dict(decision.inputs), decision.state,
            removing_at, proven, tuple(self.did),
        )  # fmt: skip

    # What the number should be.

    def _decide(self, removing_at: float | None, *, proven: bool) -> Decision:
        deployment, now = self.deployment, self.snapshot.now
        state = deployment.scaling_state
        decision = decide(deployment.policy, self._load(), state, now)
        if removing_at is not None:
            return replace(decision, replicas=0, reason="the deployment is being removed", kind="removing")
        if deployment.paused:
            words = f"paused: stay at {deployment.desired}"
            return replace(decision, replicas=deployment.desired, reason=words, kind="paused")
        if not proven and decision.replicas == 0:
            return replace(decision, replicas=1, reason="one agent proves the new revision", kind="proof")
        return decision

    def _load(self) -> Load:
        name = self.deployment.name
        return Load(
            current=self.deployment.desired,
            ready=sum(agent.state == "ready" for agent in self._warm()),
            gateways=tuple(
                GatewayLoad(
                    f"{report.gateway}@{report.started_at:.3f}", report.started_at, report.at,
                    seen.concurrency_s, seen.in_flight, seen.queued,
                )
                for report, seen in self.snapshot.deployment_reports(name)
            ),
            complete=not self.snapshot.silent,
            held=name in self.snapshot.held,
        )  # fmt: skip

    def _waits_for_queue(self, removing_at: float | None) -> bool:
        """Whether agents of a removed deployment are kept for what still waits in gateways."""
        if removing_at is None or self.snapshot.now - removing_at >= REMOVAL_GRACE_S:
            return False
        return any(seen.queued for _, seen in self.snapshot.deployment_reports(self.deployment.name))

    # Fewer, more.

    def _call_back(self) -> None:
        """Agents that rested while their node was worked on serve again, once it is done."""
        if self.deployment.removing:
            return
        for agent in self._those(lambda one: one.wanted == "resting" and one.state == "stopped"):
            node = self.snapshot.node(agent.node)
            if node is not None and node.stay == "stay" and not node.lost and self.snapshot.can_tell(agent):
                back = replace(
                    agent, wanted="warm", state="starting", attempt=0, error="", retry_at=None,
                    started_at=None, ready_at=None, leaving_at=None, draining_generation=None,
                )  # fmt: skip
                self._put(back)
                self.did.append(f"call {agent.id} back: node {agent.node} is done")

    def _drain_surplus(self, target: int, short: int) -> None:
        """Drain what is too much: of the settled agents, then of others as settled ones are ready.

        Others are those of an older revision, and those on a node that they are to leave; for `short` of
        these no room was found elsewhere.
        """
        settled = self._settled()
        coming_back = [one for one in settled if one.away_at is not None]
        old = [one for one in self._warm() if self._is_old(one) and self._stay(one) == "stay"]
        going = [one for one in self._warm() if self._stay(one) != "stay"]
        ready = sum(agent.state == "ready" for agent in settled)
        self._drain(
            [one for one in settled if one not in coming_back],
            len(settled) - len(coming_back) - target,
            "more than wanted",
        )
        self._drain(coming_back, len(coming_back) - target, "more than wanted")
        keep = max(0, target - ready)
        self._drain(old, len(old) - keep, "of an older revision or profile")
        keep = max(0, keep - len(old) - short)
        if self.deployment.removing:
            lost = [one for one in self._warm() if self.snapshot.is_lost(one)]
            self._drain(lost, len(lost), "the deployment is being removed")
        for agent in sorted(going, key=lambda one: one.state != "ready"):
            waited_long = self.snapshot.now - self._leaving_since(agent) > REPLACEMENT_S
            if waited_long or keep == 0:
                self._drain([agent], 1, f"node {agent.node} is to be empty")
            else:
                keep -= 1

    def _drain(self, agents: Iterable[AgentFacts], count: int, why: str) -> None:
        """Those that serve nothing first, then on the node with most of them, the idle, the newest.

        So what is left is spread, and warm longest.
        """
        in_flight = self._in_flight
        crowd = Counter(agent.node for agent in self._warm() if not self.snapshot.is_lost(agent))
        order = sorted(
            agents,
            key=lambda agent: (
                agent.state == "ready", -crowd[agent.node], in_flight(agent) > 0, -agent.created_at,
            ),
        )  # fmt: skip
        for agent in order[: max(0, count)]:
            self._put(
                replace(
                    agent,
                    wanted="resting" if self._rests(agent) else "draining",
                    state="draining",
                    leaving_at=self.snapshot.now,
                    away_at=None,
                    draining_generation=None,
                    retry_at=None,
                )
            )
            self.did.append(f"drain {agent.id}: {why}")

    def _create_missing(self, target: int, spaces: _Spaces) -> int:
        """Create what is missing; for how many there was no room."""
        revision = self.deployment.revision
        if revision is None:
            self.problem = "it has no revision: deploy it again"
            return target
        new = self._settled()
        missing = target - len(new)
        if any(self._is_old(agent) for agent in self._warm()):
            # One more than is proven: the first new agent is ready before a second comes, or an old one goes.
            proven = 1 + sum(agent.state == "ready" for agent in new) - len(new)
            # What lacks altogether comes at once, unless a revision has to prove itself first.
            rolls = any(agent.revision != revision for agent in self._warm())
            missing = min(missing, proven if rolls else max(proven, target - len(self._warm())))
        for number in range(max(0, missing)):
            node = spaces.place(self.deployment.model_bytes, self.deployment.capacities)
            if isinstance(node, Refusal):
                rolls = any(agent.revision != revision for agent in self._warm())
                if rolls or len(self._warm()) < target:  # else it only could be better
                    self.problem = node.reason
                return missing - number
            self.actions.append(Create(self.deployment.name, revision, node))
            self.did.append(f"create an agent on {node}")
        return 0

    # Mend what should run.

    def _mend(self) -> None:
        now = self.snapshot.now
        for agent in self._warm():
            if not self.snapshot.can_tell(agent) or agent.id in self.snapshot.in_hand:
                continue
            alive = self.snapshot.pid(agent) is not None
            if alive and not_ready_in_time(agent, self.snapshot):
                limit_s = start_limit_s(agent.model_bytes)
                self._put(give_up(agent, now, f"it was not ready within {limit_s:.0f} s"))
                self.actions.append(Stop(agent.id, agent.node, kill=True))
                self.did.append(f"end {agent.id}: not ready within {limit_s:.0f} s")
            elif alive and agent.retry_at is not None and now >= agent.retry_at:
                self.actions.append(Stop(agent.id, agent.node, kill=True))
            elif not alive and (agent.retry_at or 0.0) <= now:
                self._start(agent)

    def _start(self, agent: AgentFacts) -> None:
        now = self.snapshot.now
        again = agent.started_at is not None
        ended = self.snapshot.exits.get(agent.id)
        self._put(
            replace(
                agent,
                state="starting",
                attempt=agent.attempt + 1 if again else agent.attempt,
                started_at=now,
                unready_at=now,
                ready_at=None,
                retry_at=None,
            )
        )
        port_taken = ended is not None and ended.code == EXIT_PORT_TAKEN
        self.actions.append(Start(agent.id, agent.node, new_port=port_taken))
        first_line = agent.error.partition("\n")[0]
        self.did.append(f"restart {agent.id}: {first_line}" if again else f"start {agent.id}")

    # Let go what leaves.

    def _let_go(self) -> None:
        for agent in self._those(lambda one: one.wanted == "resting" and self._is_given_up(one)):
            self._put(replace(agent, wanted="draining" if agent.away_at is None else "stopped"))
        for agent in self._those(lambda one: one.wanted != "warm"):
            if agent.wanted == "resting":
                self._let_rest(agent)
            elif agent.state == "stopped" or self._is_out_of_reach(agent):
                self.actions.append(Forget(agent.id, agent.node))
                self.agents.remove(agent)
            elif agent.wanted == "draining" and self._may_stop(agent):
                self._put(replace(agent, wanted="stopped", leaving_at=self.snapshot.now))
                self.actions.append(Stop(agent.id, agent.node))
                self.did.append(f"stop {agent.id}: out of service and idle")
            elif agent.wanted == "stopped" and self._waited_s(agent) > self._longest_s():
                self.actions.append(Stop(agent.id, agent.node, kill=True))
                self.did.append(f"end {agent.id}: it did not end by itself")

    def _is_given_up(self, agent: AgentFacts) -> bool:
        """Whether nobody waits for a resting agent to come back."""
        return self.deployment.removing or self._stay(agent) == "leave"

    def _is_out_of_reach(self, agent: AgentFacts) -> bool:
        """Whether it is out of the routes on a lost node: should it still run there, it ends as an orphan."""
        late = self._waited_s(agent) > self._longest_s()
        return agent.wanted == "stopped" and self.snapshot.is_lost(agent) and late

    def _let_rest(self, agent: AgentFacts) -> None:
        """Told to end once; `away_at` says since when."""
        if agent.state == "stopped":
            return
        if agent.away_at is None and self._may_stop(agent):
            self._put(replace(agent, away_at=self.snapshot.now, leaving_at=self.snapshot.now))
            self.actions.append(Stop(agent.id, agent.node))
            self.did.append(f"stop {agent.id} for a while: out of service and idle")
        elif agent.away_at is not None and self._waited_s(agent) > self._longest_s():
            self.actions.append(Stop(agent.id, agent.node, kill=True))

    def _may_stop(self, agent: AgentFacts) -> bool:
        """The handshake. Its steps may be skipped only when no request can be under way any more."""
        if agent.draining_generation is None:
            return False
        if self._waited_s(agent) > self._longest_s():
            return True
        if self.snapshot.silent or not self.snapshot.out_of_service(agent.id, agent.draining_generation):
            return False
        if agent.ready_at is None:
            return True  # it never took a request
        link = self.snapshot.link(agent)
        busy = link.busy if link is not None and link.busy is not None else self.snapshot.busy.get(agent.id)
        return busy == 0

    def _waited_s(self, agent: AgentFacts) -> float:
        return self.snapshot.now - (agent.leaving_at or self.snapshot.now)

    def _longest_s(self) -> float:
        return self.deployment.deadline_s + LEAVING_MARGIN_S

    # The agents as they are after what was decided so far.

    def _warm(self) -> list[AgentFacts]:
        return self._those(lambda agent: agent.wanted == "warm")

    def _settled(self) -> list[AgentFacts]:
        """Warm agents as they are wanted now, on nodes that are there to stay."""
        return [
            agent
            for agent in self._warm()
            if not self._is_old(agent) and self._stay(agent) == "stay" and not self.snapshot.is_lost(agent)
        ]

    def _is_old(self, agent: AgentFacts) -> bool:
        """Whether another is to take its place: of the wanted revision, or with a better profile."""
        return agent.revision != self.deployment.revision or agent.outdated

    def _stay(self, agent: AgentFacts) -> str:
        node = self.snapshot.node(agent.node)
        return node.stay if node is not None else "stay"

    def _rests(self, agent: AgentFacts) -> bool:
        """Whether it comes back to its node: not one of an older revision, or of what is removed."""
        wanted = agent.revision == self.deployment.revision and not self.deployment.removing
        return wanted and self._stay(agent) == "rest"

    def _leaving_since(self, agent: AgentFacts) -> float:
        node = self.snapshot.node(agent.node)
        return self.snapshot.now if node is None else node.leaving_since or self.snapshot.now

    def _those(self, chosen: Callable[[AgentFacts], bool]) -> list[AgentFacts]:
        return [agent for agent in self.agents if chosen(agent)]

    def _in_flight(self, agent: AgentFacts) -> int:
        link = self.snapshot.link(agent)
        return link.in_flight if link is not None else 0

    def _put(self, agent: AgentFacts) -> None:
        self.agents = [agent if one.id == agent.id else one for one in self.agents]
