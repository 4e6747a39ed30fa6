"""Ray Serve with two replicas that batch up to 32 within 2 ms. `serve_ray.py MODEL_DIRECTORY PORT SCRATCH`.

SCRATCH is a directory with a short path for Ray's session files. Ends on SIGTERM or SIGINT.
"""

import signal
import sys
import threading

import ray
from model import SentenceModel, build_answer
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=2, max_ongoing_requests=64, ray_actor_options={"num_cpus": 1})
class Embeddings:
    """One sentence a request, batched by Ray Serve."""

    def __init__(self, directory: str) -> None:
        self._served = SentenceModel(directory)

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.002)
    async def embed(self, requests: list[dict[str, str]]) -> list[dict[str, object]]:
        """Answers to a batch."""
        vectors, tokens = self._served.embed([request["input"] for request in requests])
        return [
            build_answer(request["model"], vector, n)
            for request, vector, n in zip(requests, vectors, tokens, strict=True)
        ]

    async def __call__(self, request: Request) -> dict[str, object]:
        """Answer a request."""
        return await self.embed(await request.json())


def main(directory: str, port: int, scratch: str) -> None:
    """Serve until a signal comes."""
    stop = threading.Event()
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100 * 1024 * 1024,
        log_to_driver=False,
        logging_level="error",
        _temp_dir=scratch,
    )
    try:
        serve.start(
            http_options={"host": "127.0.0.1", "port": port}, logging_config={"enable_access_log": False}
        )
        serve.run(Embeddings.bind(directory), route_prefix="/v1/embeddings")
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        stop.wait()
        serve.shutdown()
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
