"""What every peer serves: the same model directory, tokenised and pooled the same way.

Runs in the peers' own environment: no module of the appliance.
"""

import base64
from collections.abc import Sequence
from pathlib import Path

import ctranslate2
import numpy as np
from tokenizers import Tokenizer


class SentenceModel:
    """A converted sentence encoder with one engine thread and one worker."""

    def __init__(self, directory: str) -> None:
        path = Path(directory)
        self._encoder = ctranslate2.Encoder(str(path), device="cpu", inter_threads=1, intra_threads=1)
        self._tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def encode(self, ids: list[list[int]]) -> ctranslate2.StorageView:
        """Token vectors of a batch."""
        return self._encoder.forward_batch(ids).last_hidden_state

    def embed(self, texts: Sequence[str]) -> tuple[np.ndarray, list[int]]:
        """Unit vectors (one row a text) and the number of tokens of each text."""
        ids = self.tokenise(texts)
        hidden = np.asarray(self.encode(ids))
        lengths = [len(sequence) for sequence in ids]
        mask = np.arange(hidden.shape[1])[None, :] < np.array(lengths)[:, None]
        means = (hidden * mask[:, :, None]).sum(axis=1) / np.array(lengths)[:, None]
        return means / np.linalg.norm(means, axis=1, keepdims=True), lengths


def build_answer(model: str, vector: np.ndarray, tokens: int) -> dict[str, object]:
    """The answer of the embeddings API to one text, the vector in base64 as its SDK asks for."""
    encoded = base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": encoded}],
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
