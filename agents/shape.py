"""The shape of an agent, and how it is told another. Pure."""

import json
from dataclasses import dataclass, fields
from typing import Final

from agents.config import MAX_ADMITS, MAX_BATCH_SIZE, MAX_THREADS, MAX_WORKERS, AgentConfig
from agents.errors import RequestError

#: Workers x threads; a unit's limit of tasks leaves room for as many, and the rest of the process.
MAX_ENGINE_THREADS: Final = 1024
#: The document is some 50 bytes long.
MAX_BODY_BYTES: Final = 4096
_MOST: Final = {"workers": MAX_WORKERS, "threads": MAX_THREADS, "batch_size": MAX_BATCH_SIZE}


@dataclass(frozen=True, slots=True)
class Shape:
    """Batches computed at the same time, engine threads of each, and sequences in one at most."""

    workers: int
    threads: int
    batch_size: int

    @property
    def admits(self) -> int:
        """Requests held at most: a full batch for each worker, and one more that waits."""
        return (self.workers + 1) * self.batch_size

    def has_engine_of(self, other: "Shape") -> bool:
        """Whether the two differ in the batch size at most, so that nothing has to be loaded."""
        return (self.workers, self.threads) == (other.workers, other.threads)

    def __str__(self) -> str:
        return f"{self.workers} x {self.threads} threads, batch {self.batch_size}"


def shape_of(config: AgentConfig) -> Shape:
    """The shape that a configuration asks for."""
    return Shape(config.workers, config.threads, config.batch_size)


def parse_shape(raw: bytes) -> Shape:
    """Check a shape given as JSON. Raises RequestError naming key, value and what is accepted."""
    try:
        given = json.loads(raw)
    except (ValueError, RecursionError):
        given = None
    names = [field.name for field in fields(Shape)]
    if not isinstance(given, dict) or set(given) != set(names):
        raise RequestError(f"the body is {raw[:80]!r}; a JSON object of {', '.join(names)} is accepted")
    for name in names:
        value = given[name]
        if type(value) is not int or not 1 <= value <= _MOST[name]:
            raise RequestError(
                f"{name} is {value!r:.40}; a whole number from 1 to {_MOST[name]} is accepted", param=name
            )
    shape = Shape(**given)
    if shape.workers * shape.threads > MAX_ENGINE_THREADS:
        raise RequestError(
            f"{shape.workers} workers of {shape.threads} threads are {shape.workers * shape.threads} engine "
            f"threads; at most {MAX_ENGINE_THREADS} are accepted",
            param="workers",
        )
    if shape.admits > MAX_ADMITS:
        raise RequestError(
            f"{shape.workers} workers with batches of {shape.batch_size} would hold {shape.admits} requests; "
            f"at most {MAX_ADMITS} are accepted",
            param="batch_size",
        )
    return shape
