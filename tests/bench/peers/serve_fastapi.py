"""The plain peer: FastAPI and the engine in one process. `serve_fastapi.py MODEL_DIRECTORY PORT`."""

import sys

import uvicorn
from fastapi import FastAPI
from model import SentenceModel, build_answer
from pydantic import BaseModel


class EmbeddingsRequest(BaseModel):
    """The fields that are read."""

    model: str
    input: str


def build_app(directory: str) -> FastAPI:
    """The application; its handler is no coroutine, so FastAPI runs it in its thread pool."""
    app = FastAPI()
    served = SentenceModel(directory)

    @app.post("/v1/embeddings")
    def embeddings(request: EmbeddingsRequest) -> dict[str, object]:
        vectors, tokens = served.embed([request.input])
        return build_answer(request.model, vectors[0], tokens[0])

    return app


if __name__ == "__main__":
    uvicorn.run(
        build_app(sys.argv[1]),
        host="127.0.0.1",
        port=int(sys.argv[2]),
        access_log=False,
        log_level="warning",
        loop="uvloop",
        http="httptools",
    )
