"""What every engine must do, and what each does besides."""

import json
import shutil
import threading
import time

import numpy as np
import pytest
from agent_builders import build_model, infer_alone

from agents.engines.ctranslate2 import CTranslate2Engine, TextTokenizer
from agents.engines.fake import FakeEngine
from agents.errors import ModelError


@pytest.fixture(params=["fake", "ctranslate2"])
def engine(request, model_dir):
    """Each engine, loaded."""
    engine = (
        FakeEngine(0.0)
        if request.param == "fake"
        else CTranslate2Engine(model_dir, "embed", workers=2, threads=1)
    )
    engine.load()
    yield engine
    engine.close()


def test_shape_and_determinism(engine):
    """One vector per token, of the size it describes, the same each time."""
    size = engine.describe().dimensions
    sequences = [[2, 5, 6, 3], [2, 7, 3]]
    first, again = engine.infer(sequences), engine.infer(sequences)
    assert first.shape == (2, 4, size)
    assert first.dtype == np.float32
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1, :3], again[1, :3])
    assert not np.allclose(first[0, 1], first[1, 1])


def test_batch_mates_do_not_matter(engine):
    """A sequence has the same vectors alone and in a batch of unequal lengths."""
    short, long = [2, 9, 3], [2, *range(4, 24), 3]
    together = engine.infer([long, short])
    assert np.allclose(together[1, :3], engine.infer([short])[0], atol=0.05)


def test_unload_and_load(engine):
    """After unload and load the answers are the same; loading twice does no harm."""
    before = engine.infer([[2, 5, 3]]).copy()
    engine.unload()
    engine.load()
    engine.load()
    assert np.array_equal(engine.infer([[2, 5, 3]]), before)


def test_unloaded_engine_does_not_answer(engine):
    """Without its weights an engine fails, it does not make things up."""
    engine.unload()
    with pytest.raises(RuntimeError):
        engine.infer([[2, 5, 3]])


def test_unloading_right_after_a_batch_frees_the_weights(model_dir):
    """The library keeps them while it still counts the batch, and says nothing: it is asked again."""
    engine = CTranslate2Engine(model_dir, "embed", workers=2, threads=1)
    engine.load()
    for _ in range(50):
        engine.infer([[2, 5, 3]])
        engine.unload()
        assert not engine._encoder.model_is_loaded
        engine.load()
    engine.close()


def test_several_threads(engine):
    """Threads infer at the same time and each gets its own."""
    expected = {word: engine.infer([[2, word, 3]]).copy() for word in range(4, 12)}
    wrong: list[int] = []

    def run(word: int) -> None:
        wrong.extend(
            word for _ in range(20) if not np.array_equal(engine.infer([[2, word, 3]]), expected[word])
        )

    threads = [threading.Thread(target=run, args=(word,)) for word in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_tokenizer_completes_sequences(engine):
    """Prefix and suffix are what the tokenizer itself puts around a text."""
    tokenizer = engine.describe().tokenizer
    for ids in tokenizer.encode(["the fox", "dog"]):
        assert tuple(ids[: len(tokenizer.prefix)]) == tokenizer.prefix
        assert tuple(ids[-len(tokenizer.suffix) :]) == tokenizer.suffix


@pytest.mark.parametrize(("per", "naps"), [("batch", [0.25]), ("sequence", [0.75])])
def test_fake_service_time(monkeypatch, per, naps):
    """The fake engine sleeps once per batch, or for each sequence."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    engine = FakeEngine(0.25, per)
    engine.load()
    engine.infer([[1, 2]] * 3)
    assert slept == naps


def test_fake_load_time(monkeypatch):
    """The fake engine takes its time to load each time that it is not loaded."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    engine = FakeEngine(0.0, load_s=0.5)
    engine.load()
    engine.load()
    engine.unload()
    engine.load()
    assert slept == [0.5, 0.5]


def test_mean_is_that_of_the_library(model_dir):
    """The engine hands on what CTranslate2 computes."""
    engine = CTranslate2Engine(model_dir, "embed", workers=1, threads=1)
    engine.load()
    mean = engine.infer([[2, 8, 9, 3]])[0].mean(axis=0)
    assert np.allclose(mean / np.linalg.norm(mean), infer_alone(model_dir, [2, 8, 9, 3]), atol=1e-5)


def change_manifest(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def append(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes() + b"x")


def flip(folder):
    raw = bytearray((folder / "model.bin").read_bytes())
    raw[-1] ^= 1
    (folder / "model.bin").write_bytes(raw)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(shutil.rmtree, ["manifest.json", "cannot be read"], id="no model"),
        pytest.param(lambda folder: (folder / "model.bin").unlink(), ["model.bin", "read"], id="no weights"),
        pytest.param(append("model.bin"), ["model.bin", "bytes"], id="a byte more"),
        pytest.param(flip, ["model.bin", "SHA-256"], id="a bit flipped"),
        pytest.param(append("tokenizer.json"), ["tokenizer.json"], id="another tokenizer"),
        pytest.param(lambda folder: change_manifest(folder, max_length=9), ["digest"], id="manifest changed"),
        pytest.param(lambda folder: change_manifest(folder, format=2), ["format 2", "1"], id="newer format"),
    ],
)
def test_damaged_model(model_dir, tmp_path, damage, words):
    """What is not exactly what the manifest says is not loaded, and the reason names it."""
    folder = tmp_path / "model"
    shutil.copytree(model_dir, folder)
    damage(folder)
    engine = CTranslate2Engine(folder, "embed", workers=1, threads=1)
    with pytest.raises(ModelError) as caught:
        engine.load()
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"task": "generate"}, ["'generate'", "embed"], id="another task"),
        pytest.param({"engine": "other"}, ["'other'", "ctranslate2"], id="another engine"),
        pytest.param({"dimensions": 31}, ["32", "31"], id="another size"),
        pytest.param({"pooling": "max"}, ["'max'", "mean or cls"], id="unknown pooling"),
        pytest.param({"max_length": "many"}, ["many"], id="no number"),
        pytest.param(
            {"files": [{"path": "../x", "bytes": 1, "sha256": "0"}]}, ["../x", "inside"], id="outside"
        ),
    ],
)
def test_manifest_that_does_not_fit(tmp_path, changes, words):
    """A manifest in order by itself, of a model that this engine must not serve."""
    folder = build_model(tmp_path / "model", **changes)
    with pytest.raises(ModelError) as caught:
        CTranslate2Engine(folder, "embed", workers=1, threads=1).load()
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_broken_tokenizer(tmp_path):
    """A tokenizer that the library does not read is a ModelError, too."""
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        TextTokenizer(path)
