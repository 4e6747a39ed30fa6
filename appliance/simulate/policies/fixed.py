"""As many agents as there may be, always: what no policy beats in misses."""

from appliance.simulate.plant import Plant, Seen


class FixedMax:
    """Never changes."""

    name = "fixed-max"

    def __init__(self, plant: Plant) -> None:
        self.initial = plant.max_agents

    def want(self, seen: Seen) -> int:
        """The most there may be."""
        del seen
        return self.initial
