"""The roles: viewers see, operators change what is served, admins also who may."""

from django.contrib.auth.models import Group, Permission
from django.db.models import Q

_ROWS = (
    "node", "enrolment", "remotestep", "transfer", "inferencemodel", "deployment", "agent", "decision",
    "apikey", "auditevent",
)  # fmt: skip
_OPERATED = ("node", "enrolment", "inferencemodel", "deployment", "apikey")

_VIEW = Q(content_type__app_label="appliance", codename__in=[f"view_{row}" for row in _ROWS])
_OPERATE = Q(
    content_type__app_label="appliance",
    codename__in=[f"{verb}_{row}" for row in _OPERATED for verb in ("add", "change", "delete")],
)
_ADMINISTER = Q(content_type__app_label="auth", content_type__model__in=("user", "group"))

ROLES = {"viewer": _VIEW, "operator": _VIEW | _OPERATE, "admin": _VIEW | _OPERATE | _ADMINISTER}


def make_roles() -> None:
    """Give each role's group exactly its permissions; other groups are left alone."""
    for name, allowed in ROLES.items():
        group, _ = Group.objects.get_or_create(name=name)
        group.permissions.set(Permission.objects.filter(allowed))
