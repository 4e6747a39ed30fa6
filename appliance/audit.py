"""Writing the audit log."""

from appliance.models import AuditEvent


def record(actor: str, verb: str, target: str, **detail: object) -> None:
    """Add one event, inside the caller's transaction. No secret may be in `detail`."""
    AuditEvent.objects.create(actor=actor, verb=verb, target=target, detail=detail)
