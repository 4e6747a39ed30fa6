"""Verbs on models: ask for an import, remove a model. The worker does the work."""

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import ProtectedError

from appliance import audit
from appliance.catalog.sources import parse_source
from appliance.errors import VerbError
from appliance.models import InferenceModel

TASKS = ("embed",)
QUANTIZATIONS = ("int8", "float32")


def request_import(
    name: str, *, source: str, task: str = "embed", quantization: str = "int8", actor: str
) -> InferenceModel:
    """Write down that a model is wanted. A finished or running import of the same is left as it is.

    Raises VerbError where the source, task or quantization is not acceptable, or the name is
    that of a model from another source.
    """
    if task not in TASKS:
        raise VerbError(f"task {task!r} is unknown; accepted are: {', '.join(TASKS)}")
    if quantization not in QUANTIZATIONS:
        raise VerbError(f"quantization {quantization!r} is unknown; accepted are: {', '.join(QUANTIZATIONS)}")
    try:
        canonical = str(parse_source(source))
    except ValueError as error:
        raise VerbError(str(error)) from None
    try:
        with transaction.atomic():
            entry = InferenceModel.objects.filter(name=name).first()
            if entry is None:
                entry = InferenceModel(name=name, source=canonical, task=task, quantization=quantization)
                entry.clean_fields()
                entry.save()
            elif (entry.source, entry.task, entry.quantization) != (canonical, task, quantization):
                raise VerbError(
                    f"model {name!r} exists ({entry.source}, {entry.task}, {entry.quantization}): "
                    "take another name, or remove it first"
                )
            elif entry.state == InferenceModel.State.FAILED:
                entry.state, entry.error, entry.hint, entry.attempt = (
                    InferenceModel.State.IMPORTING,
                    "",
                    "",
                    0,
                )
                entry.stage, entry.percent = "", 0.0
                entry.save()
            audit.record(actor, "import_model", name, source=canonical, task=task, quantization=quantization)
    except ValidationError as error:
        raise VerbError("; ".join(error.messages)) from None
    return entry


def remove_model(name: str, *, actor: str) -> None:
    """Remove a model from the catalog. Raises VerbError where it is used, or there is none."""
    with transaction.atomic():
        entry = InferenceModel.objects.filter(name=name).first()
        if entry is None:
            raise VerbError(f"no model is named {name!r}")
        try:
            entry.delete()
        except ProtectedError:
            users = ", ".join(entry.deployments.values_list("name", flat=True))
            raise VerbError(f"model {name!r} is used by: {users}; undeploy those first") from None
        audit.record(actor, "remove_model", name)
