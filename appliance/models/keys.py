"""API keys. Only the digest of a key is kept."""

from django.core.validators import MinValueValidator
from django.db import models

from appliance.models.names import validate_name


class ApiKey(models.Model):
    """A key by its SHA-256. A revoked one stays as a record; its name may be used again."""

    name = models.CharField(max_length=63, validators=[validate_name])
    team = models.CharField(max_length=63, blank=True, default="")
    sha256 = models.CharField(max_length=64, unique=True, editable=False)
    rpm = models.PositiveIntegerField(
        null=True, blank=True, validators=[MinValueValidator(1)],
        help_text="Requests per minute; empty: no limit.",
    )  # fmt: skip
    scopes = models.JSONField(default=list)
    created_at = models.DateTimeField(auto_now_add=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("name", "-created_at")
        verbose_name = "API key"
        constraints = (
            models.UniqueConstraint(
                fields=("name",), condition=models.Q(revoked_at__isnull=True), name="one_live_key_a_name"
            ),
        )

    def __str__(self) -> str:
        return self.name
