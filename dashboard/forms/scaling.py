"""What is asked of people about how a deployment scales."""

from typing import Any, Final

from django import forms
from unfold.widgets import (
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminTextareaWidget,
    UnfoldBooleanWidget,
)

from appliance.policies.scaling_keys import KEYS, SCHEDULES, Key
from appliance.policies.schedules import EXAMPLE
from appliance.row_settings import DEFAULT, Setting
from appliance.scaling_settings import DRY_RUN, GROUPS, PAUSED, explain_key
from dashboard.scaling_presenters import scaling_label

_FLAGS: Final[tuple[Setting, ...]] = (PAUSED, DRY_RUN)
_NEVER_EMPTY: Final = ("min", "max")
#: What most people come for; the rest is behind a click.
COMMON: Final = (
    "min", "max", "hold", "warm_floor", "activation", "idle_s", "target_queue_wait_ms", SCHEDULES,
    *(one.key for one in _FLAGS),
)  # fmt: skip
#: What is to be known of all settings under a heading.
_NOTES: Final = {
    "Targets": "The rule that asks for the most agents counts; empty ones ask nothing.",
    "Size of an agent": "Where load asks for more and no agent can be added, those that are there grow on "
    "their boxes: first in threads, then in batch. When load is less, they shrink again.",
}


class ScalingForm(forms.Form):
    """All settings as they are. Only what is typed anew is changed, whatever others changed otherwise."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for key, one in KEYS.items():
            self.fields[key] = _number(key, one)
        for flag in _FLAGS:
            self.fields[flag.key] = forms.BooleanField(
                required=False, widget=UnfoldBooleanWidget, help_text=_sentence(flag.meaning)
            )
        self.fields[SCHEDULES] = forms.CharField(
            required=False, max_length=5000, widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
            help_text=f"Bounds by the clock, one a line, as {EXAMPLE}",
        )  # fmt: skip
        for key, field in self.fields.items():
            field.label = "Schedules" if key == SCHEDULES else scaling_label(key)
            field.show_hidden_initial = True  # what the page showed, to tell what was typed
        self.order_fields([*COMMON, *KEYS])

    def common(self) -> list[forms.BoundField]:
        """What most people come for."""
        return [self[key] for key in COMMON]

    def others(self) -> list[tuple[str, str, list[forms.BoundField]]]:
        """The rest: heading, what is to be known of all of them, and the fields."""
        rest = ((name, [self[key] for key in keys if key not in COMMON]) for name, keys in GROUPS.items())
        return [(name, _NOTES.get(name, ""), fields) for name, fields in rest if fields]

    def others_are_wrong(self) -> bool:
        """Whether a mistake is among the rest, which is shown then."""
        return any(field.errors for _, _, fields in self.others() for field in fields)

    def changes(self) -> dict[str, Any]:
        """What is to be another, by key; what was emptied goes back to its default."""
        return {key: self._meant(key) for key in self.changed_data}

    def _meant(self, key: str) -> Any:
        value = self.cleaned_data[key]
        if key == SCHEDULES:
            return [line.strip() for line in value.splitlines() if line.strip()]
        return DEFAULT if value is None else value


def _number(key: str, one: Key) -> forms.Field:
    needed = key in _NEVER_EMPTY
    meaning, unset = explain_key(key)
    words = meaning if needed else f"{meaning} Empty: {unset}."
    if one.whole:
        return forms.IntegerField(
            required=needed, min_value=int(one.low), max_value=int(one.high), help_text=words,
            widget=UnfoldAdminIntegerFieldWidget,
        )  # fmt: skip
    return forms.FloatField(
        required=needed, min_value=one.low, max_value=one.high, help_text=words,
        widget=UnfoldAdminDecimalFieldWidget(attrs={"step": "any"}),
    )  # fmt: skip


def _sentence(meaning: str) -> str:
    return f"{meaning[:1].upper()}{meaning[1:]}."
