"""What is asked of people about when nodes sleep and wake."""

from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminSelectWidget

from appliance.power_settings import HOURS_S, MOST_NODES, POWER
from dashboard.deployment_presenters import label_of


def _whole(least: int, most: int) -> forms.IntegerField:
    return forms.IntegerField(min_value=least, max_value=most, widget=UnfoldAdminIntegerFieldWidget)


class PowerForm(forms.Form):
    """All settings as they are. Only what is typed anew is changed, whatever others changed otherwise."""

    sleep_after_s = _whole(0, HOURS_S)
    sleep_how = forms.ChoiceField(
        choices=[("suspend", "suspend"), ("power_off", "power off")], widget=UnfoldAdminSelectWidget
    )
    headroom_nodes = _whole(0, MOST_NODES)
    headroom_agents = _whole(0, MOST_NODES)
    stay_awake_s = _whole(0, HOURS_S)
    wake_timeout_s = _whole(5, 3600)
    changes_per_10min = _whole(1, 100)
    changes_per_tick = _whole(1, MOST_NODES)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for setting in POWER:
            field = self.fields[setting.key]
            field.label = label_of(setting.key)
            field.help_text = f"{setting.meaning[:1].upper()}{setting.meaning[1:]}."
            field.show_hidden_initial = True  # what the page showed, to tell what was typed

    def changes(self) -> dict[str, Any]:
        """What is to be another, by key."""
        return {key: self.cleaned_data[key] for key in self.changed_data}
