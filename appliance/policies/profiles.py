"""With what an agent runs, and how fast it is by that: measured, learned, or the default. Pure.

A profile belongs to a model (by digest), a kind of box and an engine with its version: whatever of these
differs may be faster or slower. Standard library only.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

Source = Literal["default", "learned", "measured"]

#: Sequences an agent's engine takes in one batch, until it is measured.
BATCH_SIZE: Final = 8
#: More an agent's configuration does not accept.
MOST_WORKERS: Final = 256
#: What was learned is written again once it has changed by this share, and not oftener than this; agents with
#: the default profile make room for ones with the measured, once that is so much better.
CHANGED: Final = 0.15
LEARN_EVERY_S: Final = 60.0
#: Engine threads that a core may be given, by whatever was measured.
MOST_THREADS_PER_CORE: Final = 4
#: Batches without which nothing is learned.
EVIDENCE: Final = 200
#: Instruction sets that decide how fast a model is; the many other flags do not.
_SETS: Final = (
    "sse4_1", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16",
    "amx_int8", "amx_bf16", "asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip
_MAX_MODEL: Final = 200


@dataclass(frozen=True, slots=True)
class Box:
    """A kind of machine: what two of them must have in common to be as fast."""

    cpu_model: str
    isa: str
    cores: int


@dataclass(frozen=True, slots=True)
class ProfileKey:
    """Whose profile it is. `digest` is the model's."""

    digest: str
    box: Box
    engine: str
    engine_version: str


@dataclass(frozen=True, slots=True)
class Profile:
    """What to start with, and the speed: 0 where it is not known.

    A batch takes `fixed_s + per_token_s x tokens`. `capacity_rps` requests or `tokens_per_s` tokens are
    the most an agent does that has the box for itself; with the default profile it does `default_rps`, and
    with batches of `full_batch_size`, whatever the latency budget, `full_rps`. `measured_at` is in Unix
    seconds.
    """

    workers: int
    threads: int
    batch_size: int
    capacity_rps: float = 0.0
    tokens_per_s: float = 0.0
    fixed_s: float = 0.0
    per_token_s: float = 0.0
    source: Source = "default"
    measured_at: float = 0.0
    default_rps: float = 0.0
    full_batch_size: int = 0
    full_rps: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As an agent's row keeps it."""
        return {
            "workers": self.workers,
            "threads": self.threads,
            "batch_size": self.batch_size,
            **speed_json(self),
        }


@dataclass(frozen=True, slots=True)
class Learned:
    """What a running agent says of its own batches."""

    workers: int
    threads: int
    batch_size: int
    batches: int
    capacity_rps: float
    tokens_per_s: float
    fixed_s: float
    per_token_s: float


def box_of(hardware: Mapping[str, Any]) -> Box:
    """The kind of box that a node's hardware makes it."""
    flags = {str(flag) for flag in hardware.get("flags") or ()}
    return Box(
        cpu_model=str(hardware.get("cpu_model") or "")[:_MAX_MODEL],
        isa=" ".join(one for one in _SETS if one in flags),
        cores=max(1, int(hardware.get("cores_physical") or 1)),
    )


def default_profile(cores: int) -> Profile:
    """What a new agent is started with where nothing is known: one thread a worker, a worker a core."""
    return Profile(min(max(1, cores), MOST_WORKERS), 1, BATCH_SIZE)


def choose_profile(known: Mapping[ProfileKey, Profile], key: ProfileKey) -> Profile:
    """The stored profile of that model on that kind of box, else the default."""
    return known.get(key) or default_profile(key.box.cores)


def is_same_shape(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether agents are started alike by these two, however fast they are thought to be."""
    return all(one.get(name) == other.get(name) for name in ("workers", "threads", "batch_size"))


def speed_of(known: Mapping[ProfileKey, Profile], key: ProfileKey, running: Mapping[str, Any]) -> Profile:
    """An agent that runs with `running` workers, threads and batch size, with the speed that is known of it.

    Of the default the speed is known where the best was measured; of any other it is not.
    """
    own = Profile(int(running["workers"]), int(running["threads"]), int(running["batch_size"]))
    found = known.get(key)
    if found is None:
        return own
    if (found.workers, found.threads, found.batch_size) == (own.workers, own.threads, own.batch_size):
        return found
    if own != default_profile(key.box.cores) or not found.default_rps:
        return own
    slower = found.capacity_rps / found.default_rps
    return replace(
        own,
        capacity_rps=found.default_rps,
        tokens_per_s=found.tokens_per_s / slower,
        fixed_s=found.fixed_s * slower,
        per_token_s=found.per_token_s * slower,
        source=found.source,
    )


def is_outdated(known: Mapping[ProfileKey, Profile], key: ProfileKey, running: Mapping[str, Any]) -> bool:
    """Whether an agent runs with the default, and what was measured since is clearly better."""
    found = known.get(key)
    if found is None or found.source != "measured" or not found.default_rps:
        return False
    usual = default_profile(key.box.cores).to_json()
    if not is_same_shape(usual, running) or is_same_shape(usual, found.to_json()):
        return False
    return found.capacity_rps >= (1 + CHANGED) * found.default_rps


def speed_json(profile: Profile) -> dict[str, Any]:
    """The speed alone; empty where it is not known."""
    if profile.source == "default":
        return {}
    return {
        "capacity_rps": profile.capacity_rps,
        "tokens_per_s": profile.tokens_per_s,
        "fixed_s": profile.fixed_s,
        "per_token_s": profile.per_token_s,
        "source": profile.source,
    }


def learn(known: Profile | None, said: Learned, now: float, share: float = 1.0) -> Profile | None:
    """The profile to store after what an agent said of itself; None where nothing is to be changed.

    What was measured is never replaced; what was learned, when it has changed clearly, by another shape only
    where that does clearly more. `share` is what the agent had of its box if all others there were busy.
    """
    said = _alone(known, said, share)
    if said.batches < EVIDENCE or said.capacity_rps <= 0 or said.fixed_s + said.per_token_s <= 0:
        return None
    if known is not None:
        if known.source == "measured" or abs(now - known.measured_at) < LEARN_EVERY_S:
            return None
        more = said.capacity_rps - known.capacity_rps
        if not is_same_shape(asdict(said), asdict(known)) and more <= 0:
            return None
        if abs(more) <= CHANGED * known.capacity_rps:
            return None
    return Profile(
        said.workers, said.threads, said.batch_size, said.capacity_rps, said.tokens_per_s,
        said.fixed_s, said.per_token_s, "learned", now,
    )  # fmt: skip


def _alone(known: Profile | None, said: Learned, share: float) -> Learned:
    """What it would do that has the box for itself: beside others it learned what it does with its share.

    How busy they were is not known: 50 requests/s with half of the box are between 50 and 100 alone. What is
    known is believed between these; where nothing is, the most is, of which its share is what it said.
    """
    most = said.capacity_rps / share
    rps = most if known is None else min(max(known.capacity_rps, said.capacity_rps), most)
    if said.capacity_rps <= 0 or rps <= said.capacity_rps:
        return said
    faster = rps / said.capacity_rps
    return replace(
        said, capacity_rps=rps, tokens_per_s=said.tokens_per_s * faster, fixed_s=said.fixed_s / faster,
        per_token_s=said.per_token_s / faster,
    )  # fmt: skip


def fits_box(profile: Profile, box: Box) -> bool:
    """Whether so many engine threads are no nonsense there: at most four a core."""
    return profile.workers * profile.threads <= MOST_THREADS_PER_CORE * box.cores


def share_of_box(cores: int, engine_threads: int) -> float:
    """What an agent keeps of its capacity beside others: 4 engine threads on 2 cores leave each a half."""
    return min(1.0, max(1, cores) / max(1, engine_threads))
