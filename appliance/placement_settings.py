"""Where a deployment's agents go: the settings of that which people change. Pure."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from appliance.errors import VerbError
from appliance.node_attributes import check_labels, check_region
from appliance.policies.placement_rules import (
    BASES,
    PREFERS,
    SPREADS,
    PlacementRules,
)
from appliance.row_settings import Setting, choice

#: Of labels and of regions, each.
MOST_NAMED: Final = 16
NONE: Final = "none"


def _list(key: str, words: tuple[str, str, str], read: Callable[[str], Any], join: Any) -> Setting:
    """A setting that is a list; `words` are its meaning, what is accepted, and an example."""

    def read_value(value: object) -> object:
        text = str(value) if isinstance(value, str) else "?"
        parts = [] if text.strip() in ("", NONE) else [part.strip() for part in text.split(",")]
        if len(parts) > MOST_NAMED or len(set(parts)) < len(parts):
            raise ValueError
        try:
            return tuple(read(part) for part in parts)
        except VerbError as error:
            raise ValueError(str(error)) from None

    return Setting(key, key, *words, read_value, lambda kept: join(kept) or NONE)


def _label(text: str, *, any_value: bool) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals and not any_value:
        raise VerbError("a label has a value")
    [(key, label)] = check_labels({name.strip(): value.strip()}).items()
    if equals and not label:
        raise VerbError("a label has a value")
    return key, label


def _region(text: str) -> str:
    if not text:
        raise VerbError("a region has a name")
    return check_region(text)


def _join_labels(kept: Any) -> str:
    return ",".join(f"{name}={value}" if value else name for name, value in kept)


PLACEMENT: Final[tuple[Setting, ...]] = (
    _list(
        "require",
        (
            "labels that a node must have", f"at most {MOST_NAMED} labels NAME=VALUE, or none",
            "disk=ssd,rack=a1",
        ),
        lambda part: _label(part, any_value=False), _join_labels,
    ),
    _list(
        "avoid",
        (
            "labels that a node must not have; without a value, whatever it is",
            f"at most {MOST_NAMED} labels NAME=VALUE or NAME, or none", "disk=hdd",
        ),
        lambda part: _label(part, any_value=True), _join_labels,
    ),
    _list(
        "regions",
        (
            "regions that are preferred, the first most", f"at most {MOST_NAMED} regions, or none",
            "berlin,paris",
        ),
        _region, ",".join,
    ),
    choice("spread", "over what agents are spread evenly", SPREADS, example="region"),
    choice(
        "base", "whether the first agents (min and warm_floor) go on nodes that are not preemptible", BASES,
        example="owned",
    ),
    choice("prefer", "the fastest nodes, the cheapest, or as few as possible", PREFERS, example="cost"),
)  # fmt: skip


def with_changes(rules: PlacementRules, fields: dict[str, object]) -> PlacementRules:
    """The rules with these fields. Raises VerbError where one contradicts another."""
    changes: dict[str, Any] = dict(fields)
    changed = replace(rules, **changes)
    for name, value in changed.avoid:
        if any(name == one and value in ("", of) for one, of in changed.require):
            raise VerbError(f"label {name} is both required and avoided: take it out of require or avoid")
    return changed
