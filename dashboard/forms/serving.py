"""What is asked of people about how a deployment is served."""

from typing import Any, Final

from django import forms
from unfold.widgets import (
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldBooleanWidget,
)

from appliance.policies.balancing import policy_names
from appliance.serving_settings import (
    LEAST_DEADLINE_S,
    MOST_CACHE_MB,
    MOST_DEADLINE_S,
    MOST_QUEUED,
    MOST_QUEUED_TOKENS,
    SERVING,
)
from dashboard.deployment_presenters import label_of

_DECIMAL: Final = {"step": "any"}


class ServingForm(forms.Form):
    """All settings as they are. Only what is typed anew is changed, whatever others changed otherwise."""

    balancing = forms.ChoiceField(
        choices=[(name, name) for name in policy_names()], widget=UnfoldAdminSelectWidget
    )
    queue_limit = forms.IntegerField(min_value=1, max_value=MOST_QUEUED, widget=UnfoldAdminIntegerFieldWidget)
    queue_tokens = forms.IntegerField(
        min_value=1, max_value=MOST_QUEUED_TOKENS, widget=UnfoldAdminIntegerFieldWidget
    )
    deadline_s = forms.FloatField(
        min_value=LEAST_DEADLINE_S, max_value=MOST_DEADLINE_S,
        widget=UnfoldAdminDecimalFieldWidget(attrs=_DECIMAL),
    )  # fmt: skip
    cache_mb = forms.FloatField(
        min_value=0, max_value=MOST_CACHE_MB, widget=UnfoldAdminDecimalFieldWidget(attrs=_DECIMAL)
    )
    cache_shared = forms.BooleanField(required=False, widget=UnfoldBooleanWidget)
    sticky = forms.BooleanField(required=False, widget=UnfoldBooleanWidget)
    hedging = forms.BooleanField(required=False, widget=UnfoldBooleanWidget)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for setting in SERVING:
            field = self.fields[setting.key]
            field.label = label_of(setting.key)
            field.help_text = f"{setting.meaning[:1].upper()}{setting.meaning[1:]}."
            field.show_hidden_initial = True  # what the page showed, to tell what was typed

    def changes(self) -> dict[str, Any]:
        """What is to be another, by key."""
        return {key: self.cleaned_data[key] for key in self.changed_data}
