"""Answers that are kept to be given again, and what makes two requests the same. Pure."""

from collections import OrderedDict
from hashlib import blake2b
from typing import Final, Generic, TypeVar

import msgspec

#: Tasks whose answer depends on nothing but the request and the model's revision.
DETERMINISTIC: Final = frozenset({"embed", "classify", "extract"})

#: Larger bodies are not looked up: to read them would stop the loop for longer than it may.
MAX_BODY_BYTES: Final = 64 * 1024

DIGEST_BYTES: Final = 32

#: What an entry costs beside its body, in bytes.
ENTRY_BYTES: Final = 600

#: Parts of a body that change no answer: the deployment is known, and `user` is for the record.
_IGNORED: Final = ("model", "user")

Value = TypeVar("Value")

_decoder = msgspec.json.Decoder(dict[str, object])
_encoder = msgspec.json.Encoder(order="deterministic")


def build_key(revision: str, path: str, team: str, body: bytes) -> bytes | None:
    """Names what a request asks, None for one that is not to be cached.

    Spaces and the order of a body's parts make no difference. `team` is empty where teams share.
    It begins with the revision, see `is_of`.
    """
    if len(body) > MAX_BODY_BYTES:
        return None
    try:
        asked = _decoder.decode(body)
        for name in _IGNORED:
            asked.pop(name, None)
        parts = (path.encode(), team.encode(), _encoder.encode(asked))
    except (ValueError, TypeError, RecursionError):
        return None  # the agent says what is wrong with it
    digest = blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return revision.encode() + digest.digest()


def is_of(key: bytes, revision: str) -> bool:
    """Whether a key was built for this revision."""
    return key[:-DIGEST_BYTES] == revision.encode()


class AnswerCache(Generic[Value]):
    """Values by key, bounded in bytes: what was not asked for the longest goes first."""

    __slots__ = ("_entries", "held_bytes", "limit_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self._entries: OrderedDict[bytes, tuple[Value, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> Value | None:
        """The value of a key, which is the last to go now; None where there is none."""
        found = self._entries.get(key)
        if found is None:
            return None
        self._entries.move_to_end(key)
        return found[0]

    def put(self, key: bytes, value: Value, body_bytes: int) -> None:
        """Keep a value whose body has this size, unless it alone would pass the bound."""
        size = body_bytes + ENTRY_BYTES
        if size > self.limit_bytes:
            return
        old = self._entries.pop(key, None)
        if old is not None:
            self.held_bytes -= old[1]
        self._entries[key] = (value, size)
        self.held_bytes += size
        self._shrink()

    def resize(self, limit_bytes: int) -> None:
        """Another bound from now on; 0 empties it."""
        self.limit_bytes = limit_bytes
        self._shrink()

    def _shrink(self) -> None:
        while self.held_bytes > self.limit_bytes:
            _, (_, size) = self._entries.popitem(last=False)
            self.held_bytes -= size
