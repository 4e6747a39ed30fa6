"""An engine without a model: a fixed service time, and vectors that depend on nothing but the tokens.

For tests and rehearsals of everything around an engine. It sleeps instead of computing, so
many fit on one machine.
"""

import copy
import time
import zlib
from collections.abc import Sequence

import numpy as np

from agents.config import ServicePer
from agents.engines.base import Description, Matrix, TokenIds

DIMENSIONS = 32
MAX_LENGTH = 512
VOCABULARY_SIZE = 1000
_START, _END, _FIRST_WORD = 1, 2, 3


class FakeTokenizer:
    """One token per word, by its checksum."""

    prefix = (_START,)
    suffix = (_END,)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Start, the words, end."""
        return [[_START, *(_word_id(word) for word in text.split()), _END] for text in texts]


class FakeEngine:
    """Takes `service_s` seconds for each batch, or for each sequence of it, and `load_s` to load."""

    version = "1"

    def __init__(self, service_s: float, per: ServicePer = "batch", load_s: float = 0.0) -> None:
        self._service_s = service_s
        self._per = per
        self._load_s = load_s
        self._loaded = False

    def load(self) -> None:
        """Sleeps for as long as loading is to take."""
        if self._load_s and not self._loaded:
            time.sleep(self._load_s)
        self._loaded = True

    def describe(self) -> Description:
        """A small model with mean pooling."""
        return Description(DIMENSIONS, MAX_LENGTH, VOCABULARY_SIZE, "mean", True, FakeTokenizer())

    def infer(self, sequences: Sequence[TokenIds]) -> Matrix:
        """Waves whose phase is the token id."""
        if not self._loaded:
            raise RuntimeError("the engine is not loaded")
        if self._service_s:
            time.sleep(self._service_s * (len(sequences) if self._per == "sequence" else 1))
        vectors = np.zeros((len(sequences), max(map(len, sequences)), DIMENSIONS), np.float32)
        steps = np.arange(1, DIMENSIONS + 1, dtype=np.float32)
        for row, ids in enumerate(sequences):
            vectors[row, : len(ids)] = np.sin(np.outer(np.asarray(ids, np.float32) + 1, steps))
        return vectors

    def unload(self) -> None:
        """Refuses to compute until it is loaded again."""
        self._loaded = False

    def reshaped(self, workers: int, threads: int) -> "FakeEngine":  # noqa: ARG002 - any shape is as fast
        """Another, not loaded."""
        other = copy.copy(self)
        other.unload()
        return other

    def close(self) -> None:
        """As `unload`."""
        self._loaded = False


def _word_id(word: str) -> int:
    return _FIRST_WORD + zlib.crc32(word.encode()) % (VOCABULARY_SIZE - _FIRST_WORD)
