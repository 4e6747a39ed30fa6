"""A dry run: what the load asks is decided and told, the number of agents stays. Standard library only."""

from dataclasses import replace

from appliance.policies.scaling import Decision


def hold_still(decision: Decision, desired: int) -> Decision:
    """The decision with the number as it is, within the bounds that people set, and what it would be.

    A number that people hold is kept to as ever.
    """
    if decision.kind == "hold":
        return decision
    bounds = decision.bounds
    stays = desired if bounds is None else min(max(desired, bounds.least), bounds.most)
    clamps = [*decision.clamps, "dry run"]
    if bounds is not None and stays != desired:
        clamps.append(f"min {bounds.least}" if stays > desired else f"max {bounds.most}")
    said = "1 agent stays" if stays == 1 else f"{stays} agents stay"
    words = f"dry run, {said}; by its load it would be {decision.replicas}: {decision.reason}"
    return replace(decision, replicas=stays, reason=words, kind="dry_run", clamps=tuple(clamps))
