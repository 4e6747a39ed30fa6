"""What tests of agents are built from: configurations, certificates, tiny models, processes, links."""

import asyncio
import contextlib
import datetime as dt
import hashlib
import json
import re
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import ctranslate2
import numpy as np
import psutil
from ctranslate2 import specs
from ctranslate2.specs import common_spec
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from agents.manifest import compute_digest
from agents.protocol import (
    ALPN_HTTP,
    ALPN_LINK,
    PATH_SHAPE,
    AgentState,
    Answer,
    FrameReader,
    Kind,
    LoadReport,
    Refusal,
    Request,
    build_frame,
    build_request,
    parse_answer,
    parse_refusal,
)
from provisioning.certificates import Authority, Issued, create_authority

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 30

TINY_DIMENSIONS, TINY_POSITIONS, TINY_LAYERS, TINY_HEADS = 32, 64, 2, 4
WORDS = (
    *("the", "a", "small", "brown", "fox", "jumps", "over", "lazy", "dog", "river", "stone", "mill"),
    *("wheel", "grain", "water", "bread", "wind", "sail", "road", "house", "light", "morning", "north"),
)


def config_json(changes: Mapping[str, object]) -> dict[str, object]:
    """A configuration of a fake agent, whole once `tls` is given; a value of None leaves the key out."""
    given: dict[str, object] = {
        "agent": "tiny-000001",
        "deployment": "tiny",
        "revision": "tiny-1",
        "task": "embed",
        "engine": "fake",
        "host": "127.0.0.1",
        "port": 0,
        "workers": 2,
        "threads": 1,
        "batch_size": 4,
        "admits": 12,
    }
    given |= changes
    return {key: value for key, value in given.items() if value is not None}


# --- a model ---------------------------------------------------------------------------------


def build_model(folder: Path, *, positions: int = TINY_POSITIONS, **changes: object) -> Path:
    """A random encoder of BERT's shape as a model directory; `changes` go into its manifest.

    `positions` more than it needs make it larger, by 128 bytes each.
    """
    folder.mkdir(parents=True)
    _build_tokenizer(folder / "tokenizer.json")
    _build_encoder(positions).save(str(folder))
    manifest = {
        "format": 1,
        "task": "embed",
        "engine": "ctranslate2",
        "quantization": "int8",
        "architecture": "bert",
        "dimensions": TINY_DIMENSIONS,
        "max_length": TINY_POSITIONS,
        "pooling": "mean",
        "normalize": True,
        "vocabulary_size": len(_vocabulary()),
        "files": [
            {
                "path": path.name,
                "bytes": path.stat().st_size,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
            for path in sorted(folder.iterdir())
        ],
    }
    manifest |= changes
    manifest["digest"] = compute_digest(manifest)
    manifest["source"] = "test"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def _vocabulary() -> list[str]:
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, *"bcdefghijklmnopqrstuvwxyz"]


def _build_tokenizer(path: Path) -> None:
    vocabulary = {word: number for number, word in enumerate(_vocabulary())}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_truncation(8)  # as many published files have it: it must not count
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(path))


def _build_encoder(positions: int) -> specs.TransformerEncoderModelSpec:
    random = np.random.default_rng(7)

    def weights(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape) * 0.3).astype(np.float32)

    def linear(spec: common_spec.LinearSpec, outputs: int, inputs: int) -> None:
        spec.weight, spec.bias = weights(outputs, inputs), weights(outputs)

    def norm(spec: common_spec.LayerNormSpec) -> None:
        spec.gamma, spec.beta = np.ones(TINY_DIMENSIONS, np.float32), weights(TINY_DIMENSIONS)

    size = TINY_DIMENSIONS
    encoder = specs.TransformerEncoderSpec(
        TINY_LAYERS,
        TINY_HEADS,
        pre_norm=False,
        activation=common_spec.Activation.GELU,
        layernorm_embedding=True,
        num_source_embeddings=2,
        embeddings_merge=common_spec.EmbeddingsMerge.ADD,
    )
    encoder.scale_embeddings = False
    encoder.embeddings[0].weight = weights(len(_vocabulary()), size)
    encoder.embeddings[1].weight = weights(2, size)
    encoder.position_encodings.encodings = weights(positions, size)
    norm(encoder.layernorm_embedding)
    for layer in encoder.layer:
        linear(layer.self_attention.linear[0], 3 * size, size)
        linear(layer.self_attention.linear[1], size, size)
        norm(layer.self_attention.layer_norm)
        linear(layer.ffn.linear_0, 4 * size, size)
        linear(layer.ffn.linear_1, size, 4 * size)
        norm(layer.ffn.layer_norm)
    model = specs.TransformerEncoderModelSpec(encoder, pooling_layer=True)
    linear(model.pooler_dense, size, size)
    model.register_vocabulary(_vocabulary())
    model.config.unk_token = "[UNK]"
    model.config.layer_norm_epsilon = 1e-12
    model.validate()
    model.optimize(quantization="int8")
    return model


def infer_alone(model_dir: Path, ids: list[int]) -> np.ndarray:
    """The normalised mean vector of one sequence, straight from the engine's library."""
    encoder = ctranslate2.Encoder(str(model_dir), intra_threads=1)
    vectors = np.array(encoder.forward_batch([ids]).last_hidden_state)[0]
    mean = vectors.mean(axis=0)
    alone: np.ndarray = mean / np.linalg.norm(mean)
    return alone


# --- certificates ----------------------------------------------------------------------------


class Pki:
    """An authority, an agent's certificate and a gateway's, as files in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        now = dt.datetime.now(dt.timezone.utc)
        self.authority: Authority = create_authority(now)
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(self.authority.certificate_pem)
        self.server = self._write("agent", self.authority.issue_server("agent", ["127.0.0.1"], now))
        self.client = self._write("gateway", self.authority.issue_client("gateway", now))
        stranger = create_authority(now)
        self.stranger = self._write("stranger", stranger.issue_client("gateway", now))

    @property
    def tls(self) -> dict[str, str]:
        """The `tls` part of an agent's configuration."""
        certificate, key = self.server
        return {"ca": str(self.ca), "certificate": str(certificate), "key": str(key)}

    def context(self, shown: tuple[Path, Path] | None, alpn: str = ALPN_HTTP) -> ssl.SSLContext:
        """A client's context that shows a certificate, or none."""
        context = ssl.create_default_context(cafile=self.ca)
        context.set_alpn_protocols([alpn])
        if shown:
            context.load_cert_chain(*shown)
        return context

    def _write(self, name: str, issued: Issued) -> tuple[Path, Path]:
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        certificate.write_bytes(issued.certificate_pem)
        key.write_bytes(issued.key_pem)
        return certificate, key


# --- processes -------------------------------------------------------------------------------


class AgentProcess:
    """`python -m agents` with a configuration; its log is read until it says where it listens."""

    def __init__(self, folder: Path, config: dict[str, object], *, sigint_ignored: bool = False) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(config))
        command = [sys.executable, "-m", "agents", "--config", str(path)]
        if sigint_ignored:
            command = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", *command]
        self.log = folder / "agent.log"
        with self.log.open("wb") as stream:
            self.process = subprocess.Popen(command, cwd=ROOT, stderr=stream)

    @property
    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    async def port(self) -> int:
        """Where it listens, once it does."""
        await wait_for(lambda: self.process.poll() is not None or " port " in self.log.read_text())
        found = re.search(r"listens on \S+ port (\d+)", self.log.read_text())
        assert found, self.lines
        return int(found[1])

    def exit_code(self) -> int:
        """Wait until it ends."""
        return self.process.wait(WAIT_S)

    def close(self) -> None:
        """End it whatever it does."""
        self.process.kill()
        self.process.wait(WAIT_S)


class PeakMemory:
    """Watches the resident memory of a process, every half a millisecond."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._ended = threading.Event()
        self.peak = 0
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.is_set():
            self.peak = max(self.peak, self._process.memory_info().rss)
            time.sleep(0.0005)


async def wait_for(condition, bound_s: float = WAIT_S) -> None:
    """Look until it is so."""
    async with asyncio.timeout(bound_s):
        while not condition():  # noqa: ASYNC110 - another process cannot set our event
            await asyncio.sleep(0.005)


async def fetch(
    port: int, context: ssl.SSLContext, method: str, path: str, body: bytes = b"", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """One HTTP request on a connection of its own: status, headers, body."""
    async with asyncio.timeout(WAIT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        try:
            more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
            head = f"{method} {path} HTTP/1.1\r\nhost: agent\r\ncontent-length: {len(body)}\r\n{more}"
            writer.write(f"{head}connection: close\r\n\r\n".encode() + body)
            raw = await reader.read()
        finally:
            await close_writer(writer)
    answered, _, content = raw.partition(b"\r\n\r\n")
    first, *rest = answered.decode().split("\r\n")
    return int(first.split()[1]), dict(line.lower().split(": ", 1) for line in rest), content


async def reshape(port, context, workers, threads, batch_size) -> tuple[int, dict]:
    """Order a shape and wait: status and answer."""
    body = json.dumps({"workers": workers, "threads": threads, "batch_size": batch_size}).encode()
    status, _, answer = await fetch(port, context, "POST", PATH_SHAPE, body)
    return status, json.loads(answer)


async def close_writer(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


class Link:
    """A gateway's side of a link, as plain as it can be."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._stream = 0
        self.waiting: dict[int, asyncio.Future[Answer | Refusal]] = {}
        self.loads: list[LoadReport] = []
        self.kinds: list[Kind] = []
        self.reads: list[list[tuple[Kind, int]]] = []
        self.closed = False
        self._pump = asyncio.ensure_future(self._read())

    @classmethod
    async def connect(cls, port: int, pki: Pki) -> "Link":
        context = pki.context(pki.client, ALPN_LINK)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == ALPN_LINK
        return cls(reader, writer)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._pump.cancel()
        await asyncio.gather(self._pump, return_exceptions=True)
        await close_writer(self._writer)

    def start(self, body: bytes | dict[str, object], deadline_ms: int = 0, path: str = "/v1/embeddings"):
        """Send a request; returns its stream and the future of its answer or refusal."""
        self._stream += 1
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.waiting[self._stream] = asyncio.get_running_loop().create_future()
        self._writer.write(build_request(self._stream, Request(deadline_ms, path, "id", raw)))
        return self._stream, self.waiting[self._stream]

    async def ask(self, body: bytes | dict[str, object], deadline_ms: int = 0) -> Answer | Refusal:
        """Send a request and wait for what comes back."""
        return await asyncio.wait_for(self.start(body, deadline_ms)[1], WAIT_S)

    def send(self, kind: Kind, stream: int = 0) -> None:
        self._writer.write(build_frame(kind, stream))

    def write(self, raw: bytes) -> None:
        self._writer.write(raw)

    async def wait_state(self, state: AgentState) -> None:
        await wait_for(lambda: bool(self.loads) and self.loads[-1].state is state)

    async def _read(self) -> None:
        frames = FrameReader()
        with contextlib.suppress(OSError):
            while piece := await self._reader.read(1 << 18):
                got = list(frames.feed(piece))
                self.reads.append([(kind, stream) for kind, stream, _ in got])
                for kind, stream, payload in got:
                    self._take(kind, stream, payload)
        self.closed = True

    def _take(self, kind: Kind, stream: int, payload: bytes) -> None:
        self.kinds.append(kind)
        if kind is Kind.LOAD:
            self.loads.append(LoadReport.from_json(payload))
            return
        result = parse_answer(payload) if kind is Kind.ANSWER else parse_refusal(payload)
        self.waiting.pop(stream).set_result(result)
