"""Looks at one node through its steward, and remembers what it saw. Used by its lane's thread alone."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from appliance.control.lane_pace import Pace
from appliance.control.node_problems import Full, free_of, is_of_facts, still_full
from appliance.control.node_seen import (
    PASSING,
    AgentSeen,
    Hello,
    Observation,
    Problem,
    parse_agents,
    parse_facts,
    parse_hello,
)
from provisioning.errors import StewardError, StewardMissing, printable
from provisioning.steward_client import StewardClient
from provisioning.transport import Limits

LOOK: Final = Limits(idle_s=10.0, total_s=20.0)
LOG_LINES: Final = 20
_LINE_CHARACTERS: Final = 1000
#: A node has few agents; of more that ended at once, the others' logs are read at the next looks.
_LOGS_A_LOOK: Final = 8
#: Unit states that an agent rarely stays in are looked at closely for no longer than this after a change.
_PASSING_FOR_S: Final = 60.0

log = logging.getLogger(__name__)


class LaneWatch:
    """What was seen of a node. Any thread may read its attributes: they are replaced whole."""

    def __init__(self, pace: Pace, now: float, clock: Callable[[], float] = time.time) -> None:
        self._pace = pace
        self._clock = clock
        self._hello = Hello()
        self._hello_at = self._facts_at = self._looked_at = self._changed_at = float("-inf")
        self._hardware: Mapping[str, object] | None = None
        self.observation: Observation | None = None
        #: The last log lines of agents that were seen to have ended.
        self.ended: Mapping[str, tuple[str, ...]] = {}
        self.full: Full | None = None
        #: When the node last answered, or the lane began; monotonic seconds.
        self.heard_at = now

    def connected(self) -> None:
        """A new connection: it may be another boot, so everything is asked."""
        self._hello_at = self._facts_at = self._looked_at = float("-inf")

    def touched(self, now: float) -> None:
        """Something was done on the node: look at it closely for a while."""
        self._changed_at = now

    def found_full(self, now: float) -> None:
        """A job found the disk full."""
        self.full = Full(now, None)
        self._facts_at = float("-inf")

    def heard(self, now: float) -> None:
        """The node tells of its progress with a long job: what was seen of it is as good as new."""
        self.heard_at = now
        if self.observation is not None:
            self.observation = replace(self.observation, at=self._clock())

    def until_look(self, now: float) -> float:
        """Seconds until the node is to be looked at; none left where it is time."""
        seen = self.observation
        passing = (
            seen is not None
            and now - self._changed_at < _PASSING_FOR_S
            and any(agent.active_state in PASSING for agent in seen.agents.values())
        )
        return self._pace.until_look(self._looked_at, self._changed_at, passing, now)

    def is_overdue(self, now: float) -> bool:
        """Whether even work has to wait for a look."""
        return now - self._looked_at >= self._pace.rest_s

    def look(self, client: StewardClient, problems: tuple[Problem, ...] = ()) -> None:
        """Ask what is due. Raises NodeError."""
        now = time.monotonic()
        if now - self._hello_at >= self._pace.hello_s:
            self._ask_hello(client)
        agents = parse_agents(client.ask("status", limits=LOOK))
        at = self._clock()
        before = {} if self.observation is None else self.observation.agents
        ended = self._logs(client, agents, before)
        now = time.monotonic()
        if agents != before:
            self._changed_at = now
        self.ended = ended
        self._publish(at, agents)
        self._looked_at = self.heard_at = now
        self._ask_facts(client, problems, now)

    def _publish(self, at: float, agents: Mapping[str, AgentSeen]) -> None:
        hello = self._hello
        self.observation = Observation(
            at, hello.boot_id, hello.steward_sha256, hello.skew_s, self._hardware, agents
        )

    def _ask_hello(self, client: StewardClient) -> None:
        began, asked = self._clock(), time.monotonic()
        told = client.ask("hello", limits=LOOK)
        self._hello = parse_hello(told, began + (time.monotonic() - asked) / 2)
        self._hello_at = time.monotonic()

    def _ask_facts(self, client: StewardClient, problems: tuple[Problem, ...], now: float) -> None:
        wrong = self.full is not None or any(is_of_facts(problem) for problem in problems)
        if now - self._facts_at < (self._pace.facts_again_s if wrong else self._pace.facts_s):
            return
        told = client.ask("facts", limits=LOOK)
        self._facts_at = self.heard_at = time.monotonic()
        self._hardware = parse_facts(told)
        if self.observation is not None:
            self.observation = replace(self.observation, hardware=self._hardware)
        self.full = still_full(self.full, free_of(self.observation), self._facts_at)

    def _logs(
        self, client: StewardClient, agents: Mapping[str, AgentSeen], before: Mapping[str, AgentSeen]
    ) -> dict[str, tuple[str, ...]]:
        """What is known of agents that have ended, with the logs of those that ended since the last look."""
        known = {
            name: lines for name, lines in self.ended.items() if name in agents and not agents[name].is_living
        }
        new = [
            name
            for name, agent in agents.items()
            if name not in known and _has_ended(agent, before.get(name))
        ]
        for name in new[:_LOGS_A_LOOK]:
            known[name] = _read_log(client, name)
        return known


def _has_ended(agent: AgentSeen, before: AgentSeen | None) -> bool:
    """Whether it ended since the last look; one that failed before its log was read counts, too."""
    if agent.is_living:
        return False
    return agent.active_state == "failed" or (before is not None and before.is_living)


def _read_log(client: StewardClient, agent: str) -> tuple[str, ...]:
    try:
        told: dict[str, Any] = client.ask("logs", limits=LOOK, agent=agent, lines=LOG_LINES)
    except (StewardError, StewardMissing) as error:
        log.warning("the log of agent %s could not be read: %s", agent, error)
        return ()
    lines = told.get("lines")
    if not isinstance(lines, list):
        return ()
    return tuple(printable(str(line)[:_LINE_CHARACTERS]) for line in lines[-LOG_LINES:])
