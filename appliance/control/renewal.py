"""Certificates are renewed while everything runs: agents' by the loop, our own clients' by a thread.

Agents' private keys are kept in memory only, from the issue of a certificate until its files are on the
node; `appliance.policies.renewal` says why the loop may die at any point of it.
"""

import datetime as dt
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Q

from appliance.authority import RENEW_WITH_LEFT, ensure_authority
from appliance.control.hands import NODE_ERRORS, AgentSpec, NodeHands
from appliance.environment import Environment
from appliance.models import Agent
from appliance.policies.renewal import UnderWay, extend, next_step
from appliance.policies.snapshot import Generation
from appliance.publish import touch_routes
from provisioning.certificates import Authority, Issued, valid_until

#: Agents whose renewal one step takes further; the others have their turn in the next.
AT_ONCE = 20
LOOK_EVERY_S = 3600.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Change:
    """New columns of an agent's row, for as long as its certificates are `listed`: one more, or one only."""

    agent: str
    listed: list[str]
    certificates: list[str]
    issued: Issued
    confirmed: bool


class Renewals:
    """Renews the certificates of agents with `RENEW_WITH_LEFT` or less left, one step a tick."""

    def __init__(self, authority: Authority, describe: Callable[[Agent], AgentSpec]) -> None:
        self._authority = authority
        self._describe = describe
        self._begun: dict[str, tuple[Issued, UnderWay]] = {}

    @property
    def under_way(self) -> bool:
        """Whether a renewal has begun here."""
        return bool(self._begun)

    def step(
        self,
        now: float,
        hands_of: Callable[[str], NodeHands | None],
        served: Callable[[Generation], bool],
    ) -> None:
        """Take renewals one step further. One query where none is due. Must not be called in a transaction.

        `hands_of` gives the hands of a node, None where it cannot be reached; `served` says whether every
        gateway serves a generation of the routes.
        """
        due = _due_agents(now)
        ids = {agent.id for agent in due}
        self._begun = {agent: begun for agent, begun in self._begun.items() if agent in ids}
        changes: list[_Change] = []
        taken = 0
        for agent in due:
            if taken == AT_ONCE:
                break
            hands = hands_of(agent.node.name)
            if hands is not None and not agent.damage:  # one that is damaged stays as it is
                taken += self._take_further(agent, hands, served, now, changes)
        if changes:
            self._keep(changes)

    def _take_further(
        self,
        agent: Agent,
        hands: NodeHands,
        served: Callable[[Generation], bool],
        now: float,
        changes: list[_Change],
    ) -> bool:
        """Do an agent's next step, or add it to `changes`; whether there was one."""
        try:
            installed = hands.installed_certificate(agent.id)
        except NODE_ERRORS:
            return False  # the node went away this very moment
        issued, under_way = self._begun.get(agent.id, (None, None))
        if under_way is not None:
            under_way.see(installed, now)
        all_accept = under_way is not None and served(under_way.generation)
        step = next_step(agent.certificates, under_way, installed, served=all_accept, now=now)
        if step == "issue":
            issued = self._issue(agent, now)
            listed = extend(agent.certificates, issued.sha256, installed)
            changes.append(_Change(agent.id, agent.certificates, listed, issued, confirmed=False))
        elif issued is None or under_way is None or step == "wait":
            return False
        elif step == "confirm":
            changes.append(_Change(agent.id, agent.certificates, [issued.sha256], issued, confirmed=True))
        else:
            under_way.written_at = now  # also where it fails: it is tried again later
            self._send(agent, issued, hands)
        return True

    def _send(self, agent: Agent, issued: Issued, hands: NodeHands) -> None:
        try:
            hands.renew(self._describe(agent), issued)
        except NODE_ERRORS as error:
            log.warning("agent %s did not get its new certificate, it is tried again: %s", agent.id, error)

    def _issue(self, agent: Agent, now: float) -> Issued:
        at = dt.datetime.fromtimestamp(now, dt.UTC)
        return self._authority.issue_server(agent.id, (agent.host, "localhost"), at)

    def _keep(self, changes: list[_Change]) -> None:
        """Write the changes whose agents nobody else changed, all as one generation of the routes."""
        with transaction.atomic():
            kept = [change for change in changes if _write(change)]
            if not kept:
                return
            generation = touch_routes()
            for change in kept:  # inside: what is committed must be known, even if publishing it fails
                if change.confirmed:
                    self._begun.pop(change.agent, None)
                    log.info("agent %s has a new certificate: %s", change.agent, change.issued.sha256)
                else:
                    self._begun[change.agent] = (change.issued, UnderWay(change.issued.sha256, generation))


def _due_agents(now: float) -> list[Agent]:
    """Agents that serve and whose certificate ends soon, the soonest first."""
    until = dt.datetime.fromtimestamp(now, dt.UTC) + RENEW_WITH_LEFT
    due = Q(certificate_expires_at__isnull=True) | Q(certificate_expires_at__lte=until)
    serving = (Agent.Wanted.WARM, Agent.Wanted.PARKED)
    rows = Agent.objects.filter(due, wanted__in=serving).order_by("certificate_expires_at", "id")
    return list(rows.select_related("deployment", "revision__model", "node"))


def _write(change: _Change) -> bool:
    """Must be called in a transaction. False where the agent is gone or was given other certificates."""
    present = Agent.objects.filter(pk=change.agent).values_list("certificates", flat=True).first()
    if present != change.listed:
        return False
    columns: dict[str, object] = {"certificates": change.certificates}
    if change.confirmed:
        columns["certificate_expires_at"] = valid_until(change.issued.certificate_pem)
    return bool(Agent.objects.filter(pk=change.agent).update(**columns))


def keep_client_certificates(
    environment: Environment, stop: threading.Event, every_s: float = LOOK_EVERY_S
) -> None:
    """Renew our own clients' certificates in time, until `stop` is set. What failed is tried again."""
    while not stop.wait(every_s):
        try:
            ensure_authority(environment)
        except (OSError, ValueError) as error:
            log.warning("the certificates of gateway and control could not be looked after: %s", error)
