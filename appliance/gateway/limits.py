"""Who may ask, how often, and how much may lie in memory. Pure: `now` is an argument."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from appliance.policies.snapshot import KeyRoute

_BEARER = b"bearer "


class Verdict(NamedTuple):
    """What a token bucket says: `wait_s` until a refused request would pass, `reset_s` until it is full."""

    allowed: bool
    remaining: int
    wait_s: float
    reset_s: float


class TokenBucket:
    """At most `rpm` requests at once, refilled evenly over a minute. Times are monotonic seconds."""

    __slots__ = ("_at", "_tokens", "rpm")

    def __init__(self, rpm: int, now: float) -> None:
        self.rpm = rpm
        self._tokens = float(rpm)
        self._at = now

    def take(self, now: float) -> Verdict:
        """Use one token where there is one. Worked number: rpm 60 gives one back each second."""
        per_s = self.rpm / 60
        tokens = min(float(self.rpm), self._tokens + max(0.0, now - self._at) * per_s)
        allowed = tokens >= 1
        if allowed:
            tokens -= 1
        self._tokens, self._at = tokens, now
        wait_s = 0.0 if allowed else (1 - tokens) / per_s
        return Verdict(allowed, int(tokens), wait_s, (self.rpm - tokens) / per_s)


@dataclass(slots=True)
class Key:
    """A key that is served, with its bucket where its rate is bounded."""

    route: KeyRoute
    bucket: TokenBucket | None

    def may(self, scope: str) -> bool:
        """Whether the key is made for this."""
        return scope in self.route.scopes


class Keyring:
    """The keys of the present snapshot by the SHA-256 of their text.

    The text has 256 random bits, so finding its digest in a table tells an attacker nothing by
    the time it takes.
    """

    def __init__(self) -> None:
        self._keys: dict[bytes, Key] = {}

    def replace(self, routes: Mapping[bytes, KeyRoute], now: float) -> None:
        """Serve these keys from now on; a bucket lives on while its key's rate stays the same."""
        old = self._keys
        self._keys = {
            digest: Key(route, _bucket(old.get(digest), route, now)) for digest, route in routes.items()
        }

    def find(self, authorization: bytes | None) -> Key | None:
        """The key in an Authorization header (`Bearer KEY`), None where there is none or it is unknown."""
        if authorization is None or authorization[:7].lower() != _BEARER:
            return None
        return self._keys.get(sha256(authorization[7:].strip()).digest())

    def known(self) -> Iterable[Key]:
        """All keys that are served."""
        return self._keys.values()


def _bucket(old: Key | None, route: KeyRoute, now: float) -> TokenBucket | None:
    if route.rpm is None:
        return None
    if old is not None and old.bucket is not None and old.bucket.rpm == route.rpm:
        return old.bucket
    return TokenBucket(route.rpm, now)


class MemoryBudget:
    """How many bytes of bodies may be held at once, over all requests."""

    __slots__ = ("held_bytes", "limit_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0

    def take(self, size_bytes: int) -> bool:
        """Count bytes in, unless that would pass the limit. What was taken must be given back."""
        if self.held_bytes + size_bytes > self.limit_bytes:
            return False
        self.held_bytes += size_bytes
        return True

    def give_back(self, size_bytes: int) -> None:
        """Count bytes out."""
        self.held_bytes -= size_bytes
