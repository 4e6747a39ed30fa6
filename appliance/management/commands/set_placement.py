"""`manage.py set_placement`."""

from collections.abc import Mapping

from appliance.deployments import find_deployment
from appliance.management.base import actor
from appliance.management.settings_commands import SettingsCommand, Told
from appliance.placement import PlacementChanged, forbidden_nodes, set_placement, show_placement
from appliance.placement_settings import PLACEMENT
from appliance.policies.placement_rules import DEFAULT_RULES


class Command(SettingsCommand):
    help = (
        "Change where a deployment's agents go, or print all settings with what they mean.\n"
        "Example: manage.py set_placement minilm require=disk=ssd spread=region prefer=cost"
    )
    settings = PLACEMENT

    def untouched(self) -> object:
        return DEFAULT_RULES

    def change(self, name: str, pairs: Mapping[str, object]) -> Told:
        done = set_placement(name, pairs, actor()) if pairs else PlacementChanged(find_deployment(name), {})
        forbidden = forbidden_nodes(done.deployment)
        return Told(
            f"deployment {name}",
            f"agents of {name} go where they are to go already",
            show_placement(done.deployment),
            done.changes,
            more={"forbidden": forbidden},
            lines=[f"  not on {node}: it {why}" for node, why in forbidden.items()],
        )
