"""When nodes sleep and wake, for the whole fleet: the settings that people change. Pure."""

from typing import Final

from appliance.row_settings import Setting, choice, whole

HOURS_S: Final = 7 * 24 * 3600
MOST_NODES: Final = 10_000

POWER: Final[tuple[Setting, ...]] = (
    whole(
        "sleep_after_s", "sleep_after_s", "seconds that a node holds nothing before it sleeps, 0: never",
        least=0, most=HOURS_S, example=600,
    ),
    choice(
        "sleep_how", "how nodes sleep; those with exec: are always powered off", ("suspend", "power_off"),
        example="suspend",
    ),
    whole(
        "headroom_nodes", "headroom_nodes", "nodes without agents that are always kept awake",
        least=0, most=MOST_NODES, example=1,
    ),
    whole(
        "headroom_agents", "headroom_agents", "agents of the largest model that there is always room for",
        least=0, most=MOST_NODES, example=4,
    ),
    whole(
        "stay_awake_s", "stay_awake_s", "seconds that a node stays awake after it was woken",
        least=0, most=HOURS_S, example=300,
    ),
    whole(
        "wake_timeout_s", "wake_timeout_s", "seconds that a node may take to wake, for each of three tries",
        least=5, most=3600, example=180,
    ),
    whole(
        "changes_per_10min", "changes_per_10min", "how often load may change one node in ten minutes",
        least=1, most=100, example=4,
    ),
    whole(
        "changes_per_tick", "changes_per_tick", "nodes that load puts to sleep, or wakes, in one tick",
        least=1, most=MOST_NODES, example=2,
    ),
)  # fmt: skip
