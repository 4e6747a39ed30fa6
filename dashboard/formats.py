"""Numbers as people read them. Pure; what is not known is a dash."""

from collections.abc import Mapping
from typing import Any

from appliance.agent_shapes import shape_text

UNKNOWN = "–"  # noqa: RUF001 - an en dash is meant


def format_rate(value: float | None) -> str:
    """Per second: a decimal below 100, none above."""
    if value is None:
        return UNKNOWN
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def format_ms(value: float | None) -> str:
    """Milliseconds, seconds from 10,000 ms on."""
    if value is None:
        return UNKNOWN
    if value >= 10_000:
        return f"{value / 1000:.1f} s"
    return f"{value:.1f} ms" if value < 100 else f"{value:,.0f} ms"


def format_count(value: float | None) -> str:
    """A whole number with thousands set apart."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def format_percent(value: float | None) -> str:
    """A whole percentage."""
    return UNKNOWN if value is None else f"{value:.0f} %"


def format_bytes(value: float | None) -> str:
    """In the largest decimal unit that leaves at least one."""
    if not value:
        return UNKNOWN
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def format_shape(described: Mapping[str, Any]) -> str:
    """How large an agent is, in the words of `shape_text`."""
    return shape_text(described).replace("->", "→") or UNKNOWN


def format_age(seconds: float | None) -> str:
    """How long ago, in the largest whole unit."""
    if seconds is None:
        return UNKNOWN
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
