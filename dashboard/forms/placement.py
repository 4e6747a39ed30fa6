"""What is asked of people about where a deployment's agents go."""

from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from appliance.placement_settings import NONE, PLACEMENT
from appliance.policies.placement_rules import BASES, PREFERS, SPREADS
from dashboard.deployment_presenters import label_of

_CHOICES = {"spread": SPREADS, "base": BASES, "prefer": PREFERS}
_PLAIN = {"autocomplete": "off", "autocapitalize": "off", "spellcheck": "false"}
_LONGEST = 3000


class PlacementForm(forms.Form):
    """All settings as they are. Only what is typed anew is changed, whatever others changed otherwise."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for setting in PLACEMENT:
            field: forms.Field
            if setting.key in _CHOICES:
                choices = [(name, name) for name in _CHOICES[setting.key]]
                field = forms.ChoiceField(choices=choices, widget=UnfoldAdminSelectWidget)
                words = setting.meaning
            else:
                widget = UnfoldAdminTextInputWidget(attrs=_PLAIN | {"placeholder": setting.example})
                field = forms.CharField(required=False, max_length=_LONGEST, widget=widget)
                words = f"{setting.meaning}: {setting.accepted}"
            field.label = label_of(setting.key)
            field.help_text = f"{words[:1].upper()}{words[1:]}."
            field.show_hidden_initial = True  # what the page showed, to tell what was typed
            self.fields[setting.key] = field

    def changes(self) -> dict[str, Any]:
        """What is to be another, by key."""
        return {key: self.cleaned_data[key] or NONE for key in self.changed_data}
