"""Decisions: why the number of agents changed, or stayed against what load asked."""

from django.db import models


class Decision(models.Model):
    """One decision of the loop, with all it was made from. Kept after the deployment is gone."""

    at = models.DateTimeField(db_index=True)
    deployment = models.CharField(max_length=63, db_index=True)
    trigger = models.CharField(max_length=32, help_text="What made the loop look: tick, want, verb.")
    before = models.PositiveIntegerField()
    want = models.PositiveIntegerField(
        null=True, help_text="What the load asks, before any clamp; empty: cannot tell."
    )
    after = models.PositiveIntegerField()
    inputs = models.JSONField(default=dict)
    clamps = models.JSONField(default=list)
    reason = models.TextField()
    actions = models.JSONField(default=list)

    class Meta:
        ordering = ("-at", "-id")

    def __str__(self) -> str:
        return f"{self.deployment}: {self.before} -> {self.after}"
