"""Bounds how often somebody may try to log in."""

import hashlib

from django.core.cache import cache

WINDOW_S = 300
#: Attempts in the window for one name from one address, and for all names from one address.
MAX_ATTEMPTS = 10
MAX_ATTEMPTS_PER_ADDRESS = 100


def count_attempt(address: str, username: str) -> bool:
    """Count one attempt before the password is looked at; False where it must not be looked at."""
    within_name = _count(_key(address, username)) <= MAX_ATTEMPTS
    return _count(_key(address, None)) <= MAX_ATTEMPTS_PER_ADDRESS and within_name


def forget_attempts(address: str, username: str) -> None:
    """Begin anew for a name that has logged in."""
    cache.delete(_key(address, username))


def _count(key: str) -> int:
    cache.add(key, 0, WINDOW_S)
    try:
        return cache.incr(key)
    except ValueError:  # it expired in between
        return 1


def _key(address: str, username: str | None) -> str:
    told = address if username is None else f"{address}\0{username.casefold()}"
    return f"login:{hashlib.sha256(told.encode()).hexdigest()}"
