"""Encoders in CTranslate2: one model in memory, `workers` batches at a time on `threads` threads each."""

import ctypes
import time
from collections.abc import Sequence
from pathlib import Path

import ctranslate2
import numpy as np
import tokenizers

from agents.engines.base import Description, Matrix, TokenIds
from agents.errors import ModelError
from agents.manifest import Manifest, read_manifest, verify_files

TOKENIZER_NAME = "tokenizer.json"
#: Texts whose tokenizer output is held at once; an encoding takes about 150 bytes per token.
_ENCODE_TOGETHER = 32
#: How long the library is asked again to give the weights back.
UNLOAD_S = 2.0
_UNLOAD_AGAIN_S = 0.001


class TextTokenizer:
    """A `tokenizers` file, with whatever truncation and padding it asks for switched off."""

    def __init__(self, path: Path) -> None:
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise ModelError(f"tokenizer {str(path)!r} cannot be read: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.prefix, self.suffix = self._special_tokens()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text; other threads run meanwhile."""
        ids: list[list[int]] = []
        for at in range(0, len(texts), _ENCODE_TOGETHER):
            encodings = self._tokenizer.encode_batch_fast(list(texts[at : at + _ENCODE_TOGETHER]))
            ids += [encoding.ids for encoding in encodings]
        return ids

    def _special_tokens(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What stands before and after the tokens of a text that has some."""
        bare = self._tokenizer.encode("a", add_special_tokens=False).ids
        whole = self._tokenizer.encode("a").ids
        for at in range(len(whole) - len(bare) + 1):
            if whole[at : at + len(bare)] == bare:
                return tuple(whole[:at]), tuple(whole[at + len(bare) :])
        return (), ()


class CTranslate2Engine:
    """An int8 (or whatever it was converted to) encoder of a model directory."""

    version = str(ctranslate2.__version__)

    def __init__(self, model_dir: Path, task: str, *, workers: int, threads: int) -> None:
        self._model_dir = model_dir
        self._task = task
        self._workers = workers
        self._threads = threads
        self._encoder: ctranslate2.Encoder | None = None
        self._loaded = False
        self._description: Description | None = None

    def load(self) -> None:
        """Verify the files the first time, then load. Raises ModelError."""
        if self._encoder is not None:
            self._encoder.load_model()
            self._loaded = True
            return
        description = self._description or self._verify()
        try:
            encoder = ctranslate2.Encoder(
                str(self._model_dir),
                device="cpu",
                compute_type="default",
                inter_threads=self._workers,
                intra_threads=self._threads,
            )
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"model {str(self._model_dir)!r} was not loaded: {error}") from error
        self._description = description
        self._encoder, self._loaded = encoder, True
        self._warm_up(description)

    def describe(self) -> Description:
        """What the manifest says."""
        if self._description is None:
            raise RuntimeError("the engine was never loaded")
        return self._description

    def infer(self, sequences: Sequence[TokenIds]) -> Matrix:
        """Compute one batch; other Python threads run meanwhile."""
        if self._encoder is None or not self._loaded:  # the library would load it again by itself
            raise RuntimeError("the engine is not loaded")
        output = self._encoder.forward_batch(sequences)
        vectors: Matrix = np.asarray(output.last_hidden_state)
        return vectors

    def unload(self) -> None:
        """Free the weights; the process stays small until `load`."""
        if self._encoder is not None:
            self._loaded = False
            _unload(self._encoder)
            _return_free_memory()

    def reshaped(self, workers: int, threads: int) -> "CTranslate2Engine":
        """Another over the same files, with the same tokenizer; the library cannot change one that exists."""
        other = CTranslate2Engine(self._model_dir, self._task, workers=workers, threads=threads)
        other._description = self._description
        return other

    def close(self) -> None:
        """Drop the encoder and its threads."""
        self._encoder, self._loaded = None, False

    def _verify(self) -> Description:
        """What the manifest says, once every file is what it says."""
        manifest = read_manifest(self._model_dir)
        self._check(manifest)
        verify_files(self._model_dir, manifest)
        return Description(
            dimensions=manifest.dimensions,
            max_length=manifest.max_length,
            vocabulary_size=manifest.vocabulary_size,
            pooling=manifest.pooling,
            normalize=manifest.normalize,
            tokenizer=TextTokenizer(self._model_dir / TOKENIZER_NAME),
        )

    def _check(self, manifest: Manifest) -> None:
        if (manifest.engine, manifest.task) != ("ctranslate2", self._task):
            raise ModelError(
                f"model {str(self._model_dir)!r} is for engine {manifest.engine!r} and task "
                f"{manifest.task!r}; this agent runs ctranslate2 and {self._task}"
            )

    def _warm_up(self, description: Description) -> None:
        """The first inference allocates and picks its kernels; nobody should wait for that."""
        vectors = self.infer(description.tokenizer.encode(["warm up"]))
        expected = description.dimensions
        if vectors.shape[-1] != expected:
            raise ModelError(
                f"model {str(self._model_dir)!r} gives {vectors.shape[-1]} dimensions; "
                f"its manifest says {expected}"
            )


def _unload(encoder: ctranslate2.Encoder) -> None:
    """The library keeps them, without a word, while it still counts a batch that has just been answered."""
    ends_at = time.monotonic() + UNLOAD_S
    encoder.unload_model()
    while encoder.model_is_loaded and time.monotonic() < ends_at:
        time.sleep(_UNLOAD_AGAIN_S)
        encoder.unload_model()


def _return_free_memory() -> None:
    """Ask the C library to give freed pages back to the system, where it can."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return  # another C library: it keeps the pages for the next load
