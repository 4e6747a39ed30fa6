"""Profiles: how fast a model is on a kind of box, and with what its agents are started there."""

from django.db import models


class Profile(models.Model):
    """What was measured or learned of a model's digest on a kind of box, by an engine of a version.

    A batch takes `fixed_s + per_token_s x tokens`; the capacities are those of an agent that has the box
    for itself.
    """

    class Source(models.TextChoices):
        """How it is known."""

        LEARNED = "learned"
        MEASURED = "measured"

    digest = models.CharField(max_length=64, help_text="Of the model.")
    cpu_model = models.CharField(max_length=200, blank=True, default="")
    isa = models.CharField(
        max_length=200, blank=True, default="", help_text="Instruction sets that decide the speed."
    )
    cores = models.PositiveIntegerField()
    engine = models.CharField(max_length=32)
    engine_version = models.CharField(max_length=64, blank=True, default="")
    workers = models.PositiveIntegerField()
    threads = models.PositiveIntegerField()
    batch_size = models.PositiveIntegerField()
    capacity_rps = models.FloatField(help_text="Requests of one sequence per second.")
    default_rps = models.FloatField(
        default=0.0, help_text="The same with the default profile; 0: not measured."
    )
    full_batch_size = models.PositiveIntegerField(
        default=0, help_text="The batch that does most, whatever the latency budget; 0: not known."
    )
    full_rps = models.FloatField(default=0.0, help_text="What it does with that; 0: not known.")
    tokens_per_s = models.FloatField()
    fixed_s = models.FloatField()
    per_token_s = models.FloatField()
    source = models.CharField(max_length=16, choices=Source)
    measured_at = models.DateTimeField()

    class Meta:
        ordering = ("digest", "cpu_model", "cores")
        constraints = (
            models.UniqueConstraint(
                fields=("digest", "cpu_model", "isa", "cores", "engine", "engine_version"),
                name="profile_once",
            ),
        )

    def __str__(self) -> str:
        return f"{self.digest[:12]} on {self.cores} x {self.cpu_model or 'unknown CPU'}"
