"""Decisions again, from what the loop recorded of each tick: are they the same? Pure."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from appliance.policies.scaling import Decision, Load, ScalingPolicy, ScalingState, decide, state_from_json

#: Differences that are told of; the others are counted.
SHOWN = 20


@dataclass(frozen=True, slots=True)
class Answer:
    """What is recorded of a decision. `said` is a digest of all of it but the memory."""

    replicas: int
    want: int | None = None
    kind: str = ""
    valid: bool = True
    clamps: tuple[str, ...] = ()
    said: str = ""


@dataclass(frozen=True, slots=True)
class Given:
    """What `decide` was given in a tick, and what it answered."""

    policy: ScalingPolicy
    load: Load
    answer: Answer


@dataclass(frozen=True, slots=True)
class Tick:
    """One tick of a deployment. Of one recorded `whole`, `state` is the memory before it, as JSON types.

    `code` marks the version of the policies that decided.
    """

    now: float
    given: Given
    state: Mapping[str, Any] | None = None
    whole: bool = False
    code: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """A tick that is decided otherwise now."""

    at: float
    recorded: Answer
    replayed: Answer


@dataclass(slots=True)
class Verdict:
    """What a replay found. `breaks` are times at which the memory was not what the decisions before left."""

    ticks: int = 0
    first: float | None = None
    last: float | None = None
    longest_gap_s: float = 0.0
    different: int = 0
    differences: list[Difference] = field(default_factory=list)
    breaks: list[float] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether all is as recorded."""
        return not self.different and not self.breaks


def answer_of(decision: Decision) -> Answer:
    """What is recorded of a decision: the numbers, and a digest of all that it says."""
    values = ((one.name, getattr(decision, one.name)) for one in fields(decision) if one.name != "state")
    said = repr([(name, sorted(one.items()) if isinstance(one, Mapping) else one) for name, one in values])
    digest = hashlib.blake2s(said.encode(), digest_size=4).hexdigest()
    return Answer(decision.replicas, decision.want, decision.kind, decision.valid, decision.clamps, digest)


def replay_ticks(
    ticks: Iterable[Tick], *, reload_every_s: float | None = None, found: Verdict | None = None
) -> Iterator[tuple[Tick, Decision]]:
    """Each tick with what `decide` makes of it, the memory carried on from the first one.

    With `reload_every_s` the memory goes through JSON so often. `found` is told of each break.
    """
    state: ScalingState | None = None
    reloaded_at: float | None = None
    for tick in ticks:
        if tick.whole:
            recorded = None if tick.state is None else state_from_json(tick.state)
            if reloaded_at is not None and recorded != state and found is not None:
                found.breaks.append(tick.now)
            state = recorded
        if reloaded_at is None:
            reloaded_at = tick.now
        if reload_every_s is not None and tick.now - reloaded_at >= reload_every_s and state is not None:
            state, reloaded_at = state_from_json(json.loads(json.dumps(state.to_json()))), tick.now
        decision = decide(tick.given.policy, tick.given.load, state, tick.now)
        state = decision.state
        yield tick, decision


def verify(ticks: Iterable[Tick], *, reload_every_s: float | None = None) -> Verdict:
    """Replay and compare, row by row. Raises nothing of its own; memory that is not understood is a break."""
    found = Verdict()
    for tick, decision in replay_ticks(ticks, reload_every_s=reload_every_s, found=found):
        found.ticks += 1
        found.first = tick.now if found.first is None else found.first
        if found.last is not None:
            found.longest_gap_s = max(found.longest_gap_s, tick.now - found.last)
        found.last = tick.now
        replayed = answer_of(decision)
        if replayed != tick.given.answer:
            found.different += 1
            if len(found.differences) < SHOWN:
                found.differences.append(Difference(tick.now, tick.given.answer, replayed))
    return found
