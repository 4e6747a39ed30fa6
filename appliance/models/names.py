"""What names may look like: they stand in URLs, file names, metrics and log lines."""

from django.core.validators import RegexValidator

NAME_PATTERN = r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$"

validate_name = RegexValidator(
    NAME_PATTERN,
    "%(value)r is no name: 1 to 63 lower-case letters, digits, dots, dashes and underscores are "
    "accepted, the first and the last a letter or digit",
)
