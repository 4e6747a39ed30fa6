"""What scaling decided on and answered, tick by tick: recorded so that it can be replayed exactly.

A row holds a tick of all deployments: whole where nothing is known of the tick before, and every ten minutes,
with the policy's memory as it was; else only what is another. Unchanged deployments take a few bytes.
"""

import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from django.db.models import Max

from appliance import policies
from appliance.models import RecordedTick
from appliance.plain_values import apply_changes, changes_between, from_plain, to_plain
from appliance.policies.actions import Asked, DeploymentPlan
from appliance.simulate.recorded import Given, Tick, answer_of

#: How long inputs are kept, and how many ticks at most, however often the loop is called.
KEPT_S, KEPT_TICKS = 2 * 3600.0, 40_000
#: All is recorded whole again after so many seconds, at a time of its own for each deployment.
WHOLE_EVERY_S = 600.0
_COMPRESSION = 1


@dataclass(frozen=True, slots=True)
class _Known:
    """What was recorded of a deployment last, by its time the memory that was left, and when it was whole."""

    given: Given
    memory_at: float
    whole_at: float


class InputLog:
    """Writes a row a tick. Used by one thread at a time."""

    def __init__(self) -> None:
        self._known: Mapping[str, _Known] = {}
        self._next: Mapping[str, _Known] = {}

    def write(self, plans: Iterable[DeploymentPlan], now: float) -> None:
        """Write the tick, in the transaction that writes what was decided; `keep` follows its end."""
        known: dict[str, _Known] = {}
        body = {}
        for plan in plans:
            if plan.asked is not None:
                body[plan.name], known[plan.name] = self._entry(plan.name, plan.asked, now)
        if body:
            text = json.dumps(body, separators=(",", ":"), default=str)
            RecordedTick.objects.create(at=now, body=zlib.compress(text.encode(), _COMPRESSION))
        self._next = known

    def keep(self) -> None:
        """The transaction of the last `write` is done: the next one may build on it."""
        self._known = self._next

    def _entry(self, name: str, asked: Asked, now: float) -> tuple[dict[str, Any], _Known]:
        given = Given(asked.policy, asked.load, answer_of(asked.answer))
        known = self._known.get(name)
        goes_on = known is not None and asked.state is not None and asked.state.at == known.memory_at
        if known is not None and goes_on and now - known.whole_at < WHOLE_EVERY_S:
            return changes_between(known.given, given), _Known(given, asked.answer.state.at, known.whole_at)
        state = None if asked.state is None else asked.state.to_json()
        # The first time it is whole again comes sooner, so that deployments do not all come in one tick.
        early_s = 0.0 if known is not None else zlib.crc32(name.encode()) % int(WHOLE_EVERY_S)
        whole = {**to_plain(given), "state": state, "code": code_mark()}
        return whole, _Known(given, asked.answer.state.at, now - early_s)


@cache
def code_mark() -> str:
    """A digest of the policies' code: what another version decided is not decided again by this one."""
    digest = hashlib.blake2s(digest_size=6)
    for path in sorted(Path(policies.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def read_ticks(name: str, since: float = 0.0) -> Iterator[Tick]:
    """What was recorded of a deployment since then, oldest first, from a tick on that was recorded whole."""
    given: Given | None = None
    code = ""
    for at, body in RecordedTick.objects.filter(at__gte=since).values_list("at", "body").iterator():
        try:
            entry = json.loads(zlib.decompress(bytes(body))).get(name)
            # Without an entry it was not there: whatever comes is another of that name.
            whole = entry is not None and "state" in entry
            if whole:
                given, code = from_plain(Given, entry), str(entry.get("code", ""))
            elif given is not None:
                given = None if entry is None else apply_changes(given, entry)
        except (ValueError, TypeError, AttributeError, KeyError, zlib.error):  # another version's, or damaged
            given = None
        if given is not None:
            yield Tick(at, given, entry.get("state"), whole=whole, code=code)


def prune_inputs(now: float) -> None:
    """Forget what is too old, or too much."""
    newest = RecordedTick.objects.aggregate(newest=Max("pk"))["newest"] or 0
    RecordedTick.objects.filter(at__lt=now - KEPT_S - WHOLE_EVERY_S).delete()
    RecordedTick.objects.filter(pk__lte=newest - KEPT_TICKS).delete()
