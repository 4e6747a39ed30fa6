"""How many agents more, or fewer, there may be within a minute. Standard library only."""

from appliance.policies.scaling_facts import ScalingPolicy

_MINUTE_S = 60.0

#: (Time, agents more or fewer), oldest first.
Steps = tuple[tuple[float, int], ...]


def last_minute(steps: Steps, now: float) -> Steps:
    """Those that still count."""
    return tuple(step for step in steps if now - step[0] < _MINUTE_S)


def add_step(steps: Steps, now: float, change: int) -> Steps:
    """With one more, which may be none."""
    return (*last_minute(steps, now), (now, change)) if change else steps


def limit_steps(policy: ScalingPolicy, steps: Steps, current: int, want: int) -> tuple[int, str]:
    """The number as far as people allow it, and what to say of that, '' where it is what was wanted.

    With 3 more a minute allowed and 2 of them made, 9 wanted of 5 are 6.
    """
    up = sum(step for _, step in steps if step > 0)
    down = -sum(step for _, step in steps if step < 0)
    if policy.max_up_per_min is not None:
        most = current + max(0, policy.max_up_per_min - up)
        if want > most:
            return most, f"at most {policy.max_up_per_min} more a minute"
    if policy.max_down_per_min is not None:
        least = current - max(0, policy.max_down_per_min - down)
        if want < least:
            return least, f"at most {policy.max_down_per_min} fewer a minute"
    return want, ""
