"""How nodes are put to sleep and woken, for the whole fleet."""

from django.db import models

from appliance.policies.power_facts import PowerSettings


class PowerRules(models.Model):
    """One row, with `pk` 1; what each column means stands in `appliance.power_settings`."""

    sleep_after_s = models.PositiveIntegerField(default=600)
    sleep_how = models.CharField(max_length=16, default="suspend")
    headroom_nodes = models.PositiveIntegerField(default=1)
    headroom_agents = models.PositiveIntegerField(default=0)
    stay_awake_s = models.PositiveIntegerField(default=300)
    wake_timeout_s = models.PositiveIntegerField(default=180)
    changes_per_10min = models.PositiveIntegerField(default=4)
    changes_per_tick = models.PositiveIntegerField(default=2)

    def __str__(self) -> str:
        return "power"

    def as_settings(self) -> PowerSettings:
        """As policies have them."""
        return PowerSettings(
            sleep_after_s=self.sleep_after_s,
            headroom_nodes=self.headroom_nodes,
            headroom_agents=self.headroom_agents,
            stay_awake_s=self.stay_awake_s,
            wake_timeout_s=self.wake_timeout_s,
            changes_per_10min=self.changes_per_10min,
            changes_per_tick=self.changes_per_tick,
        )


def power_rules() -> PowerRules:
    """The row, or one of defaults that is not saved where nobody changed anything."""
    return PowerRules.objects.filter(pk=1).first() or PowerRules(pk=1)
