"""What a task is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from agents.engines.base import Matrix, TokenIds

Wanted = TypeVar("Wanted")


@dataclass(frozen=True, slots=True)
class Prepared(Generic[Wanted]):
    """A request that was understood: what to compute, and how the answer is wanted."""

    sequences: Sequence[TokenIds]
    prompt_tokens: int
    wanted: Wanted


class Task(Protocol[Wanted]):
    """One kind of request. `prepare` and `respond` run before and after the engine's slot."""

    @property
    def path(self) -> str:
        """Where clients send it."""

    def prepare(self, body: bytes) -> Prepared[Wanted]:
        """Understand a body. Raises RequestError."""

    def reduce(self, vectors: Matrix, lengths: Sequence[int]) -> Matrix:
        """What is kept of a batch's token vectors, one row per sequence. Runs in a worker's thread."""

    def respond(self, prepared: Prepared[Wanted], rows: Sequence[Matrix]) -> bytes:
        """The answer's JSON; `rows` are in the order of `prepared.sequences`."""
