"""How a deployment is served: the settings of its route that people change. Pure."""

from typing import Final

from appliance.gateway.cache import DETERMINISTIC
from appliance.policies.balancing import DEFAULT_POLICY, policy_names
from appliance.row_settings import Setting, choice, decimal, flag, whole

BYTES_PER_MB: Final = 1_000_000
LEAST_DEADLINE_S: Final = 0.1
MOST_DEADLINE_S: Final = 86_400.0
MOST_QUEUED: Final = 100_000
MOST_QUEUED_TOKENS: Final = 1_000_000_000
MOST_CACHE_MB: Final = 4096.0

SERVING: Final[tuple[Setting, ...]] = (
    choice("balancing", "which agent takes a request", policy_names(), example=DEFAULT_POLICY),
    whole(
        "queue_limit", "queue_limit", "requests that may wait in each gateway",
        least=1, most=MOST_QUEUED, example=1000,
    ),
    whole(
        "queue_tokens", "queue_tokens", "tokens of work that may wait in each gateway",
        least=1, most=MOST_QUEUED_TOKENS, example=4_000_000,
    ),
    decimal(
        "deadline_s", "deadline_s", "seconds until a request is given up; x-deadline-ms may only shorten it",
        least=LEAST_DEADLINE_S, most=MOST_DEADLINE_S, example=60.0,
    ),
    decimal(
        "cache_mb", "cache_bytes", "MB of answers that each gateway keeps and gives again, 0: none",
        least=0.0, most=MOST_CACHE_MB, example=64.0, scale=BYTES_PER_MB,
    ),
    flag("cache_shared", "answers kept of one team are given to others too"),
    flag("sticky", "requests of one x-session go to one agent while it has room"),
    flag("hedging", "a request slower than 95 % of them is tried at a second agent too"),
)  # fmt: skip


def is_cacheable(task: str) -> bool:
    """Whether an answer of this task may be given again."""
    return task in DETERMINISTIC
