"""Deployments: the wanted state of a model that clients ask for by name."""

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from appliance.models.inference_models import InferenceModel
from appliance.models.names import validate_name
from appliance.policies.balancing import DEFAULT_POLICY

MAX_AGENTS = 1000


class Deployment(models.Model):
    """What people want served: a name, a model, and bounds on the number of warm agents.

    `desired` is the last decision's number; `scaling_state` is the policy's memory, kept so that a
    killed loop goes on where it stopped.
    """

    name = models.CharField(max_length=63, unique=True, validators=[validate_name])
    model = models.ForeignKey(InferenceModel, on_delete=models.PROTECT, related_name="deployments")
    revision = models.ForeignKey(
        "Revision", on_delete=models.SET_NULL, null=True, blank=True, related_name="+",
        help_text="The revision wanted now.",
    )  # fmt: skip
    min_agents = models.PositiveIntegerField(default=1, validators=[MaxValueValidator(MAX_AGENTS)])
    max_agents = models.PositiveIntegerField(
        default=1, validators=[MinValueValidator(1), MaxValueValidator(MAX_AGENTS)]
    )
    target_in_flight = models.FloatField(
        null=True, blank=True, validators=[MinValueValidator(0.01)],
        help_text="Requests one agent should carry, executing and waiting; empty: 70 % of its slots.",
    )  # fmt: skip
    queue_limit = models.PositiveIntegerField(default=1000, validators=[MinValueValidator(1)])
    queue_tokens = models.PositiveIntegerField(
        default=4_000_000, validators=[MinValueValidator(1)],
        help_text="Tokens of work that may wait in each gateway.",
    )  # fmt: skip
    deadline_s = models.FloatField(default=60.0, validators=[MinValueValidator(0.1)])
    balancing = models.CharField(max_length=32, default=DEFAULT_POLICY, help_text="Who chooses the agent.")
    sticky = models.BooleanField(
        default=False, help_text="Requests of one x-session go to one agent while it has room."
    )
    hedging = models.BooleanField(
        default=False, help_text="A request slower than 95 % of them is tried at a second agent too."
    )
    cache_bytes = models.PositiveBigIntegerField(
        default=0, help_text="Answers kept in each gateway and given again; 0: none."
    )
    cache_shared = models.BooleanField(default=False, help_text="Answers are given again across teams.")
    paused = models.BooleanField(default=False, help_text="Keep the number of agents as it is.")
    removing = models.BooleanField(default=False, help_text="Drain the agents, then remove the deployment.")
    removing_at = models.DateTimeField(null=True, blank=True, help_text="When the loop first saw that.")
    scaling = models.JSONField(
        default=dict, blank=True,
        help_text="What people set of how it scales, by key; the rest is default.",
    )  # fmt: skip
    desired = models.PositiveIntegerField(default=0)
    would = models.PositiveIntegerField(
        null=True, blank=True, help_text="In a dry run: what `desired` would be by its load."
    )
    desired_rps = models.FloatField(
        null=True, blank=True, help_text="What `desired` is to do in requests/s, where speeds are known."
    )
    placement = models.JSONField(
        default=dict, blank=True, help_text="What people set of where its agents go; the rest is default."
    )
    moves = models.JSONField(
        default=list, blank=True, help_text="When agents of it were moved lately (Unix seconds)."
    )
    lacking_since = models.FloatField(
        null=True,
        blank=True,
        help_text="Since when load asks for agents that cannot be added (Unix seconds).",
    )
    scaling_state = models.JSONField(default=dict, blank=True)
    reason = models.TextField(blank=True, default="", help_text="Why `desired` is what it is.")
    reason_kind = models.CharField(max_length=32, blank=True, default="")
    problem = models.TextField(blank=True, default="", help_text="What keeps it from being as wanted.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("name",)
        constraints = (
            models.CheckConstraint(
                condition=models.Q(max_agents__gte=models.F("min_agents")), name="max_at_least_min"
            ),
        )

    def __str__(self) -> str:
        return self.name


class Revision(models.Model):
    """An immutable model with its settings: what agents are started from."""

    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="revisions")
    number = models.PositiveIntegerField()
    model = models.ForeignKey(InferenceModel, on_delete=models.PROTECT, related_name="+")
    digest = models.CharField(max_length=64)
    settings = models.JSONField(default=dict, blank=True)
    proven_at = models.DateTimeField(null=True, blank=True, help_text="When an agent of it was first ready.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("deployment", "number")
        constraints = (models.UniqueConstraint(fields=("deployment", "number"), name="revision_once"),)

    def __str__(self) -> str:
        return f"{self.deployment.name}-{self.number}"
