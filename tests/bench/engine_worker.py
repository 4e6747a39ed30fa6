"""One engine process of the ceiling. Prints `ready`, waits for a line, measures, prints JSON.

`python -m tests.bench.engine_worker MODEL_DIRECTORY MODE BATCH SECONDS`; MODE `engine` feeds tokens to the
engine alone, `call` turns text into a vector, `vector` prints the vector of the first sentence.
"""

import json
import statistics
import sys
import time

import numpy as np

from tests.bench.inputs import build_sentences
from tests.bench.peers.model import SentenceModel


def main(directory: str, mode: str, batch: int, seconds: float) -> None:
    """Measure in whole batches for `seconds`."""
    model = SentenceModel(directory)
    sentences = build_sentences()
    if mode == "vector":
        vectors, tokens = model.embed(sentences[:1])
        print(json.dumps({"vector": vectors[0].tolist(), "tokens": tokens[0]}))
        return
    groups = [sentences[at : at + batch] for at in range(0, len(sentences), batch)]
    tokenised = [model.tokenise(group) for group in groups]

    def call(index: int) -> None:
        if mode == "call":
            model.embed(groups[index])
        else:
            np.asarray(model.encode(tokenised[index]))

    for index in range(len(groups)):
        call(index)
    print("ready", flush=True)
    sys.stdin.readline()
    durations: list[float] = []
    started = now = time.perf_counter()
    while now - started < seconds:
        call(len(durations) % len(groups))
        after = time.perf_counter()
        durations.append(after - now)
        now = after
    figures = {"sentences": len(durations) * batch, "elapsed_s": now - started}
    print(json.dumps(figures | {"p50_ms": statistics.median(durations) * 1000}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
