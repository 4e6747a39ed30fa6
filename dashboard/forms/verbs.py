"""Forms whose saving is a verb: what the verb refuses is shown like any other mistake."""

from typing import Any

from django import forms
from django.db.models import Model
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminSelectWidget

from appliance.deployments import deploy
from appliance.errors import VerbError
from appliance.imports import QUANTIZATIONS, TASKS, request_import
from appliance.keys import SCOPES, CreatedKey, create_key
from appliance.models import ApiKey, Deployment, InferenceModel


class VerbForm(forms.ModelForm):  # type: ignore[type-arg]  # each subclass names its model
    """Calls its verb as the last step of validation, where a refusal can still be shown.

    The admin validates once, inside the transaction that it saves in, so a verb is called once and
    what it publishes goes out when that transaction commits.
    """

    actor = ""

    def call_verb(self, given: dict[str, Any]) -> Model:
        """Do it and return the row. Raises VerbError."""
        raise NotImplementedError

    def _get_validation_exclusions(self) -> set[str]:
        """All of the row's own checks are left to the verb, which says more when it refuses."""
        return {field.name for field in self._meta.model._meta.get_fields()}  # noqa: SLF001 - Django's own name

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]  # not in the stubs
        if self.errors:
            return
        try:
            self.instance = self.call_verb(self.cleaned_data)
        except VerbError as error:
            self.add_error(None, str(error))


class DeploymentForm(VerbForm):
    """Name, model and bounds; `deploy` creates or updates."""

    class Meta:
        model = Deployment
        fields = ("name", "model", "min_agents", "max_agents")
        labels = {"min_agents": "Min agents", "max_agents": "Max agents"}
        help_texts = {
            "name": "What clients send as model.",
            "min_agents": "Warm agents at least.",
            "max_agents": "Warm agents at most.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "model" in self.fields:  # a viewer's page has no fields
            ready = InferenceModel.objects.filter(state=InferenceModel.State.READY)
            self.fields["model"].queryset = ready  # type: ignore[attr-defined]  # a ModelChoiceField

    def call_verb(self, given: dict[str, Any]) -> Model:
        name = given.get("name", self.instance.name)  # an existing one's name is not in the form
        deployed = deploy(
            name,
            model=given["model"].name,
            min_agents=given["min_agents"],
            max_agents=given["max_agents"],
            actor=self.actor,
        )
        return deployed.deployment


class KeyForm(VerbForm):
    """A new key; `created` holds it, to be shown once."""

    scopes = forms.MultipleChoiceField(
        choices=[(scope, scope) for scope in SCOPES],
        initial=["inference"],
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
    )
    created: CreatedKey

    class Meta:
        model = ApiKey
        fields = ("name", "team", "rpm", "scopes")
        labels = {"rpm": "Requests per minute"}
        help_texts = {"rpm": "Empty: no limit."}

    def call_verb(self, given: dict[str, Any]) -> Model:
        self.created = create_key(
            given["name"],
            team=given["team"],
            rpm=given["rpm"],
            scopes=tuple(given["scopes"]),
            actor=self.actor,
        )
        return ApiKey.objects.get(name=given["name"], revoked_at__isnull=True)


class ImportForm(VerbForm):
    """A model to import; the worker does it."""

    task = forms.ChoiceField(choices=[(task, task) for task in TASKS], widget=UnfoldAdminSelectWidget)
    quantization = forms.ChoiceField(
        choices=[(name, name) for name in QUANTIZATIONS], widget=UnfoldAdminSelectWidget
    )

    class Meta:
        model = InferenceModel
        fields = ("name", "source", "task", "quantization")
        help_texts = {"source": "A directory on this machine, or pypi:PACKAGE."}

    def call_verb(self, given: dict[str, Any]) -> Model:
        return request_import(
            given["name"],
            source=given["source"],
            task=given["task"],
            quantization=given["quantization"],
            actor=self.actor,
        )
