"""Verbs on API keys."""

import hashlib
import secrets
from dataclasses import dataclass, field

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone

from appliance import audit
from appliance.errors import Conflict, VerbError, explain
from appliance.models import ApiKey
from appliance.policies.snapshot import Generation
from appliance.publish import touch_routes

#: Opens the management API, with an operator's rights.
MANAGE = "manage"
SCOPES = ("inference", "metrics", MANAGE)


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A new key. `secret` is the key itself: shown once, kept nowhere."""

    name: str
    secret: str = field(repr=False)
    generation: Generation


def create_key(
    name: str, *, team: str = "", rpm: int | None = None, scopes: tuple[str, ...] = ("inference",), actor: str
) -> CreatedKey:
    """Make a key of 256 random bits; gateways accept it once they serve the generation returned.

    Raises VerbError where the name is taken by a live key, or name, rpm or a scope is not acceptable.
    """
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        raise VerbError(
            f"scope {', '.join(unknown) or '(none)'} is unknown; accepted are: {', '.join(SCOPES)}"
        )
    secret = f"mw-{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(secret.encode()).hexdigest()
    key = ApiKey(name=name, team=team, sha256=digest, rpm=rpm, scopes=list(scopes))
    try:
        with transaction.atomic():
            key.clean_fields()
            key.save()
            audit.record(actor, "create_key", name, team=team, rpm=rpm, scopes=list(scopes))
            generation = touch_routes()
    except IntegrityError:
        raise Conflict(
            f"key {name!r} exists; its text cannot be shown again: revoke it first, or take another name"
        ) from None
    except ValidationError as error:
        raise explain(error) from None
    return CreatedKey(name, secret, generation)


def revoke_key(name: str, *, actor: str) -> Generation:
    """End a key; gateways refuse it once they serve the generation returned.

    Revoking a key that was revoked before changes nothing. Raises VerbError where no key ever
    had the name.
    """
    with transaction.atomic():
        revoked = ApiKey.objects.filter(name=name, revoked_at__isnull=True).update(revoked_at=timezone.now())
        if not revoked and not ApiKey.objects.filter(name=name).exists():
            known = ", ".join(
                ApiKey.objects.filter(revoked_at__isnull=True).values_list("name", flat=True)[:20]
            )
            raise VerbError(f"no key is named {name!r}; live keys: {known or '(none)'}")
        if revoked:
            audit.record(actor, "revoke_key", name)
        return touch_routes()
