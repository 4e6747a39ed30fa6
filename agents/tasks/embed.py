"""Sentence vectors: the public API's embeddings."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec
import numpy as np

from agents.engines.base import Description, Matrix, TokenIds
from agents.errors import RequestError
from agents.protocol import PATH_EMBEDDINGS
from agents.tasks.base import Prepared

MAX_INPUTS: Final = 2048
#: Text this long cannot fit into the model's tokens; refused before the tokenizer spends memory on it.
CHARACTERS_PER_TOKEN: Final = 64
#: A field's JSON up to this is taken as it is, and judged then. To make objects of 16 MB of empty lists
#: would hold up the whole process for seconds.
SMALL_BYTES: Final = 64 * 1024

_NULL: Final = msgspec.Raw(b"null")


class _Body(msgspec.Struct):
    """The fields that are read; the rest is tolerated. Types are checked by hand, for better errors."""

    model: msgspec.Raw = _NULL
    input: msgspec.Raw = _NULL
    encoding_format: msgspec.Raw = _NULL
    dimensions: msgspec.Raw = _NULL


@dataclass(frozen=True, slots=True)
class Wanted:
    """How the client wants the vectors; `dimensions` None: all of them."""

    encoding: Literal["float", "base64"]
    dimensions: int | None


_decoder: Final = msgspec.json.Decoder(_Body)
_any_decoder: Final = msgspec.json.Decoder()
_BEGIN: Final = re.compile(rb'\s*(?:"|\[\s*["\[]?)')
_large_decoders: Final[dict[bytes, msgspec.json.Decoder[Any]]] = {
    b"[": msgspec.json.Decoder(list[int]),
    b'"': msgspec.json.Decoder(str),
    b'["': msgspec.json.Decoder(list[str]),
    b"[[": msgspec.json.Decoder(list[list[int]]),
}
_encoder: Final = msgspec.json.Encoder()


class EmbedTask:
    """Serves embeddings of one deployment with one model."""

    path = PATH_EMBEDDINGS

    def __init__(self, deployment: str, description: Description) -> None:
        self._deployment = deployment
        self._model = description
        self._tokenizer = description.tokenizer
        self._tail = _encoder.encode(deployment)

    def prepare(self, body: bytes) -> Prepared[Wanted]:
        """Token ids of every input. Raises RequestError naming the field at fault."""
        request = _decode(body)
        self._check_model(_small(request.model, "model"))
        wanted = Wanted(
            _encoding(_small(request.encoding_format, "encoding_format")),
            self._dimensions(_small(request.dimensions, "dimensions")),
        )
        sequences = self._token_ids(self._read_input(bytes(request.input)))
        limit = self._model.max_length
        for index, ids in enumerate(sequences):
            if len(ids) > limit:
                raise _too_long(f"input {index} has {len(ids)} tokens; this model takes at most {limit}")
        return Prepared(sequences, sum(map(len, sequences)), wanted)

    def reduce(self, vectors: Matrix, lengths: Sequence[int]) -> Matrix:
        """Pool over the real length of each sequence as the model asks, and normalise."""
        if self._model.pooling == "cls":
            rows = np.array(vectors[:, 0])
        else:
            rows = np.empty((len(lengths), vectors.shape[-1]), np.float32)
            for index, length in enumerate(lengths):
                np.add.reduce(vectors[index, :length], axis=0, out=rows[index])
            rows /= np.asarray(lengths, np.float32)[:, None]
        return _normalised(rows) if self._model.normalize else rows

    def respond(self, prepared: Prepared[Wanted], rows: Sequence[Matrix]) -> bytes:
        """The list object of the API, vectors in the order of the inputs."""
        wanted = prepared.wanted
        if wanted.dimensions is not None:
            rows = list(_normalised(np.stack([row[: wanted.dimensions] for row in rows])))
        write = _base64_text if wanted.encoding == "base64" else _float_text
        entries = [
            b'{"object":"embedding","index":%d,"embedding":%b}' % (index, write(row))
            for index, row in enumerate(rows)
        ]
        tokens = prepared.prompt_tokens
        return (
            b'{"object":"list","data":[%b],"model":%b,"usage":{"prompt_tokens":%d,"total_tokens":%d}}'
        ) % (b",".join(entries), self._tail, tokens, tokens)

    def _check_model(self, model: Any) -> None:
        if not isinstance(model, str) or not model:
            raise RequestError(f"model is {_shown(model)}; the name of a model is accepted", param="model")
        if model != self._deployment:
            raise RequestError(
                f"there is no model {_shown(model)} here; this agent serves {self._deployment!r}",
                status=404,
                param="model",
                code="model_not_found",
            )

    def _dimensions(self, value: Any) -> int | None:
        most = self._model.dimensions
        if value is None:
            return None
        if type(value) is not int or not 1 <= value <= most:
            raise RequestError(
                f"dimensions is {_shown(value)}; this model gives 1 to {most}", param="dimensions"
            )
        return value

    def _read_input(self, raw: bytes) -> Any:
        """The input; of a large one only what may be right is read, and all of it is of one type."""
        if len(raw) <= SMALL_BYTES:
            return _read(raw)
        begin = _BEGIN.match(raw)
        kind = b"".join(begin[0].split()) if begin else b""
        most = self._model.max_length
        if kind == b"[[":
            if raw.count(b"[") > MAX_INPUTS + 1:
                raise _bad_input(f"input has too many entries; at most {MAX_INPUTS} are accepted")
            most *= MAX_INPUTS
        if kind in (b"[", b"[[") and raw.count(b",") >= most:
            raise _too_long(f"input has too many tokens; this model takes at most {self._model.max_length}")
        try:
            return _large_decoders.get(kind, _large_decoders[b"["]).decode(raw)
        except msgspec.ValidationError:
            raise _bad_input("input is none of what is accepted: a string, strings or token ids") from None

    def _token_ids(self, value: Any) -> Sequence[TokenIds]:
        """Sort out the four shapes an input may have."""
        if isinstance(value, str):
            return self._encode([value])
        if not isinstance(value, list):
            raise _bad_input(f"input is {_shown(value)}; a string, strings or token ids are accepted")
        if not value:
            raise _bad_input("input is an empty list; at least one string or token id is needed")
        kinds = set(map(type, value))
        if kinds == {int}:
            return [self._complete(value, "input")]
        if len(value) > MAX_INPUTS:
            raise _bad_input(f"input has {len(value)} entries; at most {MAX_INPUTS} are accepted")
        if kinds == {str}:
            return self._encode(value)
        if kinds == {list}:
            return [self._complete(ids, f"input {index}") for index, ids in enumerate(value)]
        raise _bad_input("input is a list of different things; strings only or token ids only are accepted")

    def _encode(self, texts: list[str]) -> Sequence[TokenIds]:
        most = self._model.max_length * CHARACTERS_PER_TOKEN
        for index, text in enumerate(texts):
            if not text:
                raise _bad_input(f"input {index} is an empty string; at least one character is needed")
            if len(text) > most:
                raise _too_long(
                    f"input {index} has {len(text)} characters; this model takes at most {most} "
                    f"characters and {self._model.max_length} tokens"
                )
        return self._tokenizer.encode(texts)

    def _complete(self, ids: list[Any], name: str) -> TokenIds:
        """Check token ids and put special tokens where the sequence has none yet."""
        if not ids:
            raise _bad_input(f"{name} is an empty list; at least one token id is needed")
        if set(map(type, ids)) != {int}:
            wrong = next(entry for entry in ids if type(entry) is not int)
            raise _bad_input(f"{name} holds {_shown(wrong)}; token ids are whole numbers")
        size = self._model.vocabulary_size
        if min(ids) < 0 or max(ids) >= size:
            wrong = next(entry for entry in ids if not 0 <= entry < size)
            raise _bad_input(f"{name} holds token id {_shown(wrong)}; this model knows 0 to {size - 1}")
        prefix, suffix = self._tokenizer.prefix, self._tokenizer.suffix
        special = {*prefix, *suffix}
        return [
            *(() if ids[0] in special else prefix),
            *ids,
            *(() if ids[-1] in special else suffix),
        ]


def _decode(body: bytes) -> _Body:
    try:
        body.decode()  # the decoder does not look into fields that it skips
        return _decoder.decode(body)
    except UnicodeDecodeError as error:
        raise RequestError(f"the body is not UTF-8: byte {error.start} is not valid") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestError(f"the body is not a JSON object that can be read: {error}") from None


def _small(raw: msgspec.Raw, name: str) -> Any:
    text = bytes(raw)
    if len(text) > SMALL_BYTES:
        raise RequestError(f"{name} has {len(text)} bytes, more than any that is accepted", param=name)
    return _read(text)


def _read(raw: bytes) -> Any:
    """A part of a body. What is no JSON was found already, but not a number that is too large."""
    try:
        return _any_decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestError(f"the body is not a JSON object that can be read: {error}") from None


def _encoding(value: Any) -> Literal["float", "base64"]:
    if value is None or value == "float":
        return "float"
    if value == "base64":
        return "base64"
    raise RequestError(
        f"encoding_format is {_shown(value)}; float or base64 is accepted", param="encoding_format"
    )


def _normalised(rows: Matrix) -> Matrix:
    """Rows of length 1; one of zeros stays what it is."""
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    scaled: Matrix = rows / np.maximum(lengths, np.float32(1e-12))[:, None]
    return scaled


def _float_text(row: Matrix) -> bytes:
    return _encoder.encode(row.tolist())


def _base64_text(row: Matrix) -> bytes:
    return b'"%b"' % base64.b64encode(row.astype("<f4", copy=False).tobytes())


def _shown(value: Any) -> str:
    """A value of a client's, short enough for a message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _bad_input(message: str) -> RequestError:
    return RequestError(message, param="input")


def _too_long(message: str) -> RequestError:
    return RequestError(message, param="input", code="context_length_exceeded")
