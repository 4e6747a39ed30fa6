"""How an agent stands, from what was seen of it: ready, starting, failed, when to try again.

Pure. A process that is gone is seen on the machine; whether a living one serves, only gateways can
tell: without a fresh report nothing is concluded.
"""

from dataclasses import replace
from typing import Any

from appliance.policies.fleet import AgentFacts, Exit, FleetSnapshot

STABLE_S = 10.0
#: Wanted states of agents that are on their way out of service, or out of it.
LEAVING = ("resting", "draining", "stopped")
FAILED_AFTER = 5
FAILED_RETRY_S = 60.0
_START_S = 10.0
_LONGEST_START_S = 60.0
_LOAD_BYTES_PER_S = 40e6
_MAX_ERROR = 4000
#: When something was; none of it can be to come.
_PAST = ("started_at", "ready_at", "unready_at", "leaving_at", "away_at", "parked_at", "moving_at")


def start_limit_s(model_bytes: int, attempt: int = 0) -> float:
    """How long an agent may take to be ready: 10 s, and for a model of 1 GB 35 s; at most 60 s.

    Each further attempt has as much more: on a machine that is slow just now all would be ended for ever.
    """
    return min(_LONGEST_START_S, (_START_S + model_bytes / _LOAD_BYTES_PER_S) * (attempt + 1))


def restart_delay_s(attempt: int) -> float:
    """The wait before the next start, after `attempt` restarts since it last was well.

    At once, then 1, 2, 4 ... 30 s; once five runs in a row have failed 60 s.
    """
    if attempt >= FAILED_AFTER - 1:
        return FAILED_RETRY_S
    return 0.0 if attempt <= 0 else min(30.0, 2.0 ** (attempt - 1))


def assess(agent: AgentFacts, snapshot: FleetSnapshot) -> AgentFacts:
    """The agent's facts after what was seen at `snapshot.now`; unchanged where nothing can be told."""
    agent = _by_this_clock(agent, snapshot.now)
    if not snapshot.can_tell(agent):
        return _out_of_sight(agent, snapshot)
    pid = snapshot.pid(agent)
    if pid is None:
        return _gone(agent, snapshot)
    if agent.pid != pid:
        agent = replace(agent, pid=pid, started_at=agent.started_at or snapshot.now)
    if agent.retry_at is not None and agent.wanted not in ("draining", "resting"):
        return agent  # it was killed and has not ended yet
    return _alive(agent, snapshot)


def not_ready_in_time(agent: AgentFacts, snapshot: FleetSnapshot, *, longest_s: float = 0.0) -> bool:
    """Whether a living agent has been without being ready for too long, while gateways could tell.

    A silent gateway may be served by it: where there is one, the longest request may end first.
    """
    if agent.unready_at is None or snapshot.heard_since is None or agent.retry_at is not None:
        return False
    if snapshot.pid(agent) is None or agent.id in snapshot.in_hand or snapshot.link(agent) is None:
        return False
    waited_s = snapshot.now - max(agent.unready_at, snapshot.heard_since)
    spare_s = longest_s if snapshot.silent else 0.0
    return waited_s > start_limit_s(agent.model_bytes, agent.attempt) + spare_s


def give_up(agent: AgentFacts, now: float, error: str) -> AgentFacts:
    """The facts of an agent whose run has ended badly: when it is started again, and why it ended."""
    return replace(
        agent,
        state="failed" if agent.attempt >= FAILED_AFTER - 1 else "starting",
        retry_at=now + restart_delay_s(agent.attempt),
        pid=None,
        ready_at=None,
        unready_at=None,
        error=error[-_MAX_ERROR:],
    )


def has_failed(agent: AgentFacts) -> bool:
    """Whether so many runs in a row have failed that it is not counted on, though it is started again."""
    return agent.state != "ready" and agent.attempt >= FAILED_AFTER - 1


def describe_exit(ended: Exit | None) -> str:
    """How it ended, in words, with its last log lines."""
    if ended is None or ended.code is None:
        words = "the process ended"
    elif ended.code < 0:
        words = f"the process was ended by signal {-ended.code}"
    else:
        words = f"the process exited with code {ended.code}"
    return "\n".join((words, *(ended.log if ended else ())))


def _by_this_clock(agent: AgentFacts, now: float) -> AgentFacts:
    """Where the clock was put back: times to come are taken for now, so that nothing waits for them."""
    times = [name for name in _PAST if (getattr(agent, name) or 0.0) > now + 1]
    if agent.retry_at is not None and agent.retry_at > now + FAILED_RETRY_S + 1:
        times.append("retry_at")
    changes: dict[str, Any] = dict.fromkeys(times, now)
    return replace(agent, **changes) if changes else agent


def _out_of_sight(agent: AgentFacts, snapshot: FleetSnapshot) -> AgentFacts:
    """Nothing can be told of it; once its node counts as lost it serves nobody until it is seen again."""
    if not snapshot.is_lost(agent) or agent.wanted not in ("warm", "parked"):
        return agent
    return replace(
        agent,
        state="starting",
        ready_at=None,
        unready_at=None,
        away_at=agent.away_at or snapshot.now,
        error=f"node {agent.node} cannot be reached",
    )


def _gone(agent: AgentFacts, snapshot: FleetSnapshot) -> AgentFacts:
    if agent.wanted in LEAVING and agent.id in snapshot.in_hand and agent.state != "stopped":
        return replace(agent, state="draining", pid=None)  # on its way: that is broken off first
    if agent.wanted in LEAVING or agent.wanted == "parked":
        return replace(agent, state="stopped", pid=None, unready_at=None)
    if agent.id in snapshot.in_hand:
        return replace(agent, pid=None)
    if agent.id in snapshot.failures and agent.retry_at is None:
        return give_up(agent, snapshot.now, snapshot.failures[agent.id])
    if agent.started_at is None or agent.retry_at is not None:
        return replace(agent, pid=None)
    never_ran = agent.pid is None and agent.error  # the start itself failed, and said why
    error = agent.error if never_ran else describe_exit(snapshot.exits.get(agent.id))
    return give_up(agent, snapshot.now, error)


def _is_well(agent: AgentFacts) -> bool:
    """Whether nothing is to be changed of one that is ready: so it is with most of them, each second."""
    settled = agent.unready_at is None and agent.away_at is None and agent.ready_at is not None
    return settled and agent.state == "ready" and not agent.attempt and not agent.error


def _alive(agent: AgentFacts, snapshot: FleetSnapshot) -> AgentFacts:
    if agent.wanted in LEAVING:
        return replace(agent, state="draining", unready_at=None)
    link = snapshot.link(agent)
    if link is None:
        return agent
    if agent.wanted == "parked":
        return replace(agent, state="parked" if link.state == "parked" else "draining", unready_at=None)
    if link.state == "ready":
        if _is_well(agent):
            return agent
        ready_at = agent.ready_at or snapshot.now
        well = snapshot.now - ready_at >= STABLE_S
        return replace(
            agent,
            state="ready",
            ready_at=ready_at,
            unready_at=None,
            away_at=None,
            attempt=0 if well else agent.attempt,
            error="" if well else agent.error,
        )
    # It could not be ready before: it is being changed, or ends first what it was given.
    ends = link.state == "loading" and link.in_flight > 0
    since = snapshot.now if ends or agent.id in snapshot.in_hand else agent.unready_at
    return replace(agent, state="starting", ready_at=None, unready_at=since or snapshot.now)
