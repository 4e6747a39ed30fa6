"""Models: import with live progress, remove."""

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.loader import render_to_string
from django.urls import URLPattern, path, reverse
from unfold.decorators import display

from appliance.imports import remove_model
from appliance.models import InferenceModel
from dashboard.admin.bases import VerbAdmin, confirm_and_run, show_json
from dashboard.formats import format_bytes
from dashboard.forms.verbs import ImportForm

#: htmx stops asking when it gets this status.
_STOP_POLLING = 286


@admin.register(InferenceModel)
class InferenceModelAdmin(VerbAdmin):
    """The catalog, and how imports stand."""

    list_display = ("name", "source", "task", "quantization", "show_progress", "show_size", "created_at")
    search_fields = ("name", "source")
    actions = ("remove_chosen",)
    readonly_fields = ("show_progress", "show_size", "show_manifest")

    def get_form(
        self, request: HttpRequest, obj: Model | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        """The form of a new import; an existing model's page has no fields to change."""
        return super().get_form(
            request, obj, change, **({"form": ImportForm} | kwargs if obj is None else kwargs)
        )

    def get_fields(self, _request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        """What is asked, or what is known."""
        asked = ("name", "source", "task", "quantization")
        known = ("show_progress", "digest", "show_size", "show_manifest", "created_at", "finished_at")
        return asked if obj is None else (*asked, *known)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """A model is never changed; who may change models may remove them (the list's actions)."""
        return obj is None and bool(super().has_change_permission(request, obj))

    def has_remove_permission(self, request: HttpRequest) -> bool:
        """Whoever may delete models may remove them from the catalog."""
        return bool(request.user.has_perm("appliance.delete_inferencemodel"))

    def response_add(
        self, request: HttpRequest, obj: Model, post_url_continue: str | None = None
    ) -> HttpResponse:
        """On to the model's page, where the progress is."""
        return HttpResponseRedirect(reverse("admin:appliance_inferencemodel_change", args=(obj.pk,)))

    def get_urls(self) -> list[URLPattern]:
        """With the progress that pages ask for while an import runs."""
        progress = path(
            "<int:pk>/progress/",
            self.admin_site.admin_view(self.progress_view),
            name="appliance_inferencemodel_progress",
        )
        return [progress, *super().get_urls()]

    def progress_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """How an import stands; the last answer tells the page to stop asking."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        row = get_object_or_404(InferenceModel, pk=pk)
        running = row.state == InferenceModel.State.IMPORTING
        return HttpResponse(_render_progress(row), status=200 if running else _STOP_POLLING)

    @display(description="State")
    def show_progress(self, row: InferenceModel) -> str:
        return _render_progress(row)

    @display(description="Size")
    def show_size(self, row: InferenceModel) -> str:
        return format_bytes(row.size_bytes)

    @display(description="Manifest")
    def show_manifest(self, row: InferenceModel) -> str:
        return show_json(row.manifest)

    @admin.action(description="Remove from the catalog", permissions=["remove"])
    def remove_chosen(self, request: HttpRequest, rows: QuerySet[InferenceModel]) -> HttpResponse | None:
        """Remove the chosen ones, where no deployment uses them."""
        actor = request.user.get_username()
        return confirm_and_run(
            self, request, rows,
            action="remove_chosen",
            question="Remove from the catalog?",
            consequence="A model that a deployment uses is kept. Others have to be imported again.",
            done="removed",
            verb=lambda name: remove_model(name, actor=actor),
        )  # fmt: skip


def _render_progress(row: InferenceModel) -> str:
    return render_to_string("dashboard/_progress.html", {"row": row})
