"""Nodes: the machines that agents run on."""

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from appliance.models.json_columns import CheckedJSONField, damage, is_dicts, is_hardware, is_labels
from appliance.models.names import validate_name

LOCAL_NODE = "local"


class Node(models.Model):
    """A machine we manage. The appliance's own is named `local`; all others are reached over SSH.

    `wanted` and `operation` are what people ordered; what is observed (`seen_at`, `boot_id`, `problems`)
    stands beside it and never in its place. A node that is not `enrolled_at` yet takes no agents; one that
    is `retired_at` is kept for the record alone.
    """

    class Wanted(models.TextChoices):
        """What people ordered of a node, for as long as they do not say otherwise."""

        READY = "ready"
        CORDONED = "cordoned"
        DRAINED = "drained"
        RETIRED = "retired"

    class Operation(models.TextChoices):
        """What people ordered once: agents leave service, it is done, and they come back."""

        NONE = ""
        REBOOT = "reboot"
        UPGRADE = "upgrade"

    class PowerOrder(models.TextChoices):
        """What people ordered of its power; otherwise the loop decides by load."""

        NONE = ""
        ASLEEP = "asleep"
        AWAKE = "awake"

    class PowerStage(models.TextChoices):
        """How far it is on its way to sleep and back; empty while it is awake, or just not there."""

        NONE = ""
        LEAVING = "leaving"
        SLEEPING = "sleeping"
        ASLEEP = "asleep"
        WAKING = "waking"

    name = models.CharField(max_length=63, unique=True, validators=[validate_name])
    address = models.CharField(max_length=255, help_text="Host name or IP address.")
    port = models.PositiveIntegerField(
        default=22, validators=[MinValueValidator(1), MaxValueValidator(65535)], help_text="Of its sshd."
    )
    account = models.CharField(
        max_length=64, blank=True, default="", help_text="What the appliance's key opens there."
    )
    host_key = models.CharField(max_length=64, blank=True, default="", help_text="Pinned SHA-256.")
    host_key_kind = models.CharField(max_length=32, blank=True, default="")
    wanted = models.CharField(max_length=16, choices=Wanted, default=Wanted.READY)
    wanted_at = models.DateTimeField(null=True, blank=True, help_text="When that was last ordered.")
    operation = models.CharField(max_length=16, choices=Operation, blank=True, default=Operation.NONE)
    operation_stage = models.CharField(
        max_length=16, blank=True, default="", help_text="How far it is: empty while it waits for its turn."
    )
    operation_at = models.DateTimeField(null=True, blank=True)
    operation_boot_id = models.CharField(
        max_length=64, blank=True, default="", help_text="The boot that an ordered reboot ends."
    )
    operation_stage_at = models.DateTimeField(null=True, blank=True, help_text="Since when it is that far.")
    calibration_at = models.DateTimeField(
        null=True, blank=True, help_text="When a measurement of its agents was ordered, until it is done."
    )
    calibration_error = models.CharField(
        max_length=500, blank=True, default="", help_text="Why the last ordered measurement came to nothing."
    )
    labels = CheckedJSONField(default=dict, blank=True, accepts=is_labels)
    region = models.CharField(max_length=63, blank=True, default="")
    cost_per_hour = models.DecimalField(
        max_digits=10, decimal_places=4, null=True, blank=True, validators=[MinValueValidator(0)]
    )
    preemptible = models.BooleanField(default=False)
    power = models.CharField(
        max_length=64, blank=True, default="", help_text="How it is woken: wol:MAC or exec:NAME."
    )
    power_wanted = models.CharField(max_length=16, choices=PowerOrder, blank=True, default=PowerOrder.NONE)
    power_how = models.CharField(
        max_length=16, blank=True, default="", help_text="suspend or power_off, where that was ordered."
    )
    power_stage = models.CharField(max_length=16, choices=PowerStage, blank=True, default=PowerStage.NONE)
    power_stage_at = models.DateTimeField(null=True, blank=True, help_text="Since when it is that far.")
    power_tries = models.PositiveSmallIntegerField(default=0, help_text="How often it was told so.")
    power_changes = models.JSONField(
        default=list, blank=True, help_text="When the loop changed its power lately, Unix seconds."
    )
    idle_since = models.DateTimeField(null=True, blank=True, help_text="Since when nothing is on it.")
    awake_since = models.DateTimeField(null=True, blank=True, help_text="When it was last woken.")
    hardware = CheckedJSONField(
        default=dict, help_text="What was read off the machine: cores, RAM, CPU model.", accepts=is_hardware
    )
    steward_sha256 = models.CharField(max_length=64, blank=True, default="")
    release_sha256 = models.CharField(
        max_length=64, blank=True, default="", help_text="What agents there are started from."
    )
    next_release_sha256 = models.CharField(
        max_length=64, blank=True, default="", help_text="What an upgrade brings."
    )
    boot_id = models.CharField(max_length=64, blank=True, default="")
    problems = CheckedJSONField(
        default=list, blank=True, help_text="What is wrong now: code, message, remedy, since (Unix seconds).",
        accepts=is_dicts,
    )  # fmt: skip
    seen_at = models.DateTimeField(null=True, blank=True, help_text="When it was last observed.")
    enrolled_at = models.DateTimeField(null=True, blank=True)
    retired_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    @property
    def is_local(self) -> bool:
        """Whether it is the appliance's own machine."""
        return self.name == LOCAL_NODE

    @property
    def damage(self) -> str:
        """Names of what cannot be read of its row, '' where all can."""
        return damage(self)

    @property
    def cores(self) -> int:
        """Physical cores, at least one."""
        return max(1, int(self.hardware.get("cores_physical") or 1))

    @property
    def ram_bytes(self) -> int:
        """Memory of the machine, 0 where not known yet."""
        return int(self.hardware.get("ram_bytes") or 0)
