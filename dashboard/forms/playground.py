"""What the playground asks."""

from collections.abc import Sequence

from django import forms
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget

MAX_TEXT = 4000


class PlaygroundForm(forms.Form):
    """A deployment and two texts to compare."""

    deployment = forms.ChoiceField(widget=UnfoldAdminSelectWidget)
    first = forms.CharField(
        label="First text", max_length=MAX_TEXT, widget=UnfoldAdminTextareaWidget(attrs={"rows": 3})
    )
    second = forms.CharField(
        label="Second text", max_length=MAX_TEXT, widget=UnfoldAdminTextareaWidget(attrs={"rows": 3})
    )

    def __init__(self, *args: object, deployments: Sequence[str], **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # passed through
        field = self.fields["deployment"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [(name, name) for name in deployments]
