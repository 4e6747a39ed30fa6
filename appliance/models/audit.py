"""The audit log: who asked for what."""

from django.db import models


class AuditEvent(models.Model):
    """One verb called by somebody. `detail` never holds a secret."""

    at = models.DateTimeField(auto_now_add=True, db_index=True)
    actor = models.CharField(max_length=150)
    verb = models.CharField(max_length=32)
    target = models.CharField(max_length=128)
    detail = models.JSONField(default=dict)

    class Meta:
        ordering = ("-at", "-id")

    def __str__(self) -> str:
        return f"{self.actor} {self.verb} {self.target}"
