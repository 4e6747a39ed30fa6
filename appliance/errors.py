"""What a verb says when it cannot do what was asked."""

from django.core.exceptions import ValidationError


class VerbError(Exception):
    """Refused, with nothing done. `str()` is one line: what is wrong and what to do."""


class BadArgument(VerbError):
    """Refused because of what was given, however things stand: a key or a value that is never accepted."""


class Conflict(VerbError):
    """Refused because of how things stand, not of what was asked: it may be accepted later."""


def explain(error: ValidationError) -> VerbError:
    """The refusal for fields that are not acceptable; each is named, but for a name, which names itself."""
    return VerbError(
        "; ".join(
            message if field == "name" else f"{field.removesuffix('_agents')}: {message}"
            for field, messages in error.message_dict.items()
            for message in messages
        )
    )
