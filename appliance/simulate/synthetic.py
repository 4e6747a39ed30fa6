"""Traffic made up by a seed: a day's curve, bursts, and a sawtooth. Standard library only.

Arrivals are Poisson at a rate that varies; requests execute for an exponential time around half a second.
"""

import math
import random
from collections.abc import Callable

from appliance.simulate.plant import Traffic

Rate = Callable[[float], float]
#: The mean time that a request executes.
SERVICE_S = 0.5


def diurnal(seed: int = 1, *, duration_s: float = 7200.0, period_s: float = 3600.0) -> Traffic:
    """Two smooth periods between 1 and 21 requests a second, of half a second each."""
    return _thin(
        "diurnal", seed, duration_s, 21.0, lambda t: 1 + 10 * (1 - math.cos(2 * math.pi * t / period_s))
    )


def burst(seed: int = 1, *, duration_s: float = 7200.0) -> Traffic:
    """Two requests a second, and bursts of 15 to 40 more for 5 to 40 s, some three minutes apart."""
    rng = random.Random(f"bursts {seed}")  # noqa: S311 - traffic, not secrets
    spans, at = [], rng.expovariate(1 / 180)
    while at < duration_s:
        length = rng.uniform(5, 40)
        spans.append((at, at + length, rng.uniform(15, 40)))
        at += length + rng.expovariate(1 / 180)

    def rate(t: float) -> float:
        return 2.0 + next((height for start, end, height in spans if start <= t < end), 0.0)

    return _thin("burst", seed, duration_s, 42.0, rate)


def sawtooth(seed: int = 1, *, duration_s: float = 7200.0, period_s: float = 600.0) -> Traffic:
    """From nothing to 20 requests a second in ten minutes, then at once from the start."""
    return _thin("sawtooth", seed, duration_s, 20.0, lambda t: 20.0 * (t % period_s) / period_s)


def small(seed: int = 1, *, duration_s: float = 240.0) -> Traffic:
    """For agents of many slots: 100 to 6,000 requests a second of 5 ms, up and down in two minutes."""
    return _thin(
        "small", seed, duration_s, 6000.0, lambda t: 100 + 2950 * (1 - math.cos(2 * math.pi * t / 120)),
        service_s=0.005,
    )  # fmt: skip


def _thin(
    name: str, seed: int, duration_s: float, most: float, rate: Rate, *, service_s: float = SERVICE_S
) -> Traffic:
    """Poisson arrivals at `rate(t)`, never above `most`, by thinning."""
    rng = random.Random(f"{name} {seed}")  # noqa: S311 - traffic, not secrets
    arrivals, services, t = [], [], rng.expovariate(most)
    while t < duration_s:
        if rng.random() * most < rate(t):
            arrivals.append(t)
            services.append(rng.expovariate(1 / service_s))
        t += rng.expovariate(most)
    return Traffic(name if seed == 1 else f"{name}-{seed}", arrivals, services, duration_s)


SYNTHETIC: dict[str, Callable[[int], Traffic]] = {"diurnal": diurnal, "burst": burst, "sawtooth": sawtooth}
