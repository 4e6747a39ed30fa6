"""What people say of where a deployment's agents go. Standard library only.

`require` and `avoid` are limits: an agent that breaks them moves away. All else is a preference: where it
cannot be had, an agent goes where there is room.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

Spread = Literal["none", "node", "region"]
Base = Literal["owned", "any"]
Prefer = Literal["speed", "cost", "fewest"]
SPREADS: Final = get_args(Spread)
BASES: Final = get_args(Base)
PREFERS: Final = get_args(Prefer)


@dataclass(frozen=True, slots=True)
class PlacementRules:
    """The rules of one deployment. Labels are (name, value); an avoided label without a value is any of it.

    `regions` are preferred, the first most. `spread` keeps agents apart; with `base` owned the first agents
    (the minimum and the warm floor) go on nodes that are not preemptible. `prefer` is the fastest node, the
    cheapest, or the fewest nodes.
    """

    require: tuple[tuple[str, str], ...] = ()
    avoid: tuple[tuple[str, str], ...] = ()
    regions: tuple[str, ...] = ()
    spread: Spread = "none"
    base: Base = "owned"
    prefer: Prefer = "speed"

    @property
    def limits(self) -> bool:
        """Whether a node may be forbidden at all."""
        return bool(self.require or self.avoid)

    @property
    def packs(self) -> bool:
        """Whether agents are brought together so that nodes become empty."""
        return self.prefer != "speed" and self.spread == "none"

    def why_not(self, labels: Mapping[str, str]) -> str:
        """Why a node with these labels is forbidden, '' where it is not."""
        for name, value in self.require:
            if labels.get(name) != value:
                return f"lacks the label {name}={value}"
        for name, value in self.avoid:
            if name in labels and value in ("", labels[name]):
                return f"has the label {name}={labels[name]}, which is avoided"
        return ""

    def region_rank(self, region: str) -> int:
        """How far down the list of preferred regions it is; all that are not named come after."""
        return self.regions.index(region) if region in self.regions else len(self.regions)

    def to_json(self) -> dict[str, Any]:
        """As a deployment's row keeps it: only what differs from the default."""
        kept: dict[str, Any] = {}
        for name in ("require", "avoid"):
            pairs = getattr(self, name)
            if pairs:
                kept[name] = [list(pair) for pair in pairs]
        if self.regions:
            kept["regions"] = list(self.regions)
        for name in ("spread", "base", "prefer"):
            if getattr(self, name) != getattr(DEFAULT_RULES, name):
                kept[name] = getattr(self, name)
        return kept


DEFAULT_RULES: Final = PlacementRules()


def rules_from_json(kept: Mapping[str, Any]) -> PlacementRules:
    """The opposite of `to_json`. Of what this version does not understand each part is at its default."""
    return PlacementRules(
        require=_pairs(kept.get("require")),
        avoid=_pairs(kept.get("avoid")),
        regions=tuple(str(one) for one in kept.get("regions") or ()),
        spread=_one_of(SPREADS, kept.get("spread"), DEFAULT_RULES.spread),
        base=_one_of(BASES, kept.get("base"), DEFAULT_RULES.base),
        prefer=_one_of(PREFERS, kept.get("prefer"), DEFAULT_RULES.prefer),
    )


def _pairs(kept: Any) -> tuple[tuple[str, str], ...]:
    try:
        return tuple((str(name), str(value)) for name, value in kept or ())
    except (TypeError, ValueError):
        return ()


def _one_of(accepted: tuple[Any, ...], kept: Any, default: Any) -> Any:
    return kept if kept in accepted else default
