"""`manage.py set_power`."""

from collections.abc import Mapping

from appliance.management.base import actor
from appliance.management.settings_commands import SettingsCommand, Told
from appliance.models.power import PowerRules
from appliance.power import set_power
from appliance.power_settings import POWER
from appliance.row_settings import show_values


class Command(SettingsCommand):
    help = (
        "Change when nodes sleep and wake by themselves, or print all settings with what they mean. Only "
        "nodes with a power set are concerned.\n"
        "Example: manage.py set_power sleep_after_s=1800 headroom_nodes=2"
    )
    settings = POWER
    of_deployment = False

    def untouched(self) -> object:
        return PowerRules()

    def change(self, name: str, pairs: Mapping[str, object]) -> Told:
        done = set_power(pairs, actor())
        return Told("power", "power is as asked already", show_values(POWER, done.rules), done.changes)
