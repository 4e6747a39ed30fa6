"""Converted encoders give the vectors that their weights define: judged by an encoder in plain numpy."""

import json
import struct

import ctranslate2
import numpy as np
import pytest
from catalog_builders import Shape, random_weights, write_json, write_model
from ctranslate2.converters import utils
from ctranslate2.specs import common_spec
from numpy_encoder import cosines, encode
from safetensors.numpy import save, save_file

from appliance.catalog.errors import BadModel
from appliance.catalog.importing import import_model
from appliance.catalog.rounding import quantize_rows

LENGTHS = (1, 2, 5, 9, 17, 24)


def sequences(shape, seed=3):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, shape.vocabulary, length).tolist() for length in LENGTHS]


def run(store, manifest, batch):
    """The engine's token vectors of each sequence, from one padded batch."""
    engine = ctranslate2.Encoder(str(store.path(manifest["digest"])), device="cpu", compute_type="default")
    output = np.array(engine.forward_batch(batch).last_hidden_state)
    return [output[at, : len(ids)] for at, ids in enumerate(batch)]


def worst_cosine(found, expected):
    return min(cosines(one, other).min() for one, other in zip(found, expected, strict=True))


def check(store, folder, shape, weights, *, float32_only=False):
    """Import at both quantizations and compare with the numpy encoder, token by token."""
    batch = sequences(shape)
    expected = [encode(weights, shape, ids) for ids in batch]
    whole = run(store, import_model(store, str(folder), quantization="float32"), batch)
    assert worst_cosine(whole, expected) > 0.9999
    assert max(np.abs(one - other).max() for one, other in zip(whole, expected, strict=True)) < 2e-3
    if not float32_only:
        small = run(store, import_model(store, str(folder), quantization="int8"), batch)
        assert (
            worst_cosine(
                [one.mean(axis=0, keepdims=True) for one in small],
                [one.mean(axis=0, keepdims=True) for one in expected],
            )
            > 0.99
        )


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "distilbert"])
def test_each_architecture_gives_the_vectors_its_weights_define(store, tmp_path, kind):
    """Every accepted architecture agrees with the numpy encoder, in float32 and in int8."""
    shape = Shape(kind=kind)
    check(store, write_model(tmp_path / "model", shape), shape, random_weights(shape))


@pytest.mark.parametrize("activation", ["gelu_new", "relu"])
def test_activations(store, tmp_path, activation):
    """The activation that config.json names is the one that is computed."""
    shape = Shape(activation=activation)
    check(store, write_model(tmp_path / "model", shape), shape, random_weights(shape), float32_only=True)


def test_epsilon_is_taken_from_the_configuration(store, tmp_path):
    """A large layer_norm_eps changes the vectors as it should."""
    shape = Shape(epsilon=0.5)
    check(store, write_model(tmp_path / "model", shape), shape, random_weights(shape), float32_only=True)


@pytest.mark.parametrize("prefix", ["bert.", "0.auto_model."])
def test_prefixes_are_understood(store, bert, tmp_path, prefix):
    """The same weights under a prefix are the same model."""
    folder = write_model(tmp_path / "model", prefix=prefix)
    assert import_model(store, str(folder))["digest"] == import_model(store, str(bert))["digest"]


def test_gamma_and_beta_are_understood(store, bert, tmp_path):
    """The old names of a norm's weights are the same model."""
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): array
        for name, array in random_weights(Shape()).items()
    }
    folder = write_model(tmp_path / "model", weights=old)
    assert import_model(store, str(folder))["digest"] == import_model(store, str(bert))["digest"]


def test_pooler_and_buffers_do_not_matter(store, bert, tmp_path):
    """A pooler, a head and position ids beside the encoder change nothing."""
    more = {
        "pooler.dense.weight": np.ones((32, 32), np.float32),
        "pooler.dense.bias": np.ones(32, np.float32),
        "cls.predictions.bias": np.ones(50, np.float32),
        "embeddings.position_ids": np.arange(24),
    }
    folder = write_model(tmp_path / "model", weights={**random_weights(Shape()), **more})
    assert import_model(store, str(folder))["digest"] == import_model(store, str(bert))["digest"]


def test_half_precision_weights(store, tmp_path):
    """float16 weights give what those rounded weights define."""
    shape = Shape()
    halves = {name: array.astype(np.float16) for name, array in random_weights(shape).items()}
    folder = write_model(tmp_path / "model", shape, halves)
    rounded = {name: array.astype(np.float32) for name, array in halves.items()}
    check(store, folder, shape, rounded, float32_only=True)


def test_bfloat16_weights(store, tmp_path):
    """bfloat16 weights, which numpy does not know, give what those rounded weights define."""
    shape = Shape()
    weights = random_weights(shape)
    upper = {name: (array.view(np.uint32) >> 16).astype(np.uint16) for name, array in weights.items()}
    folder = write_model(tmp_path / "model", shape)
    as_integers = save(upper)  # the same bytes, but the header calls them U16
    size = struct.unpack("<Q", as_integers[:8])[0]
    header = as_integers[8 : 8 + size].replace(b'"U16"', b'"BF16"')
    written = struct.pack("<Q", len(header)) + header + as_integers[8 + size :]
    (folder / "model.safetensors").write_bytes(written)
    rounded = {name: (array.astype(np.uint32) << 16).view(np.float32) for name, array in upper.items()}
    check(store, folder, shape, rounded, float32_only=True)


def test_sharded_weights_are_the_same_model(store, bert, tmp_path):
    """Weights spread over several files with an index give the same digest."""
    folder = write_model(tmp_path / "model")
    weights = random_weights(Shape())
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    shards = {"model-1-of-2.safetensors": names[::2], "model-2-of-2.safetensors": names[1::2]}
    for file, part in shards.items():
        save_file({name: weights[name] for name in part}, folder / file)
    index = {name: file for file, part in shards.items() for name in part}
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})
    assert import_model(store, str(folder))["digest"] == import_model(store, str(bert))["digest"]


def test_importing_twice_gives_the_same_bytes(tmp_path, bert):
    """Two stores that import the same content hold byte for byte the same files."""
    from appliance.catalog.store import Store  # noqa: PLC0415 - two stores, only here

    stores = [Store(tmp_path / name) for name in ("one", "two")]
    manifests = [import_model(store, str(bert)) for store in stores]
    assert manifests[0] == manifests[1]
    folders = [store.path(manifest["digest"]) for store, manifest in zip(stores, manifests, strict=True)]
    for path in folders[0].iterdir():
        assert path.read_bytes() == (folders[1] / path.name).read_bytes()


def test_quantization_is_the_librarys_own():
    """Rows become the very bits that the engine's own converter gives, zero and tiny rows too."""
    rng = np.random.default_rng(5)
    array = rng.normal(0, 0.05, (64, 48)).astype(np.float32)
    array[3] = 0
    array[4] = 1e-38
    spec = common_spec.LinearSpec()
    parts = [common_spec.LinearSpec()]
    parts[0].weight, parts[0].bias = array.copy(), np.zeros(64, np.float32)
    utils.fuse_linear(spec, parts)
    spec.validate()
    spec.optimize(quantization="int8")
    rows, scales = quantize_rows(array.copy())
    assert np.array_equal(rows, spec.weight.numpy())
    assert np.array_equal(scales, spec.weight_scale.numpy())


def test_manifest_says_what_the_model_is(store, bert):
    """The manifest has every fact that an agent and placement need."""
    manifest = import_model(store, str(bert))
    assert {key: manifest[key] for key in manifest if key not in {"files", "digest", "size_bytes"}} == {
        "format": 1,
        "task": "embed",
        "engine": "ctranslate2",
        "quantization": "int8",
        "architecture": "bert",
        "dimensions": 32,
        "max_length": 24,
        "pooling": "mean",
        "normalize": True,
        "vocabulary_size": 50,
        "source": str(bert),
    }
    folder = store.path(manifest["digest"])
    listed = {file["path"]: file["bytes"] for file in manifest["files"]}
    assert listed == {
        path.name: path.stat().st_size for path in folder.iterdir() if path.name != "manifest.json"
    }
    assert manifest["size_bytes"] == sum(listed.values())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    assert tokenizer["truncation"]["max_length"] == 8  # left as it was: the agent switches it off


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"max_seq_length": 16}, {"max_length": 16}, id="shorter than the positions"),
        pytest.param({"max_seq_length": 512}, {"max_length": 24}, id="longer than the positions"),
        pytest.param({"pooling": "cls"}, {"pooling": "cls"}, id="cls pooling"),
        pytest.param({"pooling": None}, {"pooling": "mean", "normalize": True}, id="nothing said"),
        pytest.param({"modules": ()}, {"normalize": False}, id="no normalising"),
        pytest.param(
            {"shape": Shape(kind="xlm-roberta")}, {"max_length": 24}, id="roberta's padding positions"
        ),
    ],
)
def test_settings_reach_the_manifest(store, tmp_path, changes, expected):
    """Length, pooling and normalising are taken from the files that say them."""
    manifest = import_model(store, str(write_model(tmp_path / "model", **changes)))
    assert {key: manifest[key] for key in expected} == expected


def test_weights_that_are_not_finite_are_refused(store, tmp_path):
    """A NaN among the weights is named, not served."""
    weights = random_weights(Shape())
    weights["embeddings.LayerNorm.bias"][3] = np.nan
    with pytest.raises(BadModel, match=r"'embeddings.LayerNorm.bias' holds values that are not finite"):
        import_model(store, str(write_model(tmp_path / "model", weights=weights)))
