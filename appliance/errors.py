"""What a verb says when it cannot do what was asked."""


class VerbError(Exception):
    """Refused, with nothing done. `str()` is one line: what is wrong and what to do."""
