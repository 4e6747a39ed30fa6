"""What is asked of people about nodes: where a box is, how to get in, and what is said of it."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from unfold.widgets import (
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminPasswordWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanWidget,
)

from appliance.enrolling import EnrolmentRequest
from appliance.errors import VerbError
from appliance.models import Enrolment, Node
from appliance.node_attributes import (
    check_address,
    check_name,
    check_power,
    check_region,
    check_user,
    parse_labels,
)
from provisioning.login import KeyText, Password, Way
from provisioning.transport import Secret

MAX_KEY_CHARACTERS = 16 * 1024
_PLAIN = {"autocomplete": "off", "autocapitalize": "off", "spellcheck": "false"}


class LabelsField(forms.CharField):
    """`zone=a, disk=ssd` as a dictionary."""

    def to_python(self, value: Any) -> Any:
        """The labels. Raises ValidationError naming the one that is none."""
        parts = (part.strip() for part in (super().to_python(value) or "").split(","))
        return _accept(parse_labels, filter(None, parts))

    def prepare_value(self, value: Any) -> Any:
        """Labels as text again; what was typed stays as it is."""
        if isinstance(value, dict):
            return ", ".join(f"{key}={content}" for key, content in value.items())
        return value


class AttributesForm(forms.Form):
    """What people say of a node: placement and billing read it."""

    labels = LabelsField(
        required=False,
        max_length=2000,
        help_text="key=value, commas between.",
        widget=UnfoldAdminTextInputWidget(attrs=_PLAIN),
    )
    region = forms.CharField(required=False, max_length=63, widget=UnfoldAdminTextInputWidget(attrs=_PLAIN))
    cost_per_hour = forms.DecimalField(
        required=False,
        min_value=Decimal(0),
        max_digits=10,
        decimal_places=4,
        widget=UnfoldAdminDecimalFieldWidget(attrs={"step": "0.0001", "min": "0"}),
    )
    power = forms.CharField(
        required=False,
        max_length=64,
        help_text="How it is woken: wol:MAC or exec:NAME.",
        widget=UnfoldAdminTextInputWidget(attrs=_PLAIN),
    )
    preemptible = forms.BooleanField(
        required=False,
        help_text="It may be taken away at any moment.",
        widget=UnfoldBooleanWidget,
    )

    def attributes(self) -> dict[str, Any]:
        """What was said, by the names of the node's fields."""
        return {name: self.cleaned_data[name] for name in AttributesForm.base_fields}

    def clean_region(self) -> str:
        return str(_accept(check_region, self.cleaned_data["region"]))

    def clean_power(self) -> str:
        return str(_accept(check_power, self.cleaned_data["power"]))


def attributes_of(node: Node) -> dict[str, Any]:
    """The same of a node that is there, to begin with."""
    return {name: getattr(node, name) for name in AttributesForm.base_fields}


class BoxForm(AttributesForm):
    """The first step: where the box is, and as whom to log in. Nothing secret."""

    field_order = ("address", "port", "name", "user", "way")

    address = forms.CharField(
        max_length=255, help_text="Host name or IP address.", widget=UnfoldAdminTextInputWidget(attrs=_PLAIN)
    )
    port = forms.IntegerField(
        min_value=1, max_value=65535, initial=22, label="SSH port", widget=UnfoldAdminIntegerFieldWidget
    )
    name = forms.CharField(
        required=False,
        max_length=63,
        help_text="What the node is called here. Empty: made from the address.",
        widget=UnfoldAdminTextInputWidget(attrs=_PLAIN),
    )
    user = forms.CharField(
        max_length=64,
        initial="root",
        help_text="root, or an account that may use sudo.",
        widget=UnfoldAdminTextInputWidget(attrs=_PLAIN),
    )
    way = forms.ChoiceField(
        label="Log in with",
        choices=[(Enrolment.Way.PASSWORD.value, "a password"), (Enrolment.Way.KEY.value, "a private key")],
        widget=UnfoldAdminSelectWidget,
    )

    def clean_address(self) -> str:
        return str(_accept(check_address, self.cleaned_data["address"]))

    def clean_user(self) -> str:
        return str(_accept(check_user, self.cleaned_data["user"]))

    def clean_name(self) -> str:
        name = str(self.cleaned_data["name"])
        return str(_accept(check_name, name)) if name else ""

    @property
    def first_fields(self) -> list[forms.BoundField]:
        """What every box needs."""
        return [self[name] for name in ("address", "port", "name", "user", "way")]

    @property
    def more_fields(self) -> list[forms.BoundField]:
        """What may be said later, too."""
        return [self[name] for name in AttributesForm.base_fields]

    @property
    def more_is_open(self) -> bool:
        """Whether something stands there, or is wrong with it."""
        return any(field.errors or field.value() for field in self.more_fields)


class KeyTextarea(UnfoldAdminTextareaWidget):
    """A text area that never shows what was put into it."""

    def format_value(self, _value: Any) -> str:
        """Nothing."""
        return ""


class CredentialForm(forms.Form):
    """With what to log in, this once. No page ever holds it."""

    password = forms.CharField(
        strip=False,
        required=False,
        max_length=1024,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "off", "data-1p-ignore": "true"}),
        help_text="Used for first contact, sealed until then, and erased after it or after 10 minutes.",
    )
    private_key = forms.CharField(
        strip=False,
        required=False,
        max_length=MAX_KEY_CHARACTERS,
        widget=KeyTextarea(attrs={"autocomplete": "off", "spellcheck": "false", "rows": 6}),
        help_text="Without a passphrase, as it stands in its file. Used for first contact, sealed until "
        "then, and erased after it or after 10 minutes.",
    )

    def __init__(self, *args: Any, way: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields.pop("password" if way == Enrolment.Way.KEY else "private_key")
        self._asked = "private_key" if way == Enrolment.Way.KEY else "password"
        self.fields[self._asked].required = True

    @property
    def asked_field(self) -> forms.BoundField:
        """The one that is asked."""
        return self[self._asked]

    def clean_private_key(self) -> str:
        """With the line ends of a file. Raises ValidationError where it is no private key."""
        text = "\n".join(str(self.cleaned_data["private_key"]).split("\r\n")).strip() + "\n"
        if not text.startswith("-----BEGIN ") or "PRIVATE KEY-----" not in text:
            raise ValidationError(
                "That is no private key: the text of its file is accepted, from -----BEGIN to the end."
            )
        return text

    def take_way(self) -> Way:
        """What was given, wrapped; the form does not have it any more."""
        secret = Secret(str(self.cleaned_data.pop(self._asked)))
        return KeyText(secret) if self._asked == "private_key" else Password(secret)


class ConfirmForm(CredentialForm, BoxForm):
    """The second step: the box's own key was compared, and here is the credential."""

    host_key = forms.CharField(max_length=64, widget=forms.HiddenInput)
    host_key_kind = forms.CharField(max_length=32, required=False, widget=forms.HiddenInput)
    compared = forms.BooleanField(
        label="The box itself shows the same fingerprint",
        widget=UnfoldBooleanWidget,
        error_messages={"required": "Compare the fingerprints, then say so here."},
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in BoxForm.base_fields:  # said in the first step, and carried along
            self.fields[name].widget = forms.HiddenInput()

    def request(self) -> EnrolmentRequest:
        """What is asked for, with those attributes that were said."""
        said = self.cleaned_data
        return EnrolmentRequest(
            address=said["address"],
            host_key=said["host_key"],
            host_key_kind=said["host_key_kind"],
            name=said["name"],
            port=said["port"],
            user=said["user"],
            attributes={name: value for name, value in self.attributes().items() if value},
        )


def _accept(check: Callable[[Any], Any], value: Any) -> Any:
    """What the check makes of a value; its refusal as the field's mistake."""
    try:
        return check(value)
    except VerbError as error:
        raise ValidationError(str(error)) from None
