"""API keys: create, show once, revoke."""

from typing import Any

from django.contrib import admin
from django.db.models import F, Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.cache import add_never_cache_headers
from unfold.decorators import display

from appliance.keys import revoke_key
from appliance.models import ApiKey
from dashboard.admin.bases import VerbAdmin, confirm_and_run, show_state
from dashboard.forms.verbs import KeyForm


@admin.register(ApiKey)
class ApiKeyAdmin(VerbAdmin):
    """Keys by name; their text is not kept."""

    list_display = ("name", "team", "show_rpm", "show_scopes", "show_key_state", "created_at", "revoked_at")
    ordering = (F("revoked_at").desc(nulls_first=True), "name")
    list_filter = ("team", ("revoked_at", admin.EmptyFieldListFilter))
    search_fields = ("name", "team")
    actions = ("revoke_chosen",)

    def get_form(
        self, request: HttpRequest, obj: Model | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        """The form of a new key; an existing one's page has no fields to change."""
        return super().get_form(
            request, obj, change, **({"form": KeyForm} | kwargs if obj is None else kwargs)
        )

    def get_fields(self, _request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        """What is asked, or what is known."""
        known = ("name", "team", "rpm", "scopes")
        return known if obj is None else (*known, "created_at", "revoked_at")

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """A key is never changed; who may change keys may revoke them (the list's actions)."""
        return obj is None and bool(super().has_change_permission(request, obj))

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        """Whoever may delete keys may revoke them."""
        return bool(request.user.has_perm("appliance.delete_apikey"))

    @display(description="Requests/min")
    def show_rpm(self, row: ApiKey) -> str:
        return "no limit" if row.rpm is None else f"{row.rpm:,}"

    @display(description="Scopes")
    def show_scopes(self, row: ApiKey) -> str:
        return ", ".join(row.scopes)

    @display(description="State")
    def show_key_state(self, row: ApiKey) -> str:
        return show_state("active" if row.revoked_at is None else "revoked")

    def response_add(
        self, request: HttpRequest, obj: Model, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show the key, this once."""
        context = {
            **self.admin_site.each_context(request),
            "title": "Key created",
            "opts": self.model._meta,  # noqa: SLF001 - Django's own name for it
            "created": request.created_key,  # type: ignore[attr-defined]  # set by save_model
        }
        response = TemplateResponse(request, "dashboard/key_created.html", context)
        add_never_cache_headers(response)
        return response

    def save_model(self, request: HttpRequest, obj: Model, form: Any, change: bool) -> None:
        """Keep the new key at hand for the answer to this request."""
        request.created_key = form.created  # type: ignore[attr-defined]  # read by response_add

    @admin.action(description="Revoke", permissions=["revoke"])
    def revoke_chosen(self, request: HttpRequest, rows: QuerySet[ApiKey]) -> HttpResponse | None:
        """End the chosen keys."""
        actor = request.user.get_username()
        return confirm_and_run(
            self, request, rows.filter(revoked_at__isnull=True),
            action="revoke_chosen",
            question="Revoke?",
            consequence="Requests with these keys are refused from the next second on. It cannot be undone.",
            done="revoked",
            verb=lambda name: revoke_key(name, actor=actor),
        )  # fmt: skip
