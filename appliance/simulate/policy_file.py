"""The policy of a file: a JSON object, or lines `key=value`, with the keys of `set_scaling`.

What `set_scaling NAME --json` prints is one, too.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from appliance.policies.scaling import ScalingPolicy
from appliance.policies.scaling_keys import NONE, SCHEDULES, BadKey, check, set_key

MAX_BYTES = 65_536
#: Latency under load is not part of the plant; traces count no tokens and are of no day; agents do not grow.
NOT_REPLAYED = frozenset(
    (
        "target_p95_ms", "target_ttft_ms", "target_tokens_per_s", SCHEDULES,
        "threads", "max_threads", "max_batch",
    )
)  # fmt: skip
#: What people order beside the policy: where it is off, it is as in a replay.
_ORDERS, _OFF = ("paused", "dry_run"), ("no", "false", "off", "0")


def read_policy(path: Path, base: ScalingPolicy) -> ScalingPolicy:
    """`base` with the file's keys set. Raises BadKey, naming the file, and OSError."""
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise BadKey(
            f"{path} is over {MAX_BYTES} bytes: a policy is accepted, a JSON object or lines key=value"
        )
    try:
        for name, value in _pairs(content.decode()).items():
            base = _set(base, name, value)
        return check(base)
    except UnicodeDecodeError:
        raise BadKey(f"{path} is not UTF-8 text: a JSON object or lines key=value are accepted") from None
    except BadKey as error:
        raise BadKey(f"{path}: {error}") from None


def _set(policy: ScalingPolicy, name: str, value: str) -> ScalingPolicy:
    if name in _ORDERS and value.lower() in _OFF:
        return policy
    if name in NOT_REPLAYED or name in _ORDERS:
        if value.lower() in (*NONE, "[]"):
            return policy
        raise BadKey(f"{name} cannot be replayed: leave it out")
    return set_key(policy, name, value)


def _pairs(text: str) -> Mapping[str, str]:
    if text.lstrip().startswith("{"):
        try:
            given = json.loads(text)
        except ValueError as error:
            raise BadKey(f'not JSON ({error}): an object such as {{"max": 8}} is accepted') from None
        settings = given.get("settings")
        given = settings if isinstance(settings, dict) else given  # the answer of `set_scaling --json`
        return {str(name): "none" if value is None else str(value) for name, value in given.items()}
    pairs = {}
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.partition("#")[0].strip()
        if not bare:
            continue
        name, equals, value = bare.partition("=")
        if not equals:
            raise BadKey(f"line {number}: {bare!r}: key=value is accepted")
        pairs[name.strip()] = value.strip()
    return pairs
