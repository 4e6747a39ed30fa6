"""What every server is asked: one sentence of about 16 tokens a request. Pure."""

import itertools
import json
from pathlib import Path

MODEL_NAME = "minilm"

_WHO = ("The night nurse", "A young farmer", "Our bus driver", "The old teacher")
_DID = ("carried two boxes of", "asked about the price of", "forgot to bring the", "wrote a note on")
_WHAT = (
    "green apples to the shop",
    "warm bread from the town",
    "blue paper for the desk",
    "fresh fish by the sea",
)


def build_sentences() -> list[str]:
    """64 different sentences."""
    return [f"{who} {did} {what}." for who, did, what in itertools.product(_WHO, _DID, _WHAT)]


def write_bodies(path: Path) -> None:
    """One request body per line, as the load generator reads them."""
    lines = [
        json.dumps({"model": MODEL_NAME, "input": sentence, "encoding_format": "base64"})
        for sentence in build_sentences()
    ]
    path.write_text("\n".join(lines) + "\n")
