"""The keys by which people set how a deployment scales."""

import pytest

from appliance.policies.scaling import ScalingPolicy
from appliance.policies.scaling_keys import KEYS, BadKey, check, policy_from, set_key


def test_keys_set_their_fields():
    """Text becomes a field's value, in its unit."""
    policy = set_key(set_key(ScalingPolicy(), "max", "8"), "target_queue_wait_ms", "500")
    assert (policy.max_agents, policy.slo_wait_s) == (8, 0.5)
    assert set_key(policy, "max_up_per_min", "3").max_up_per_min == 3
    assert set_key(policy, "max_up_per_min", "none").max_up_per_min is None


def test_a_target_in_flight_is_kept_to():
    """Whoever sets it wants concurrency looked at, too."""
    assert set_key(ScalingPolicy(), "target_in_flight", "3").by_concurrency


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("value", ["x", "-1", "nan", "inf", "1e30", ""])
def test_bad_values_are_named(name, value):
    """What is not accepted is refused with the key, the value and what is."""
    if value == "" and KEYS[name].clears:
        return
    with pytest.raises(BadKey, match=f"^{name}={value}: a (whole )?number from"):
        set_key(ScalingPolicy(), name, value)


def test_unknown_keys_are_named_with_those_there_are():
    """A misspelt key shows all of them."""
    with pytest.raises(BadKey, match="'mx' is not a key: accepted are min, max"):
        set_key(ScalingPolicy(), "mx", "1")


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (ScalingPolicy(min_agents=3, max_agents=2), "max=2 is below min=3"),
        (ScalingPolicy(panic_window_s=90), "panic_window_s=90 is above stable_window_s=60"),
    ],
    ids=["bounds", "windows"],
)
def test_contradictions_are_named(policy, said):
    """Values that cannot hold together are refused."""
    with pytest.raises(BadKey, match=said):
        check(policy)


def test_a_schedule_that_is_not_understood_takes_no_other_with_it():
    """A row may keep one whose time zone is not known any more: all others hold."""
    good = "mon-fri 08:00-18:00 Europe/Berlin min=3"
    kept = {"schedule": ["daily 08:00-18:00 Nowhere/City min=9", good, 7], "idle_s": 20}
    policy = policy_from(ScalingPolicy(), kept)
    assert ([one.text for one in policy.schedules], policy.idle_s) == ([good], 20.0)
