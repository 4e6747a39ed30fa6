"""Verbs on models: ask for an import, remove a model. The worker does the work."""

import logging

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import ProtectedError, Q

from appliance import audit
from appliance.catalog.errors import CatalogError
from appliance.catalog.sources import parse_source
from appliance.catalog.store import Store
from appliance.errors import Conflict, VerbError, explain
from appliance.models import Deployment, InferenceModel, Revision

log = logging.getLogger(__name__)

TASKS = ("embed",)
QUANTIZATIONS = ("int8", "float32")


def request_import(
    name: str, *, source: str, task: str = "embed", quantization: str = "int8", actor: str
) -> InferenceModel:
    """Write down that a model is wanted. A finished or running import of the same is left as it is.

    A finished one whose files are gone or cut off is done again, so that what is deployed from it can
    start again.

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
                raise Conflict(
                    f"model {name!r} exists ({entry.source}, {entry.task}, {entry.quantization}): "
                    "take another name, or remove it first"
                )
            elif entry.state == InferenceModel.State.FAILED or _is_damaged(entry):
                _begin_again(entry)
            audit.record(actor, "import_model", name, source=canonical, task=task, quantization=quantization)
    except ValidationError as error:
        raise explain(error) from None
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
            users = ", ".join(_users(entry))
            raise Conflict(f"model {name!r} is used by: {users}; undeploy those first") from None
        audit.record(actor, "remove_model", name)
        transaction.on_commit(lambda: _remove_files(entry.digest))


def _users(entry: InferenceModel) -> list[str]:
    """Deployments that use it now, or that keep an older revision of it."""
    now = set(entry.deployments.values_list("name", flat=True))
    before = Deployment.objects.filter(revisions__model=entry).values_list("name", flat=True)
    return sorted(now) + sorted(f"{name} (an older revision)" for name in set(before) - now)


def _begin_again(entry: InferenceModel) -> None:
    entry.state, entry.stage, entry.percent = InferenceModel.State.IMPORTING, "", 0.0
    entry.error, entry.hint, entry.attempt = "", "", 0
    entry.save()


def _store() -> Store:
    return Store(settings.ENVIRONMENT.models_dir)


def _is_damaged(entry: InferenceModel) -> bool:
    """Whether a finished import's files are not what its manifest lists; by size, as agents look."""
    if entry.state != InferenceModel.State.READY:
        return False
    try:
        folder, files = _store().path(entry.digest), _store().read(entry.digest)["files"]
        return any((folder / file["path"]).stat().st_size != file["bytes"] for file in files)
    except (CatalogError, OSError):
        return True


def _remove_files(digest: str) -> None:
    """Remove a model's files, unless another model or a revision has that content, or may have it soon."""
    same = Q(digest=digest) | Q(state=InferenceModel.State.IMPORTING)
    used = InferenceModel.objects.filter(same).exists() or Revision.objects.filter(digest=digest).exists()
    if digest and not used:
        try:
            _store().remove(digest)
        except CatalogError as error:
            log.warning("files of a removed model are left: %s", error)
