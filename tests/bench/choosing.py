"""How long the choice among many agents takes: `python tests/bench/choosing.py [POLICY ...]`.

Each agent has 16 slots, 12 of them taken; measured is picking one, taking its slot and giving it
back. The best of several rounds, in microseconds. `session`: each request is of a session.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "policies")]

from queue_simulator import book  # noqa: E402 - found by the line above

from appliance.gateway.tracker import Pool, Reservation  # noqa: E402
from appliance.policies.balancing import find_policy, policy_names  # noqa: E402

SIZES = (1, 3, 40, 1000)
ROUNDS, PICKS = 7, 400


def choose_us(policy: str, agents: int, *, in_session: bool = False) -> float:
    """Microseconds for one choice among so many agents."""
    pool = Pool(find_policy(policy))
    pool.agents = [book(f"a{number}", 16, 8) for number in range(agents)]
    pool.refresh()
    for number, agent in enumerate(pool.agents):
        agent.measure(0.010 + 0.001 * (number % 7), 20.0, 0.0)
    for _ in range(12 * agents):
        pool.reserve(None, 0.0, 20.0)
    return min(_round_us(pool, in_session=in_session) for _ in range(ROUNDS))


def _round_us(pool: Pool, *, in_session: bool) -> float:
    began = perf_counter()
    for number in range(PICKS):
        session = b"%d" % number if in_session else None
        found = pool.reserve(None, 0.001 * number, 20.0, 0, session)
        if isinstance(found, Reservation):
            found.release()
    return (perf_counter() - began) / PICKS * 1e6


def main(policies: Sequence[str]) -> None:
    """Print a table."""
    print(f"{'us per choice among':22}", *(f"{size:>7}" for size in SIZES))
    for policy in policies:
        print(f"{policy:22}", *(f"{choose_us(policy, size):7.1f}" for size in SIZES))
    times = (choose_us("round_robin", size, in_session=True) for size in SIZES)
    print(f"{'session':22}", *(f"{one:7.1f}" for one in times))


if __name__ == "__main__":
    main(sys.argv[1:] or policy_names())
