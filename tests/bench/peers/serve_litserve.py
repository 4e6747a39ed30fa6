"""LitServe with two workers that batch up to 32 within 2 ms. `serve_litserve.py MODEL_DIRECTORY PORT`."""

import sys

import litserve
from model import SentenceModel, build_answer


class EmbeddingsApi(litserve.LitAPI):
    """One sentence a request, batched by LitServe."""

    directory = ""

    def setup(self, device: str) -> None:
        """Load the model in the worker's process."""
        self.served = SentenceModel(self.directory)

    def decode_request(self, request: dict[str, str]) -> tuple[str, str]:
        """Model name and text of a request."""
        return request["model"], request["input"]

    def batch(self, inputs: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """The batch as it is."""
        return inputs

    def predict(self, inputs: list[tuple[str, str]]) -> list[dict[str, object]]:
        """Answers to a batch."""
        vectors, tokens = self.served.embed([text for _, text in inputs])
        return [
            build_answer(name, vector, n)
            for (name, _), vector, n in zip(inputs, vectors, tokens, strict=True)
        ]

    def unbatch(self, output: list[dict[str, object]]) -> list[dict[str, object]]:
        """One answer each."""
        return output

    def encode_response(self, output: dict[str, object]) -> dict[str, object]:
        """The answer as it is."""
        return output


if __name__ == "__main__":
    api = EmbeddingsApi(max_batch_size=32, batch_timeout=0.002, api_path="/v1/embeddings")
    api.directory = sys.argv[1]  # travels to the workers with the object
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=2)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[2]),
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
