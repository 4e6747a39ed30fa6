"""What the last hour would have been, had a deployment scaled otherwise: from its row and its record."""

import copy
import time
from collections.abc import Mapping
from typing import Any

from appliance.control.inputs import WHOLE_EVERY_S, read_ticks
from appliance.deployments import find_deployment
from appliance.models import Deployment
from appliance.plain_values import to_plain
from appliance.policies.scaling import ScalingPolicy
from appliance.scaling_settings import apply_changes, wanted_policy
from appliance.simulate.last_hour import SPAN_S, Comparison, Side, compare_policies

HEADS = ("", "before", "with the change")


def compare_last_hour(name: str, changes: Mapping[str, object]) -> Comparison:
    """The values as they are beside those with the changes, as `set_scaling` takes them. Changes nothing.

    Raises VerbError where the name, a key or a value is not acceptable. It takes up to a few seconds.
    """
    row = find_deployment(name)
    other = copy.deepcopy(row)
    apply_changes(other, changes)
    return compare_rows(row, other)


def compare_rows(old: Deployment, new: Deployment) -> Comparison:
    """A deployment as it was beside itself as it is now, or is to be."""
    ticks = [*read_ticks(old.name, time.time() - SPAN_S - WHOLE_EVERY_S)]
    known = ticks[-1].given.policy if ticks else ScalingPolicy()
    policies = [wanted_policy(row, slots=known.slots, capacity_rps=known.capacity_rps) for row in (old, new)]
    return compare_policies(ticks, *policies)


def comparison_rows(comparison: Comparison) -> list[tuple[str, str, str]]:
    """A line each: what, by the values before, with the change. Empty where nothing could be compared."""
    old, new = comparison.old, comparison.new
    if old is None or new is None:
        return []
    return [
        (f"waited over {comparison.slo_wait_s:g} s", _missed(old), _missed(new)),
        ("agent-seconds", f"{old.agent_seconds:,.0f}", f"{new.agent_seconds:,.0f}"),
        ("agents at most", str(old.highest), str(new.highest)),
        ("agents started", str(old.cold_starts), str(new.cold_starts)),
        ("changes of the number", str(old.changes), str(new.changes)),
    ]


def _missed(side: Side) -> str:
    return f"{side.misses:,} ({side.misses_percent:.2f} %)"


def comparison_heading(comparison: Comparison) -> str:
    """What the lines are about, or why there are none."""
    if comparison.why_not:
        return f"the last hour cannot be compared: {comparison.why_not}"
    slots = "1 slot" if comparison.slots == 1 else f"{comparison.slots} slots"
    without = f", without {' and '.join(comparison.left_out)}" if comparison.left_out else ""
    return (
        f"the last {comparison.seconds / 60:.0f} min under these values, simulated{without}: "
        f"{comparison.requests:,} requests of {comparison.service_s:.2f} s on agents with {slots} and "
        f"{comparison.start_s:g} s to start"
    )


def comparison_document(comparison: Comparison) -> dict[str, Any]:
    """As JSON types."""
    document: dict[str, Any] = to_plain(comparison)
    return document


def comparison_lines(comparison: Comparison) -> list[str]:
    """For people at a terminal."""
    rows = comparison_rows(comparison)
    widths = [max((len(row[column]) for row in (HEADS, *rows)), default=0) for column in range(3)]
    table = (HEADS, *rows) if rows else ()
    return [
        comparison_heading(comparison),
        *(f"  {row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}" for row in table),
    ]
