"""`manage.py set_serving`."""

from collections.abc import Mapping

from appliance.deployments import find_deployment, set_serving
from appliance.management.base import actor
from appliance.management.settings_commands import SettingsCommand, Told
from appliance.models import Deployment
from appliance.row_settings import show_values
from appliance.serving_settings import SERVING


class Command(SettingsCommand):
    help = (
        "Change how a deployment is served, or print all settings with what they mean.\n"
        "Example: manage.py set_serving minilm cache_mb=64 sticky=yes"
    )
    settings = SERVING

    def untouched(self) -> object:
        return Deployment()

    def change(self, name: str, pairs: Mapping[str, object]) -> Told:
        subject, same = f"deployment {name}", f"deployment {name} is served as asked already"
        if not pairs:
            return Told(subject, same, show_values(SERVING, find_deployment(name)))
        done = set_serving(name, pairs, actor())
        if done.generation is not None:
            self.wait_for_gateways(done.generation)
        return Told(subject, same, show_values(SERVING, done.deployment), done.changes)
