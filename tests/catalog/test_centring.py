"""Int8 models are shifted so that rounding costs less, and in exact arithmetic nothing changes."""

import json

import ctranslate2
import numpy as np
import pytest
from catalog_builders import NAMES, Shape, random_weights, tokenizer, write_json, write_model
from ctranslate2.specs import model_spec
from numpy_encoder import cosines, encode

from appliance.catalog.centring import Rehearsal
from appliance.catalog.encoder import convert_encoder
from appliance.catalog.importing import import_model
from appliance.catalog.settings import read_settings
from appliance.catalog.vocabulary import Vocabulary, read_vocabulary, sample_sequences
from appliance.catalog.weights import Weights

KINDS = ("bert", "roberta", "xlm-roberta", "distilbert")
TEXTS = ((2, 9, 3), (2, 17, 30, 3), (2, 41, 8, 22, 3), (2, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 3))


def with_offset(shape):
    """Random weights with a channel that is large at every token, which a shift can take away."""
    weights = random_weights(shape)
    _, prefix, part = NAMES[shape.kind]
    weights["embeddings.LayerNorm.bias"][5] = 15.0
    for number in range(shape.layers):
        weights[f"{prefix}.{number}.{part['n1']}.bias"][5] = 15.0
        for key in ("q", "k", "v", "up"):
            weights[f"{prefix}.{number}.{part[key]}.weight"][:, 5] *= 0.1
    return weights


def with_large_first(shape):
    """Random weights with a channel large at the first token alone: by a shift, others would suffer."""
    weights = random_weights(shape)
    for name, array in weights.items():
        if name.endswith("_embeddings.weight"):
            array[:, 5] = 0.0
    weights["embeddings.position_embeddings.weight"][shape.offset, 5] = 20.0
    weights["embeddings.LayerNorm.weight"][5] = 6.0
    return weights


def convert(folder, quantization):
    """The engine's specification of a model directory."""
    settings, _ = read_settings(folder)
    vocabulary = read_vocabulary(folder / "tokenizer.json", settings.vocabulary_size)
    with Weights(folder) as weights:
        return convert_encoder(settings, weights, vocabulary, quantization)


def movable(spec):
    """The betas and biases of a specification, by name: all that a shift may change."""
    return {
        name: value.numpy() for name, value in spec.variables().items() if name.endswith(("/beta", "/bias"))
    }


def run(folder, batch):
    """The engine's token vectors of each sequence."""
    output = np.array(ctranslate2.Encoder(str(folder), device="cpu").forward_batch(batch).last_hidden_state)
    return [output[at, : len(ids)] for at, ids in enumerate(batch)]


def loss(store, folder, weights, shape):
    """One minus the cosine of an int8 import's sentence vectors to the exact ones, averaged over TEXTS."""
    found = run(store.path(import_model(store, str(folder))["digest"]), TEXTS)
    expected = [encode(weights, shape, list(ids)) for ids in TEXTS]
    return 1 - np.mean(
        [cosines(one.mean(axis=0), other.mean(axis=0)) for one, other in zip(found, expected, strict=True)]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_shifts_are_exact(tmp_path, kind):
    """The float32 model with the int8 model's betas and biases gives the same vectors to 1e-4."""
    shape = Shape(kind=kind)
    weights = with_offset(shape)
    folder = write_model(tmp_path / "model", shape, weights)
    whole, small = convert(folder, "float32"), convert(folder, "int8")
    shifted = movable(small)
    assert any(not np.array_equal(shifted[name], value) for name, value in movable(whole).items())
    for name, value in shifted.items():
        at, _, last = name.rpartition("/")
        setattr(model_spec.index_spec(whole, at), last, value)
    whole.validate()
    (tmp_path / "shifted").mkdir()
    whole.save(str(tmp_path / "shifted"))
    found = run(tmp_path / "shifted", TEXTS)
    expected = [encode(weights, shape, list(ids)) for ids in TEXTS]
    assert max(np.abs(one - other).max() for one, other in zip(found, expected, strict=True)) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_shifts_take_away_much_of_the_loss(store, tmp_path, monkeypatch, kind):
    """With a channel that is large everywhere, int8 loses at most half of what it does without."""
    shape = Shape(kind=kind)
    weights = with_offset(shape)
    folder = write_model(tmp_path / "model", shape, weights)
    with_shifts = loss(store, folder, weights, shape)
    monkeypatch.setattr(Rehearsal, "helps", False)
    without = loss(store, folder, weights, shape)
    print(kind, with_shifts, without)
    assert with_shifts < without / 2


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "quick_gelu", "relu", "silu"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_rehearsal_computes_what_the_engine_does(tmp_path, monkeypatch, kind, activation):
    """Its exact run ends in the float32 engine's token vectors, for every architecture and activation."""
    shape = Shape(kind=kind, activation=activation)
    folder = write_model(tmp_path / "model", shape)
    rehearsals = []
    monkeypatch.setattr(Rehearsal, "helps", property(rehearsals.append))
    convert(folder, "int8")
    (tmp_path / "whole").mkdir()
    convert(folder, "float32").save(str(tmp_path / "whole"))
    vocabulary = read_vocabulary(folder / "tokenizer.json", shape.vocabulary)
    expected = run(tmp_path / "whole", sample_sequences(vocabulary, shape.positions))
    assert len(rehearsals) == 1
    assert np.abs(rehearsals[0].states[0] - np.concatenate(expected)).max() < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_shifts_that_do_not_help_are_left_out(tmp_path, kind):
    """Where the rehearsal finds no gain, betas and biases are the float32 model's to the bit."""
    shape = Shape(kind=kind)
    folder = write_model(tmp_path / "model", shape, with_large_first(shape))
    small, whole = movable(convert(folder, "int8")), movable(convert(folder, "float32"))
    assert all(np.array_equal(small[name], value) for name, value in whole.items())


@pytest.mark.parametrize(
    ("scale", "helps"), [pytest.param(1.0, True, id="sound"), pytest.param(1e30, False, id="overflowing")]
)
def test_a_rehearsal_that_overflows_helps_nothing(tmp_path, monkeypatch, scale, helps):
    """Weights too large for float32 arithmetic are converted without shifts, and without a warning."""
    shape = Shape()
    weights = with_offset(shape)
    for name in weights:
        if name.endswith(("query.weight", "intermediate.dense.weight", "output.dense.weight")):
            weights[name] = weights[name] * np.float32(scale)
    folder = write_model(tmp_path / "model", shape, weights)
    small, whole = movable(convert(folder, "int8")), movable(convert(folder, "float32"))
    assert any(not np.array_equal(small[name], value) for name, value in whole.items()) is helps


def test_a_model_too_short_for_samples_is_converted(store, tmp_path):
    """One position leaves no room for a sample; the model is imported as it is."""
    shape = Shape(positions=1)
    assert import_model(store, str(write_model(tmp_path / "model", shape)))["max_length"] == 1


def test_samples_are_framed_and_spread_over_the_vocabulary():
    """Every sample has the tokenizer's own tokens around words from all over the vocabulary."""
    vocabulary = Vocabulary(("",) * 1000, (101,), (102,), tuple(range(200, 1000)))
    samples = sample_sequences(vocabulary, 512)
    assert all(sample[0] == 101 and sample[-1] == 102 for sample in samples)
    words = [token for sample in samples for token in sample[1:-1]]
    assert len(set(words)) == len(words) > 40
    assert np.histogram(words, bins=8, range=(200, 1000))[0].min() >= 4
    assert max(len(sample) for sample in sample_sequences(vocabulary, 7)) <= 7
    assert sample_sequences(Vocabulary(("",), (), (), ()), 512) == []


def test_the_tokens_around_a_text_are_read_from_the_tokenizer(tmp_path):
    """A template gives what stands before and after; added tokens are no words."""
    content = tokenizer(20)
    content["added_tokens"] = [
        {"id": at, "content": name, "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for at, name in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]"))
    ]
    piece = {"Sequence": {"id": "A", "type_id": 0}}
    first, last = ({"SpecialToken": {"id": name, "type_id": 0}} for name in ("[CLS]", "[SEP]"))
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [first, piece, last],
        "pair": [first, piece, last],
        "special_tokens": {
            name: {"id": name, "ids": [at], "tokens": [name]} for name, at in (("[CLS]", 2), ("[SEP]", 3))
        },
    }
    content["padding"] = {
        "strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
    }  # fmt: skip
    write_json(tmp_path / "tokenizer.json", content)
    vocabulary = read_vocabulary(tmp_path / "tokenizer.json", 25)
    assert (vocabulary.before, vocabulary.after) == ((2,), (3,))
    assert vocabulary.ordinary == tuple(range(4, 20))
    assert json.dumps(vocabulary.tokens[18:]) == json.dumps(
        ["w18", "w19", *(f"<extra_id_{at}>" for at in range(20, 25))]
    )
