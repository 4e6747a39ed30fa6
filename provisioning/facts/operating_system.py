"""Which operating system `/etc/os-release` names."""

import shlex

SOURCE = "/etc/os-release"


def parse_os_name(text: str) -> str:
    """The name for people, such as `Debian GNU/Linux 12 (bookworm)`; '' where there is none."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        name, separator, value = line.strip().partition("=")
        if separator and not name.startswith("#"):
            values[name] = _unquote(value)
    named = " ".join(filter(None, (values.get("NAME"), values.get("VERSION_ID"))))
    return values.get("PRETTY_NAME") or named


def _unquote(value: str) -> str:
    try:
        return " ".join(shlex.split(value))
    except ValueError:  # a quote that never closes
        return value.strip("\"'")
