"""What to send, where, how fast and for how long. Pure, standard library only."""

import random
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle
from typing import Literal
from urllib.parse import urlsplit

MAX_RPS = 20_000
MAX_DURATION_S = 3600.0
MAX_CONNECTIONS = 1024
MAX_TIMEOUT_S = 600.0
MAX_OUTSTANDING = 100_000
MAX_HEADER_SETS = 1000

Arrivals = Literal["poisson", "even"]
Headers = tuple[tuple[str, str], ...]


class BadPlan(ValueError):
    """A plan that cannot be run; the message names the value and what is accepted."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go. `context` is None for plain HTTP; `headers` are sent with every request."""

    host: str
    port: int
    path: str
    context: ssl.SSLContext | None = field(default=None, compare=False)
    headers: Headers = ()
    method: str = "POST"

    def build_request(self, body: bytes, more: Headers = ()) -> bytes:
        """The whole request as one piece of bytes, ready to be written again and again.

        `more` are headers of this request alone; one of the target's with the same name gives way.
        """
        own = {name.lower() for name, _ in more}
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines = [
            f"{self.method} {self.path} HTTP/1.1",
            f"Host: {host}:{self.port}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            *(f"{name}: {value}" for name, value in self.headers if name.lower() not in own),
            *(f"{name}: {value}" for name, value in more),
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """One run. Raises BadPlan where a value lies outside its bounds.

    Without `rps` the loop is closed: each of the `connections` sends its next request when the
    last one is answered, for `duration_s` or until `count` requests were begun. With `rps` it is
    open: requests arrive on a schedule that does not wait for answers, and latency runs from
    the scheduled arrival. `outstanding` then bounds those scheduled and not answered; an
    arrival above it fails as `overflow`.
    Bodies are sent in turn, and so are `headers`, each of which belongs to one request.
    """

    target: Target
    bodies: tuple[bytes, ...]
    connections: int = 64
    duration_s: float | None = None
    count: int | None = None
    rps: float | None = None
    arrivals: Arrivals = "poisson"
    seed: int = 0
    timeout_s: float = 60.0
    outstanding: int = 10_000
    headers: tuple[Headers, ...] = ((),)

    def __post_init__(self) -> None:
        if not self.bodies:
            raise BadPlan("no request bodies: at least one is needed")
        if not 1 <= len(self.headers) <= MAX_HEADER_SETS:
            raise BadPlan(f"{len(self.headers)} sets of headers: from 1 to {MAX_HEADER_SETS} is accepted")
        for headers in self.headers:
            _check_headers(headers)
        _check_range("connections", self.connections, 1, MAX_CONNECTIONS)
        _check_range("timeout", self.timeout_s, 0.01, MAX_TIMEOUT_S)
        _check_range("outstanding", self.outstanding, 1, MAX_OUTSTANDING)
        if self.duration_s is None and self.count is None:
            raise BadPlan("neither duration nor count given: a run needs an end")
        if self.duration_s is not None:
            _check_range("duration", self.duration_s, 0.01, MAX_DURATION_S)
        if self.count is not None:
            _check_range("count", self.count, 1, int(MAX_RPS * MAX_DURATION_S))
        if self.rps is not None:
            _check_range("rps", self.rps, 0.01, MAX_RPS)
        if self.arrivals not in ("poisson", "even"):
            raise BadPlan(f"arrivals {self.arrivals!r}: poisson or even is accepted")

    def build_requests(self) -> list[bytes]:
        """What to send in turn: as many as the longer of bodies and headers, the other repeated."""
        count = max(len(self.bodies), len(self.headers))
        bodies, headers = cycle(self.bodies), cycle(self.headers)
        return [self.target.build_request(next(bodies), next(headers)) for _ in range(count)]

    @property
    def deadline_s(self) -> float:
        """When the run stops beginning requests, in seconds from its start."""
        return MAX_DURATION_S if self.duration_s is None else self.duration_s

    def arrival_times(self) -> Iterator[float]:
        """Seconds from the start at which requests arrive, ascending. Needs `rps`; same seed, same times."""
        assert self.rps is not None, "only an open loop has a schedule"
        chance = random.Random(self.seed)  # noqa: S311 - arrivals, not secrets
        at, begun = 0.0, 0
        while at < self.deadline_s and (self.count is None or begun < self.count):
            yield at
            begun += 1
            at = begun / self.rps if self.arrivals == "even" else at + chance.expovariate(self.rps)


def parse_url(url: str, *, headers: Headers = (), context: ssl.SSLContext | None = None) -> Target:
    """The target an address names. Raises BadPlan.

    An https address without `context` is verified against the system's authorities.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadPlan(f"url {url!r}: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadPlan(f"url {url!r}: an address such as http://127.0.0.1:8080/v1/embeddings is accepted")
    _check_headers(headers)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if parts.scheme == "http":
        return Target(parts.hostname, port or 80, path, None, headers)
    return Target(parts.hostname, port or 443, path, context or ssl.create_default_context(), headers)


def _check_headers(headers: Headers) -> None:
    for name, value in headers:
        if "\r" in name + value or "\n" in name + value:
            raise BadPlan(f"header {name!r}: line breaks are not accepted")


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise BadPlan(f"{name} {value}: from {low:g} to {high:g} is accepted")
