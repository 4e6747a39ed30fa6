"""What our admin pages share: read-only rows, and verbs behind forms and confirmed actions."""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin

from appliance.errors import VerbError

CONFIRMED = "confirmed"


class ReadOnlyAdmin(ModelAdmin):
    """Rows that only the appliance writes."""

    actions: Sequence[Any] = ()
    list_disable_select_all = True

    def has_add_permission(self, _request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, _request: HttpRequest, _obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, _request: HttpRequest, _obj: Model | None = None) -> bool:
        return False


class VerbAdmin(ModelAdmin):
    """Rows that change through verbs alone: the form calls one, and nothing is ever deleted here."""

    def has_delete_permission(self, _request: HttpRequest, _obj: Model | None = None) -> bool:
        """Never: an action with a verb of its own takes the place of deleting."""
        return False

    def get_form(
        self, request: HttpRequest, obj: Model | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        """The form, knowing who asks."""
        form = super().get_form(request, obj, change, **kwargs)
        return type(form.__name__, (form,), {"actor": request.user.get_username()})

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        """With one button: a verb is called once, and then its outcome is shown."""
        context |= {"show_save_and_add_another": False, "show_save_and_continue": False}
        return super().render_change_form(request, context, *args, **kwargs)

    def save_model(self, request: HttpRequest, obj: Model, form: Any, change: bool) -> None:
        """Nothing: the form's verb has written what is wanted."""


def confirm_and_run(
    page: ModelAdmin,
    request: HttpRequest,
    rows: QuerySet[Any],
    *,
    action: str,
    question: str,
    consequence: str,
    done: str,
    verb: Callable[[str], object],
) -> HttpResponse | None:
    """Show what would happen to the chosen rows; when confirmed, call `verb(name)` for each.

    The page comes back to the change list as its action `action`, which calls this again.
    """
    names = list(rows.values_list("name", flat=True))
    if request.method == "POST" and CONFIRMED in request.POST:
        _run(page, request, names, verb, done)
        return None
    options = page.model._meta  # noqa: SLF001 - Django's own name for it
    context = {
        **admin.site.each_context(request),
        "title": question,
        "opts": options,
        "names": names,
        "keys": list(rows.values_list("pk", flat=True)),
        "consequence": consequence,
        "action": action,
        "action_field": "action",
        "checkbox": helpers.ACTION_CHECKBOX_NAME,
        "confirmed": CONFIRMED,
        "back": reverse(f"admin:{options.app_label}_{options.model_name}_changelist"),
    }
    return TemplateResponse(request, "dashboard/confirm.html", context)


def _run(
    page: ModelAdmin, request: HttpRequest, names: Iterable[str], verb: Callable[[str], object], done: str
) -> None:
    succeeded = 0
    for name in names:
        try:
            verb(name)
        except VerbError as error:
            page.message_user(request, str(error), messages.ERROR)
        else:
            succeeded += 1
    if succeeded:
        page.message_user(request, f"{succeeded} {done}.", messages.SUCCESS)


def show_state(state: str) -> SafeString:
    """A state as a coloured word."""
    return format_html('<span class="mw-state" data-state="{}">{}</span>', state, state)


def show_link(address: str, text: str) -> SafeString:
    """A link to a page of ours."""
    return format_html('<a href="{}">{}</a>', address, text)


def show_problem(text: str) -> SafeString:
    """What is wrong, to stand out among what is not."""
    return format_html('<span class="mw-problem">{}</span>', text)


def show_json(value: object) -> SafeString:
    """A document, indented."""
    return format_html('<pre class="mw-json">{}</pre>', json.dumps(value, indent=2, sort_keys=True))
