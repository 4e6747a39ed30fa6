"""Users and groups, in the theme's clothes; changes go into the audit log."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from appliance import audit

admin.site.unregister(User)
admin.site.unregister(Group)


class AuditedAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # generic in the stubs alone
    """Writes an audit event for each row it adds, changes or deletes."""

    def log_addition(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        """Also into the audit log."""
        _record(request, "add", obj)
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        """Also into the audit log."""
        _record(request, "change", obj)
        return super().log_change(request, obj, message)

    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        """Also into the audit log."""
        _record(request, "delete", obj)
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Also into the audit log."""
        for obj in queryset:
            _record(request, "delete", obj)
        super().delete_queryset(request, queryset)


@admin.register(User)
class UserAdmin(AuditedAdmin, DjangoUserAdmin, ModelAdmin):  # type: ignore[type-arg]  # generic in the stubs alone
    """Users. Only a superuser makes superusers, gives single permissions, or touches a superuser."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        """Who is no superuser cannot make one."""
        return () if request.user.is_superuser else ("is_superuser", "user_permissions")

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return _may_touch(request, obj) and bool(super().has_change_permission(request, obj))

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return _may_touch(request, obj) and bool(super().has_delete_permission(request, obj))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Superusers are for superusers alone, also in bulk actions."""
        users: QuerySet[Any] = super().get_queryset(request)
        return users if request.user.is_superuser else users.filter(is_superuser=False)

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:  # noqa: A002 - Django's signature
        """Not a superuser's, except by a superuser."""
        if not _may_touch(request, self.get_object(request, id)):
            raise PermissionDenied
        response: HttpResponse = super().user_change_password(request, id, form_url)
        return response


@admin.register(Group)
class GroupAdmin(AuditedAdmin, DjangoGroupAdmin, ModelAdmin):
    """Groups; `viewer`, `operator` and `admin` get their own permissions back at each upgrade."""


def _may_touch(request: HttpRequest, obj: Model | None) -> bool:
    return request.user.is_superuser or not getattr(obj, "is_superuser", False)


def _record(request: HttpRequest, what: str, obj: Model) -> None:
    kind = obj._meta.model_name  # noqa: SLF001 - Django's own name for it
    audit.record(request.user.get_username(), f"{what}_{kind}", str(obj)[:128])
