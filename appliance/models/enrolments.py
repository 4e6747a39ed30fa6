"""Enrolments: hardware on its way to being a node, and what was done on it step by step."""

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from appliance.models.names import validate_name
from appliance.models.nodes import Node


class Enrolment(models.Model):
    """One try to make a box a node, with all that people said of it.

    It is work with a lease, as an import is. First contact is made by whoever holds the credential: the
    command itself, or the worker with `sealed`, which is erased at first success, at a lasting failure and
    after `sealed_until`. With first contact the node's row appears; from there on the worker needs no
    credential.
    """

    class State(models.TextChoices):
        """How it stands."""

        WAITING = "waiting"
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"

    class Way(models.TextChoices):
        """With what somebody logs in."""

        PASSWORD = "password"  # noqa: S105 - a name
        KEY = "key"
        AGENT = "agent"

    name = models.CharField(max_length=63, validators=[validate_name], db_index=True)
    address = models.CharField(max_length=255)
    port = models.PositiveIntegerField(
        default=22, validators=[MinValueValidator(1), MaxValueValidator(65535)]
    )
    user = models.CharField(max_length=64, default="root")
    way = models.CharField(max_length=16, choices=Way)
    host_key = models.CharField(max_length=64)
    host_key_kind = models.CharField(max_length=32, blank=True, default="")
    #: labels, region, cost_per_hour (text), preemptible, power: what the node's row gets, where it was said.
    attributes = models.JSONField(default=dict, blank=True)
    sealed = models.BinaryField(null=True, blank=True)
    sealed_until = models.DateTimeField(null=True, blank=True)
    node = models.ForeignKey(
        Node, on_delete=models.SET_NULL, null=True, blank=True, related_name="enrolments"
    )
    state = models.CharField(max_length=16, choices=State, default=State.WAITING, db_index=True)
    stage = models.CharField(max_length=64, blank=True, default="")
    percent = models.FloatField(default=0.0)
    code = models.CharField(max_length=32, blank=True, default="", help_text="The problem's code.")
    error = models.TextField(blank=True, default="")
    hint = models.TextField(blank=True, default="")
    attempt = models.PositiveIntegerField(default=0)
    lease_owner = models.CharField(max_length=96, blank=True, default="")
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    actor = models.CharField(max_length=150, blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-created_at", "-id")

    def __str__(self) -> str:
        return f"{self.name} at {self.address}"


class RemoteStep(models.Model):
    """One thing done on a box, as it went. `detail` is untrusted text of the box, or an error's line."""

    enrolment = models.ForeignKey(
        Enrolment, on_delete=models.CASCADE, null=True, blank=True, related_name="steps"
    )
    node = models.ForeignKey(Node, on_delete=models.CASCADE, null=True, blank=True, related_name="steps")
    at = models.DateTimeField(auto_now_add=True, db_index=True)
    step = models.CharField(max_length=100)
    outcome = models.CharField(max_length=16)
    seconds = models.FloatField(default=0.0)
    detail = models.CharField(max_length=1000, blank=True, default="")

    class Meta:
        ordering = ("at", "id")

    def __str__(self) -> str:
        return f"{self.step}: {self.outcome}"


class Transfer(models.Model):
    """A release or a model on its way to a node, for those who watch."""

    class State(models.TextChoices):
        """How it stands."""

        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"

    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="transfers")
    kind = models.CharField(max_length=16, help_text="release or model")
    name = models.CharField(max_length=100)
    digest = models.CharField(max_length=64)
    have_bytes = models.BigIntegerField(default=0)
    total_bytes = models.BigIntegerField(default=0)
    state = models.CharField(max_length=16, choices=State, default=State.RUNNING)
    error = models.CharField(max_length=1000, blank=True, default="")
    started_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-started_at", "-id")

    def __str__(self) -> str:
        return f"{self.kind} {self.name} to {self.node_id}"
