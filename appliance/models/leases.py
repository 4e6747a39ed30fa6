"""Leases: locks that expire."""

from django.db import models


class Lease(models.Model):
    """Who may act under a name until when.

    `fencing` grows with each new owner; a write that is conditional on it cannot come from an
    owner that was replaced in the meantime. `beat_at` is when the owner last did its work.
    """

    name = models.CharField(primary_key=True, max_length=32)
    owner = models.CharField(max_length=96)
    fencing = models.PositiveBigIntegerField(default=0)
    expires_at = models.DateTimeField()
    beat_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.name} held by {self.owner}"
