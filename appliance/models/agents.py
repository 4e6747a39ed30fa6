"""Agents: one process each, on a node, serving one revision."""

import secrets
from collections import Counter
from collections.abc import Iterable

from django.db import models

from appliance.models.deployments import Deployment, Revision
from appliance.models.json_columns import CheckedJSONField, Damaged, damage, is_profile, is_texts
from appliance.models.nodes import Node
from appliance.policies.profiles import share_of_box


class Agent(models.Model):
    """A replica: what is wanted of it (`wanted`) and what was seen of it (`state`).

    `profile` holds what it is started with: workers, threads, batch_size; and, where it is known, how fast
    it is by that (`policies.profiles`). A stopped agent's row goes away once its process is seen gone.
    """

    class Wanted(models.TextChoices):
        """What the loop decided."""

        WARM = "warm"
        PARKED = "parked"
        #: Out of service while its node is worked on; it comes back there.
        RESTING = "resting"
        DRAINING = "draining"
        STOPPED = "stopped"

    class State(models.TextChoices):
        """What was observed."""

        STARTING = "starting"
        READY = "ready"
        PARKED = "parked"
        DRAINING = "draining"
        STOPPED = "stopped"
        FAILED = "failed"

    id = models.CharField(primary_key=True, max_length=80)
    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="agents")
    revision = models.ForeignKey(Revision, on_delete=models.CASCADE, related_name="agents")
    node = models.ForeignKey(Node, on_delete=models.PROTECT, related_name="agents")
    host = models.CharField(max_length=255)
    port = models.PositiveIntegerField()
    profile = CheckedJSONField(
        default=dict, accepts=is_profile, instead={"workers": 1, "threads": 1, "batch_size": 1}
    )
    certificates = CheckedJSONField(
        default=list, accepts=is_texts,
        help_text="SHA-256 (DER) of those it may show: the present one, then ones on their way.",
    )  # fmt: skip
    certificate_expires_at = models.DateTimeField(
        null=True, blank=True, help_text="When the present certificate ends."
    )
    release_sha256 = models.CharField(
        max_length=64, blank=True, default="", help_text="What it was installed from; empty on node local."
    )
    wanted = models.CharField(max_length=16, choices=Wanted, default=Wanted.WARM)
    state = models.CharField(max_length=16, choices=State, default=State.STARTING, db_index=True)
    attempt = models.PositiveIntegerField(
        default=0, help_text="Restarts since it last was ready for a while."
    )
    retry_at = models.DateTimeField(null=True, blank=True, help_text="Not started again before this.")
    pid = models.PositiveIntegerField(null=True, blank=True)
    draining_generation = models.PositiveBigIntegerField(
        null=True, blank=True, help_text="The route generation that took it out of service."
    )
    error = models.TextField(blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    ready_at = models.DateTimeField(null=True, blank=True)
    unready_at = models.DateTimeField(
        null=True, blank=True, help_text="Since when it has been running without being ready."
    )
    leaving_at = models.DateTimeField(null=True, blank=True, help_text="When it was last told to leave.")
    away_at = models.DateTimeField(
        null=True, blank=True, help_text="Since when it is out with its node; empty once it is ready again."
    )
    moving_at = models.DateTimeField(
        null=True, blank=True, help_text="Since when another on node `moving_to` is to take its place."
    )
    moving_to = models.CharField(max_length=63, blank=True, default="")
    parked_at = models.DateTimeField(null=True, blank=True, help_text="When it was told to park.")

    class Meta:
        ordering = ("deployment", "created_at")

    def __str__(self) -> str:
        return self.id

    @property
    def damage(self) -> str:
        """Names of what cannot be read of its row, '' where all can."""
        return damage(self)

    @property
    def certificate_sha256(self) -> str:
        """SHA-256 (DER) of its present certificate, '' before it has one."""
        return str(self.certificates[0]) if self.certificates else ""

    @property
    def slots(self) -> int:
        """Requests it executes at once."""
        return int(self.profile["workers"]) * int(self.profile["batch_size"])

    @property
    def engine_threads(self) -> int:
        """Threads that compute, over all its workers; where its profile is damaged, as by default."""
        if isinstance(self.profile, Damaged):
            return self.node.cores
        return int(self.profile.get("workers") or 1) * int(self.profile.get("threads") or 1)

    @property
    def capacity_rps(self) -> float:
        """Requests per second that it can do with its node for itself, 0 where it is not known."""
        return float(self.profile.get("capacity_rps") or 0.0)

    @property
    def ahead(self) -> int:
        """Requests it may hold beyond those, so that the next batch is already there."""
        return int(self.profile["batch_size"])


def capacities_on_boxes(agents: Iterable[Agent]) -> dict[str, float]:
    """Requests per second that each agent can do beside the others of its node, 0 where it is not known.

    `agents` must be all there are, with their nodes.
    """
    agents = tuple(agents)
    threads: Counter[int] = Counter()
    for agent in agents:
        if uses_engine_threads(agent):
            threads[agent.node_id] += agent.engine_threads
    return {
        agent.id: agent.capacity_rps * share_of_box(agent.node.cores, threads[agent.node_id])
        for agent in agents
    }


def uses_engine_threads(agent: Agent) -> bool:
    """Whether it may compute, by what is wanted of it."""
    return agent.wanted in (Agent.Wanted.WARM, Agent.Wanted.DRAINING)


def new_agent_id(deployment: str) -> str:
    """A name for a new agent that tells whose it is: `minilm-3fa9c1`."""
    return f"{deployment}-{secrets.token_hex(3)}"
