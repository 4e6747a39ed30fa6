"""What an engine is: six methods, and a tokenizer that goes with its model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from agents.config import AgentConfig
from agents.manifest import Pooling

Matrix = npt.NDArray[np.float32]
"""Token vectors: [sequences, longest, dimensions], or sentence vectors: [sequences, dimensions]."""

TokenIds = Sequence[int]


class Tokenizer(Protocol):
    """Text to token ids. Thread-safe; costs about 1 us for 4 characters."""

    @property
    def prefix(self) -> tuple[int, ...]:
        """The special tokens put before every sequence."""

    @property
    def suffix(self) -> tuple[int, ...]:
        """The special tokens put after every sequence."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text with special tokens, never truncated nor padded."""


@dataclass(frozen=True, slots=True)
class Description:
    """What a task must know of the model. `max_length` counts tokens, special ones included."""

    dimensions: int
    max_length: int
    vocabulary_size: int
    pooling: Pooling
    normalize: bool
    tokenizer: Tokenizer


class Engine(Protocol):
    """Computes token vectors. `infer` is called from several threads at once, the rest from one.

    `version` is of what computes: another may be faster or slower.
    `load` may be called again after `unload`; the description stays valid in between.
    """

    @property
    def version(self) -> str: ...

    def load(self) -> None:
        """Bring the weights into memory. Raises ModelError. Loading what is loaded does nothing."""

    def describe(self) -> Description:
        """What the model is. Only after the first `load`."""

    def infer(self, sequences: Sequence[TokenIds]) -> Matrix:
        """Vectors [sequences, longest, dimensions]; what stands beyond a sequence's length is undefined."""

    def unload(self) -> None:
        """Give the memory of the weights back. Nothing may be computing."""

    def reshaped(self, workers: int, threads: int) -> "Engine":
        """One of the same model, not loaded: for so many batches at a time, on so many threads each.

        What was checked when this one was first loaded is not checked again.
        """

    def close(self) -> None:
        """Let go of everything; the engine is not used again."""


def create_engine(config: AgentConfig) -> Engine:
    """The engine a configuration names, not loaded yet."""
    if config.engine == "fake":
        from agents.engines.fake import FakeEngine  # noqa: PLC0415 - an agent imports one engine only

        return FakeEngine(config.fake_service_ms / 1000, config.fake_service_per, config.fake_load_ms / 1000)
    from agents.engines.ctranslate2 import CTranslate2Engine  # noqa: PLC0415 - as above

    assert config.model_dir is not None
    return CTranslate2Engine(config.model_dir, config.task, workers=config.workers, threads=config.threads)
