"""Settings that people change by name: KEY=VALUE texts, what is accepted, what a row keeps of it. Pure."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from appliance.errors import BadArgument

_WHOLE = re.compile(r"[0-9]{1,12}")
_DECIMAL = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")
_YES, _NO = ("yes", "true", "on", "1"), ("no", "false", "off", "0")
_MAX_SHOWN = 40
#: Takes a setting back to where it was before people set it.
DEFAULT = "default"

#: As people and programs give it, and as they are told it.
Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Setting:
    """One of them. `field` of the row holds what `read` makes of a value; `show` gives it as people say it.

    `read` raises ValueError where the value is not among what is `accepted`.
    """

    key: str
    field: str
    meaning: str
    accepted: str
    example: str
    read: Callable[[object], object]
    show: Callable[[object], Value]


def parse_pairs(texts: Iterable[str]) -> dict[str, str]:
    """Values by key, of texts such as `sticky=yes`. Raises BadArgument: no pair, or a key twice."""
    pairs: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise BadArgument(f"{text[:_MAX_SHOWN]!r} is not accepted: KEY=VALUE is, in one word")
        if key.strip() in pairs:
            raise BadArgument(f"{key.strip()[:_MAX_SHOWN]} is given twice: give it once")
        pairs[key.strip()] = value.strip()
    return pairs


def read_fields(settings: Sequence[Setting], given: Mapping[str, object]) -> dict[str, object]:
    """What the row is to keep, by its fields. Raises BadArgument for the first that is not accepted."""
    known = {setting.key: setting for setting in settings}
    fields: dict[str, object] = {}
    for key, value in given.items():
        setting = known.get(key)
        if setting is None:
            raise BadArgument(f"unknown setting {key[:_MAX_SHOWN]!r}; there are: {', '.join(known)}")
        try:
            fields[setting.field] = setting.read(value)
        except ValueError:
            raise BadArgument(
                f"{key} {str(value)[:_MAX_SHOWN]!r} is not accepted: {setting.accepted} is, "
                f"as {key}={setting.example}"
            ) from None
    return fields


def meant(settings: Sequence[Setting], given: Mapping[str, object], untouched: object) -> dict[str, object]:
    """What programs gave: None is the default, which `untouched`, of which nothing is set, has."""
    return {
        one.key: one.show(getattr(untouched, one.field)) if given[one.key] is None else given[one.key]
        for one in settings
        if one.key in given
    }


def show_values(settings: Sequence[Setting], row: object) -> dict[str, Value]:
    """What a row holds, by key, as people say it."""
    return {setting.key: setting.show(getattr(row, setting.field)) for setting in settings}


def to_text(value: object) -> str:
    """A value in the words in which it may be given."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.9f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def whole(key: str, field: str, meaning: str, *, least: int, most: int, example: int) -> Setting:
    """A setting that is a whole number."""

    def read(value: object) -> int:
        if isinstance(value, str) and _WHOLE.fullmatch(value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError
        return value

    accepted = f"a whole number from {least:,} to {most:,}"
    return Setting(key, field, meaning, accepted, str(example), read, lambda kept: int(str(kept)))


def decimal(
    key: str, field: str, meaning: str, *, least: float, most: float, example: float, scale: int = 0
) -> Setting:
    """A setting that is a number; with a `scale` the row keeps it times that, whole."""

    def read(value: object) -> float | int:
        if isinstance(value, str) and _DECIMAL.fullmatch(value):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise ValueError
        return round(value * scale) if scale else float(value)

    def show(kept: object) -> float:
        return float(str(kept)) / (scale or 1)

    accepted = f"a number from {to_text(least)} to {most:,.0f}"
    return Setting(key, field, meaning, accepted, to_text(example), read, show)


def flag(key: str, meaning: str) -> Setting:
    """A setting that is yes or no, kept in the field of its own name."""

    def read(value: object) -> bool:
        text = str(value).lower()
        if text not in (*_YES, *_NO):
            raise ValueError
        return text in _YES

    return Setting(key, key, meaning, "yes or no", "yes", read, bool)


def choice(key: str, meaning: str, names: Sequence[str], *, example: str) -> Setting:
    """A setting that is one of some names, kept in the field of its own name."""

    def read(value: object) -> str:
        if value not in names:
            raise ValueError
        return str(value)

    return Setting(key, key, meaning, f"one of {', '.join(names)}", example, read, str)
