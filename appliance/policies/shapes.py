"""How large an agent is: workers, threads of each, and the largest batch. Standard library only.

The profile of a box says how all of it is used best. An agent may be started smaller, with fewer engine
threads, and grow: in threads up to the whole profile, then in its batch. Worked: a profile of 4 workers with
one thread each, cut to 2 engine threads, is 2 x 1; one of 1 x 4 is 1 x 2; one of 2 x 4 cut to 6 is 1 x 4.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from appliance.policies.profiles import Learned, Profile, ProfileKey, choose_profile, speed_of

#: Names in an agent's row beside those of its profile: under which limit it started, and that it has grown.
LIMIT: Final = "limit"
STRETCHED: Final = "stretched"
#: Requests that an agent holds at most: those in all its batches, and one batch ahead.
MOST_ADMITTED: Final = 100_000
#: A larger batch must do more by this share: it makes everybody wait longer.
WORTH: Final = 1.1


@dataclass(frozen=True, slots=True)
class Shape:
    """Batches at the same time, engine threads of each, and sequences in one at most."""

    workers: int
    threads: int
    batch_size: int

    @property
    def engine_threads(self) -> int:
        """Over all workers."""
        return self.workers * self.threads

    def to_json(self) -> dict[str, int]:
        """With the names that profiles have."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.workers} x {self.threads} threads, batch {self.batch_size}"


@dataclass(frozen=True, slots=True)
class Reach:
    """What agents of a deployment may be on a node: `full` is all of the box.

    They start with `start_threads` engine threads, may grow to `most_threads`, and batches to `most_batch`.
    """

    full: Shape
    start_threads: int
    most_threads: int
    most_batch: int

    @property
    def start(self) -> Shape:
        """What a new agent is."""
        return self.of(self.start_threads)

    def of(self, engine_threads: int) -> Shape:
        """The full shape cut to so many engine threads, at least one."""
        return cut(self.full, engine_threads)


def reach_of(
    profile: Profile, *, threads: int | None, max_threads: int | None, max_batch: int | None
) -> Reach:
    """From the best profile of a node's box, and what people set; None: as far as the profile goes."""
    full = shape_of(profile)
    most = full.engine_threads if max_threads is None else min(max_threads, full.engine_threads)
    start = cut(full, most if threads is None else min(threads, most)).engine_threads
    return Reach(full, start, max(start, cut(full, most).engine_threads), _most_batch(profile, max_batch))


def _most_batch(profile: Profile, max_batch: int | None) -> int:
    """As measured to do clearly more, or, where nothing was measured, as people say; never smaller."""
    larger = profile.full_batch_size
    if not larger:
        larger = max_batch or 0
    elif profile.full_rps < WORTH * profile.capacity_rps:
        larger = 0
    if max_batch is not None:
        larger = min(larger, max_batch)
    return max(profile.batch_size, min(larger, MOST_ADMITTED // (profile.workers + 1)))


def shape_of(profile: Profile | Mapping[str, Any]) -> Shape:
    """The shape of a profile, also as an agent's row keeps it. Raises KeyError, TypeError, ValueError."""
    if isinstance(profile, Profile):
        return Shape(profile.workers, profile.threads, profile.batch_size)
    return Shape(int(profile["workers"]), int(profile["threads"]), int(profile["batch_size"]))


def cut(full: Shape, engine_threads: int) -> Shape:
    """A shape with at most so many engine threads: fewer workers first, then one with fewer threads."""
    count = max(1, engine_threads)
    if count >= full.engine_threads:
        return full
    if count >= full.threads:
        return replace(full, workers=count // full.threads)
    return replace(full, workers=1, threads=count)


def limited(profile: Profile, threads: int | None) -> Profile:
    """A box's profile for an agent that starts with at most so many engine threads, with what that does."""
    if threads is None:
        return profile
    return as_shaped(profile, cut(shape_of(profile), threads))


def as_shaped(profile: Profile, shape: Shape) -> Profile:
    """A box's profile for an agent of another shape: as many requests as it has of the box's engine threads.

    With the largest batch it does as much as was measured with that.
    """
    part = min(1.0, shape.engine_threads / max(1, profile.workers * profile.threads))
    grown = shape.batch_size == profile.full_batch_size > profile.batch_size and profile.full_rps > 0
    rps = profile.full_rps if grown else profile.capacity_rps
    return replace(
        profile, workers=shape.workers, threads=shape.threads, batch_size=shape.batch_size,
        capacity_rps=rps * part, tokens_per_s=profile.tokens_per_s * part,
    )  # fmt: skip


def profile_json(
    known: Mapping[ProfileKey, Profile], key: ProfileKey, shape: Shape, *, limit: int | None, stretched: bool
) -> dict[str, Any]:
    """As the row of an agent keeps it that is of this shape, with its speed where that is known."""
    unlike: dict[str, Any] = {LIMIT: limit} if limit is not None else {}
    if stretched:
        unlike[STRETCHED] = True
    if unlike:
        return {**as_shaped(choose_profile(known, key), shape).to_json(), **unlike}
    return speed_of(known, key, shape.to_json()).to_json()


def is_unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two rows' agents were started under another limit, or one of them has grown."""
    return any(one.get(name) != other.get(name) for name in (LIMIT, STRETCHED))


def learned_of_box(row: Mapping[str, Any], whole: Profile, said: Learned) -> Learned | None:
    """What an agent of this row says of its speed, told of the whole box; None where that cannot be said.

    One with fewer workers than the box's profile does as many times less; one that has grown says nothing.
    """
    if row.get(STRETCHED):
        return None
    if row.get(LIMIT) is None or said.workers >= whole.workers:
        return said
    if (said.threads, said.batch_size) != (whole.threads, whole.batch_size):
        return None
    times = whole.workers / said.workers
    return replace(
        said, workers=whole.workers, capacity_rps=said.capacity_rps * times,
        tokens_per_s=said.tokens_per_s * times,
    )  # fmt: skip


def profile_again(
    known: Mapping[ProfileKey, Profile], key: ProfileKey, row: Mapping[str, Any]
) -> dict[str, Any]:
    """What the row of an agent keeps, with its speed as it is known now."""
    stretched = bool(row.get(STRETCHED))
    return profile_json(known, key, shape_of(row), limit=row.get(LIMIT), stretched=stretched)
