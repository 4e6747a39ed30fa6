"""What the conversion needs of a tokenizer: the vocabulary, and sequences to try a model on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import tokenizers

from appliance.catalog.errors import BadModel, disk_errors

#: Ordinary tokens in each sample: mostly few, as short texts lose most by rounding.
_LENGTHS: Final = (1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 6, 10, 20)
_GOLDEN: Final = 0.6180339887498949


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`tokens` by id; `before` and `after` are the ids put around a text; `ordinary` those of its words."""

    tokens: tuple[str, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    ordinary: tuple[int, ...]


def read_vocabulary(path: Path, size: int) -> Vocabulary:
    """Read a tokenizer.json; `tokens` is filled up to `size` with names that no text contains.

    Raises BadModel where the file is missing or damaged, or has ids that the model does not know.
    """
    with disk_errors("the tokenizer cannot be read", path):
        if not path.is_file():
            raise BadModel(
                f"{path} is missing", "save the model with its fast tokenizer, which writes this file"
            )
        text = path.read_text(encoding="utf-8", errors="replace")
    try:
        tokenizer = tokenizers.Tokenizer.from_str(text)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        added = set(tokenizer.get_added_tokens_decoder())
        around = tokenizer.encode("").ids  # an empty text has nothing but these
    except Exception as error:  # the library raises bare Exception
        raise BadModel(f"{path} is no tokenizer: {error}") from error
    if not vocabulary:
        raise BadModel(f"{path} has an empty vocabulary")
    largest = max(vocabulary.values())
    if largest >= size:
        raise BadModel(f"{path} has token id {largest}; the model's ids end at {size - 1}")
    tokens = [f"<extra_id_{number}>" for number in range(size)]
    for token, number in vocabulary.items():
        tokens[number] = token
    middle = (len(around) + 1) // 2
    ordinary = sorted(
        number for token, number in vocabulary.items()
        if number not in added and not token.startswith(("[unused", "<extra_id_"))
    )  # fmt: skip
    return Vocabulary(tuple(tokens), tuple(around[:middle]), tuple(around[middle:]), tuple(ordinary))


def sample_sequences(vocabulary: Vocabulary, positions: int) -> list[list[int]]:
    """Token ids of a few short and longer texts, the same for the same vocabulary, spread all over it.

    Each has at least two tokens, and no more than `positions`. There may be none: where the vocabulary has no
    ordinary tokens, or the model too few positions.
    """
    before, after, ordinary = vocabulary.before, vocabulary.after, vocabulary.ordinary
    sequences: list[list[int]] = []
    drawn = 0
    for length in _LENGTHS:
        if ordinary and 1 < len(before) + length + len(after) <= positions:
            places = range(drawn, drawn + length)
            words = [ordinary[int(place * _GOLDEN % 1.0 * len(ordinary))] for place in places]
            sequences.append([*before, *words, *after])
            drawn += length
    return sequences
