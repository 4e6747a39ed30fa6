"""Decisions: why the number of agents changed, or stayed against what load asked; and all that led to it."""

from django.db import models


class Decision(models.Model):
    """One decision of the loop, with all it was made from. Kept after the deployment is gone.

    In a `dry_run` nothing was done: `before` and `after` are the numbers that would be.
    """

    at = models.DateTimeField(db_index=True)
    deployment = models.CharField(max_length=63, db_index=True)
    trigger = models.CharField(max_length=32, help_text="What made the loop look: tick, want, verb.")
    kind = models.CharField(max_length=32, blank=True, default="", help_text="The sort of reason.")
    before = models.PositiveIntegerField()
    want = models.PositiveIntegerField(
        null=True, help_text="What the load asks, before any clamp; empty: cannot tell."
    )
    after = models.PositiveIntegerField()
    dry_run = models.BooleanField(default=False, help_text="Only what would have been done.")
    inputs = models.JSONField(default=dict)
    policy = models.JSONField(default=dict, help_text="What is set otherwise than by default.")
    gateways = models.JSONField(default=list, help_text="The gateway processes that were heard.")
    clamps = models.JSONField(default=list)
    reason = models.TextField()
    actions = models.JSONField(default=list)

    class Meta:
        ordering = ("-at", "-id")

    def __str__(self) -> str:
        return f"{self.deployment}: {self.before} -> {self.after}"


class RecordedTick(models.Model):
    """What the scaling policy was given in one tick, and what it answered, for every deployment.

    `at` is the tick's time in Unix seconds, exactly; `body` is compressed, `control/inputs.py` knows how.
    """

    at = models.FloatField(db_index=True)
    body = models.BinaryField()

    class Meta:
        ordering = ("id",)

    def __str__(self) -> str:
        return f"tick at {self.at}"
