"""Models: weights and tokenizer, imported once, named by digest."""

from django.db import models

from appliance.models.names import validate_name


class InferenceModel(models.Model):
    """A model in the catalog, and how its import stands.

    The import is work with a lease: whoever holds an unexpired one runs it, and the loop starts
    again whatever has none. Nothing but a `ready` model can be deployed.
    """

    class State(models.TextChoices):
        """How the import stands."""

        IMPORTING = "importing"
        READY = "ready"
        FAILED = "failed"

    name = models.CharField(max_length=63, unique=True, validators=[validate_name])
    source = models.CharField(max_length=1024)
    task = models.CharField(max_length=16, default="embed")
    quantization = models.CharField(max_length=16, default="int8")
    state = models.CharField(max_length=16, choices=State, default=State.IMPORTING, db_index=True)
    digest = models.CharField(max_length=64, blank=True, default="")
    manifest = models.JSONField(default=dict, blank=True)
    stage = models.CharField(max_length=32, blank=True, default="")
    percent = models.FloatField(default=0.0)
    error = models.TextField(blank=True, default="")
    hint = models.TextField(blank=True, default="")
    attempt = models.PositiveIntegerField(default=0)
    lease_owner = models.CharField(max_length=64, blank=True, default="")
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("name",)
        verbose_name = "model"

    def __str__(self) -> str:
        return self.name

    @property
    def size_bytes(self) -> int:
        """Size of the files on disk, 0 until imported."""
        return int(self.manifest.get("size_bytes") or 0)
