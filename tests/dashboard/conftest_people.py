"""The people of the dashboard's and the API's tests, and the password that all of them have."""

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Group, User

PASSWORD = "a-long-password"
_ROLES = {"alice": None, "oscar": "operator", "vera": "viewer", "charlie": None}


def make_people():
    """Each by name: one who administers, one of each role, and one who has none; in three statements."""
    hashed = make_password(PASSWORD)
    made = User.objects.bulk_create(
        User(username=name, password=hashed, is_superuser=name == "alice", is_staff=name != "charlie")
        for name in _ROLES
    )
    groups = {group.name: group for group in Group.objects.all()}
    belongs = User.groups.through
    belongs.objects.bulk_create(
        belongs(user=person, group=groups[role])
        for person, role in zip(made, _ROLES.values(), strict=True)
        if role
    )
    return {person.username: person for person in made}
