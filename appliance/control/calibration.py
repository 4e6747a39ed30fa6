"""Keeps profiles: takes in what agents learn by serving, and has them measured where that harms nobody.

`policies.calibration` says which agent and when, `policies.profiles` what is worth storing. One agent at a
time, of the whole fleet. A loop that dies loses nothing: the agent comes back into rotation by itself.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from appliance.control.measure import Measured, Measurer, Outcome
from appliance.control.node_orders import note_step
from appliance.kept_rows import KeptRows
from appliance.models import Agent, Node, Revision
from appliance.policies.calibration import Candidate, choose_measurement, waits_for
from appliance.policies.fleet import AgentFacts, FleetSnapshot
from appliance.policies.profiles import (
    Learned,
    Profile,
    ProfileKey,
    box_of,
    choose_profile,
    fits_box,
    is_same_shape,
    learn,
    share_of_box,
)
from appliance.policies.report import AgentReport, SpeedReport
from appliance.policies.shapes import learned_of_box
from appliance.profiles import engine_of, engine_version, key_for, read_profiles, store_profile

#: How often learned speeds are looked at, and whether something is to be measured.
LOOK_EVERY_S = 5.0
#: An ordered measurement that found no turn for so long is called off.
ORDER_LASTS_S = 900.0
#: An engine that sleeps as it is told has no speed of its own: it is measured only when that is ordered.
REHEARSAL = "fake"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Seen:
    """An agent's row, its facts, and what gateways told of it."""

    row: Agent
    facts: AgentFacts
    reports: tuple[AgentReport, ...]
    key: ProfileKey

    @property
    def speed(self) -> SpeedReport | None:
        """What it said last of its speed."""
        return next((one.speed for one in self.reports if one.speed is not None), None)

    @property
    def busy_percent(self) -> float | None:
        """Its node's CPU, as it said; the highest of what gateways were told."""
        said = [one.node_cpu_percent for one in self.reports if one.node_cpu_percent is not None]
        return max(said, default=None)


class Calibrations:
    """One step each few seconds, and at once when a measurement has ended or was ordered."""

    def __init__(self, measurer: Measurer) -> None:
        self._measurer = measurer
        self._failed: dict[ProfileKey, float] = {}
        self._looked_at = float("-inf")
        columns = [field.attname for field in Agent._meta.concrete_fields]  # noqa: SLF001 - Django's documented way to them
        self._rows = KeptRows(Agent.objects.all(), columns, lambda row: row)

    def in_hand(self) -> frozenset[str]:
        """The agent that measures itself now: that it is not ready is no fault of it."""
        agent = self._measurer.under_way
        return frozenset() if agent is None else frozenset({agent})

    def step(self, snapshot: FleetSnapshot, nodes: Iterable[Node]) -> None:
        """Take it one step further. No query where nothing is due. Must not be called in a transaction."""
        nodes = list(nodes)
        outcome = self._measurer.take_outcome()
        if outcome is not None:
            self._take(outcome, snapshot.now)
        ordered = {
            node.name: node.calibration_at.timestamp() for node in nodes if node.calibration_at is not None
        }
        if outcome is None and not ordered and abs(snapshot.now - self._looked_at) < LOOK_EVERY_S:
            return
        self._looked_at = snapshot.now
        seen = _look(snapshot, self._rows, nodes)
        known = read_profiles()
        self._learn(seen, known, snapshot.now)
        if self._measurer.under_way is None and not snapshot.silent and snapshot.reports:
            self._measure(seen, known, ordered, snapshot)

    def _learn(self, seen: Iterable[_Seen], known: Mapping[ProfileKey, Profile], now: float) -> None:
        """Store what agents learned by serving, of each key what the one says that has most of its box.

        Of those the one with most batches.
        """
        seen = list(seen)
        shares = _shares(seen)
        best: dict[ProfileKey, tuple[float, Learned]] = {}
        for one in seen:
            speed = one.speed
            if speed is None or one.facts.state != "ready" or one.key.engine == REHEARSAL:
                continue
            if not is_same_shape(one.row.profile, asdict(speed)):
                continue  # it says something else than what it was started with
            if speed.engine_version != one.key.engine_version:
                continue  # its node has another release yet
            learned = learned_of_box(one.row.profile, choose_profile(known, one.key), _learned(speed))
            if learned is None:
                continue
            share = shares[one.row.node_id]
            so_far = best.get(one.key)
            if so_far is None or (share, learned.batches) > (so_far[0], so_far[1].batches):
                best[one.key] = (share, learned)
        for key, (share, learned) in best.items():
            profile = learn(known.get(key), learned, now, share)
            if profile is not None:
                log.info("learned of %s: %.1f requests/s", key.digest[:12], profile.capacity_rps)
                store_profile(key, profile)

    def _measure(
        self,
        seen: list[_Seen],
        known: Mapping[ProfileKey, Profile],
        ordered: Mapping[str, float],
        snapshot: FleetSnapshot,
    ) -> None:
        able = [one for one in seen if _may(one)]
        slots: Counter[int] = Counter()
        for one in able:
            slots[one.row.deployment_id] += one.row.slots
        candidates = [
            _candidate(one, slots[one.row.deployment_id], known, snapshot, self._failed.get(one.key))
            for one in able
            if one.row.node.calibration_at is not None or not _is_known(one, known)
        ]
        for name in ordered:
            _end_order(name, [one for one in candidates if one.node == name])
        chosen = choose_measurement(candidates, snapshot.now)
        if chosen is not None:
            row = next(one.row for one in seen if one.row.id == chosen.agent)
            log.info("agent %s measures its box", row.id)
            self._measurer.begin(row.id, row.host, row.port)
            return
        for candidate in candidates:
            if candidate.ordered and snapshot.now - ordered[candidate.node] > ORDER_LASTS_S:
                _call_off(candidate)

    def _take(self, outcome: Outcome, now: float) -> None:
        """Store what was measured; a failure is told where it was ordered, and not repeated for a while."""
        rows = Agent.objects.select_related("node", "revision__model", "deployment")
        row = rows.filter(pk=outcome.agent).first()
        if row is None:
            return
        key = key_for(row.node, row.revision)
        profile = None if outcome.measured is None else _measured(outcome.measured, now)
        error = outcome.error
        if profile is not None and not fits_box(profile, key.box):
            error = f"{profile.workers} x {profile.threads} threads are no profile of {key.box.cores} cores"
        if profile is not None and not error:
            self._failed.pop(key, None)
            store_profile(key, profile)
        else:
            self._failed[key] = now
            log.warning("agent %s was not measured: %s", row.id, error)
            Node.objects.filter(pk=row.node.pk, calibration_at__isnull=False).update(
                calibration_at=None, calibration_error=error[:500]
            )
        note_step(row.node, f"measure {row.deployment.name}"[:100], error)


def _end_order(node: str, candidates: Iterable[Candidate]) -> None:
    """An order is over when all that can be measured there is measured, or nothing is left that could be."""
    ordered = [one.ordered for one in candidates]
    staying = Agent.objects.filter(wanted__in=(Agent.Wanted.WARM, Agent.Wanted.RESTING))
    if any(ordered) or (not ordered and staying.filter(node__name=node).exists()):
        return
    error = "" if ordered else "no agent is left there to measure"
    Node.objects.filter(name=node, calibration_at__isnull=False).update(
        calibration_at=None, calibration_error=error
    )


def _call_off(candidate: Candidate) -> None:
    """Nobody waits for ever for a lull that does not come."""
    error = f"called off after {ORDER_LASTS_S / 60:.0f} minutes: {waits_for(candidate) or 'it found no turn'}"
    Node.objects.filter(name=candidate.node, calibration_at__isnull=False).update(
        calibration_at=None, calibration_error=error
    )


def _measured(found: Measured, now: float) -> Profile:
    return Profile(
        found.workers, found.threads, found.batch_size, found.capacity_rps, found.tokens_per_s,
        found.fixed_s, found.per_token_s, "measured", now, found.default_rps,
        found.full_batch_size, found.full_rps,
    )  # fmt: skip


def _look(snapshot: FleetSnapshot, kept: KeptRows[Agent, Agent], nodes: Iterable[Node]) -> list[_Seen]:
    """Every agent with what gateways told of it."""
    facts = {agent.id: agent for agent in snapshot.agents}
    reports: dict[str, list[AgentReport]] = {}
    for report in snapshot.reports:
        for one in report.agents:
            reports.setdefault(one.id, []).append(one)
    rows = [row for row in kept.read() if row.id in facts]
    # Few nodes and revisions have many agents: each is read once, and without what the loop remembers.
    there = {node.pk: node for node in nodes}
    needed = Revision.objects.select_related("model", "deployment").defer("deployment__scaling_state")
    revisions = needed.in_bulk({row.revision_id for row in rows})
    boxes = {pk: box_of(node.hardware) for pk, node in there.items()}
    engines = {pk: engine_of(revision.model.manifest) for pk, revision in revisions.items()}
    keys: dict[tuple[int, int], ProfileKey] = {}
    seen = []
    for row in rows:
        node, revision = there.get(row.node_id), revisions.get(row.revision_id)
        if node is None or revision is None:
            continue  # gone this very moment
        row.node, row.revision, row.deployment = node, revision, revision.deployment
        which = (row.node_id, row.revision_id)
        if which not in keys:
            engine = engines[row.revision_id]
            keys[which] = ProfileKey(revision.digest, boxes[row.node_id], engine, engine_version(engine))
        seen.append(_Seen(row, facts[row.id], tuple(reports.get(row.id, ())), keys[which]))
    return seen


def _shares(seen: Iterable[_Seen]) -> dict[int, float]:
    """By node what each agent there has of it."""
    threads: Counter[int] = Counter()
    cores: dict[int, int] = {}
    for one in seen:
        cores[one.row.node_id] = one.row.node.cores
        if one.row.wanted in (Agent.Wanted.WARM, Agent.Wanted.DRAINING):
            threads[one.row.node_id] += one.row.engine_threads
    return {node: share_of_box(count, threads[node]) for node, count in cores.items()}


def _may(one: _Seen) -> bool:
    row = one.row
    current = row.deployment.revision_id == row.revision_id and not row.deployment.removing
    return row.wanted == Agent.Wanted.WARM and one.facts.state == "ready" and current and bool(one.reports)


def _is_known(one: _Seen, known: Mapping[ProfileKey, Profile]) -> bool:
    """Whether it is measured only where that is ordered."""
    profile = known.get(one.key)
    return one.key.engine == REHEARSAL or (profile is not None and profile.source == "measured")


def _candidate(
    one: _Seen,
    slots: int,
    known: Mapping[ProfileKey, Profile],
    snapshot: FleetSnapshot,
    failed_at: float | None,
) -> Candidate:
    """`slots` are those of all agents of its deployment that may be measured."""
    row = one.row
    counted = [report for _, report in snapshot.deployment_reports(row.deployment.name)]
    profile = known.get(one.key)
    measured = profile is not None and profile.source == "measured"
    rehearsed = one.key.engine == REHEARSAL
    ordered_at = row.node.calibration_at
    stale = (
        profile is None
        or not measured
        or (ordered_at is not None and profile.measured_at <= ordered_at.timestamp())
    )
    return Candidate(
        agent=row.id,
        node=row.node.name,
        ready_for_s=snapshot.now - (one.facts.ready_at or snapshot.now),
        other_slots=slots - row.slots,
        active=sum(report.in_flight + report.queued for report in counted),
        queued=sum(report.queued for report in counted),
        busy_percent=one.busy_percent,
        measured=measured or rehearsed,
        ordered=ordered_at is not None and stale,
        failed_at=failed_at,
    )


def _learned(speed: SpeedReport) -> Learned:
    return Learned(
        speed.workers, speed.threads, speed.batch_size, speed.batches, speed.capacity_rps,
        speed.tokens_per_s, speed.fixed_s, speed.per_token_s,
    )  # fmt: skip
