"""Nodes: the machines that agents run on."""

from django.db import models

from appliance.models.names import validate_name

LOCAL_NODE = "local"


class Node(models.Model):
    """A machine we manage. The appliance's own is named `local`.

    `wanted` is what people ordered; what is observed stands beside it and never in its place.
    """

    class Wanted(models.TextChoices):
        """What people ordered of a node."""

        READY = "ready"
        CORDONED = "cordoned"

    name = models.CharField(max_length=63, unique=True, validators=[validate_name])
    address = models.CharField(max_length=255)
    wanted = models.CharField(max_length=16, choices=Wanted, default=Wanted.READY)
    hardware = models.JSONField(
        default=dict, help_text="What was read off the machine: cores, RAM, CPU model."
    )
    seen_at = models.DateTimeField(null=True, blank=True, help_text="When it was last observed.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    @property
    def cores(self) -> int:
        """Physical cores, at least one."""
        return max(1, int(self.hardware.get("cores_physical") or 1))

    @property
    def ram_bytes(self) -> int:
        """Memory of the machine, 0 where not known yet."""
        return int(self.hardware.get("ram_bytes") or 0)
