"""The embeddings task: what it takes, what it refuses, and what its vectors are."""

import base64
import gc
import json

import numpy as np
import pytest
from agent_builders import TINY_DIMENSIONS, TINY_POSITIONS, WORDS, infer_alone

from agents.engines.base import Description
from agents.engines.ctranslate2 import CTranslate2Engine, TextTokenizer
from agents.errors import RequestError
from agents.tasks.embed import CHARACTERS_PER_TOKEN, MAX_INPUTS, SMALL_BYTES, EmbedTask

CLS, SEP = 2, 3


@pytest.fixture(scope="module")
def description(model_dir):
    """What the tiny model's manifest says, with its own tokenizer."""
    tokenizer = TextTokenizer(model_dir / "tokenizer.json")
    return Description(TINY_DIMENSIONS, TINY_POSITIONS, 50, "mean", True, tokenizer)


@pytest.fixture(scope="module")
def task(description):
    """The task as the agent builds it."""
    return EmbedTask("tiny", description)


def body(**fields) -> bytes:
    return json.dumps({"model": "tiny", "input": "the fox"} | fields).encode()


@pytest.mark.parametrize(
    ("given", "sequences"),
    [
        pytest.param("the small fox", [[CLS, 4, 6, 8, SEP]], id="string"),
        pytest.param(["the", "fox"], [[CLS, 4, SEP], [CLS, 8, SEP]], id="strings"),
        pytest.param([4, 8], [[CLS, 4, 8, SEP]], id="token ids"),
        pytest.param([[4, 8], [6]], [[CLS, 4, 8, SEP], [CLS, 6, SEP]], id="lists of token ids"),
        pytest.param([CLS, 4, SEP], [[CLS, 4, SEP]], id="complete already"),
        pytest.param([CLS, 4], [[CLS, 4, SEP]], id="end is missing"),
        pytest.param([4, SEP], [[CLS, 4, SEP]], id="start is missing"),
        pytest.param([SEP], [[SEP]], id="a special token alone"),
        pytest.param(" ", [[CLS, SEP]], id="a space is a character"),
        pytest.param("fox " * 20, [[CLS, *[8] * 20, SEP]], id="more than the file's truncation and padding"),
    ],
)
def test_inputs(task, given, sequences):
    """Each shape of input becomes complete sequences, in order, and usage counts every token."""
    prepared = task.prepare(body(input=given, user="u", unknown={"a": [1]}))
    assert [list(ids) for ids in prepared.sequences] == sequences
    assert prepared.prompt_tokens == sum(map(len, sequences))


LONG = TINY_POSITIONS - 2


@pytest.mark.parametrize(
    ("fields", "expected", "words"),
    [
        pytest.param({"input": ""}, (400, None, "input"), ["input 0", "empty"], id="empty string"),
        pytest.param({"input": []}, (400, None, "input"), ["empty list"], id="empty list"),
        pytest.param({"input": ["a", ""]}, (400, None, "input"), ["input 1", "empty"], id="an empty one"),
        pytest.param({"input": [[4], []]}, (400, None, "input"), ["input 1", "empty"], id="empty ids"),
        pytest.param({"input": None}, (400, None, "input"), ["None"], id="null"),
        pytest.param({"input": 3}, (400, None, "input"), ["3"], id="number"),
        pytest.param({"input": {"a": 1}}, (400, None, "input"), ["string"], id="object"),
        pytest.param({"input": ["a", 4]}, (400, None, "input"), ["different"], id="mixed"),
        pytest.param({"input": [True]}, (400, None, "input"), ["different"], id="truths"),
        pytest.param({"input": [4, 1.0]}, (400, None, "input"), ["different"], id="a fraction"),
        pytest.param({"input": [[4, "a"]]}, (400, None, "input"), ["input 0", "'a'"], id="text among ids"),
        pytest.param({"input": [[4, [4]]]}, (400, None, "input"), ["input 0"], id="too deep"),
        pytest.param(
            {"input": [4, 50]}, (400, None, "input"), ["50", "0 to 49"], id="outside the vocabulary"
        ),
        pytest.param({"input": [-1]}, (400, None, "input"), ["-1"], id="below the vocabulary"),
        pytest.param({"input": [10**30]}, (400, None, "input"), ["0 to 49"], id="far outside"),
        pytest.param(
            {"input": ["a"] * 3000}, (400, None, "input"), ["3000", str(MAX_INPUTS)], id="3000 inputs"
        ),
        pytest.param(
            {"input": [[4]] * 3000}, (400, None, "input"), ["3000", str(MAX_INPUTS)], id="3000 lists"
        ),
        pytest.param(
            {"input": ["a", "fox " * (LONG + 1)]},
            (400, "context_length_exceeded", "input"),
            ["input 1", str(TINY_POSITIONS + 1), str(TINY_POSITIONS)],
            id="too many tokens",
        ),
        pytest.param(
            {"input": [4] * (LONG + 1)},
            (400, "context_length_exceeded", "input"),
            [str(TINY_POSITIONS + 1), str(TINY_POSITIONS)],
            id="too many token ids",
        ),
        pytest.param(
            {"input": "x" * (TINY_POSITIONS * CHARACTERS_PER_TOKEN + 1)},
            (400, "context_length_exceeded", "input"),
            ["4097", "4096", str(TINY_POSITIONS)],
            id="too many characters",
        ),
        pytest.param(
            {"model": "other"}, (404, "model_not_found", "model"), ["'other'", "'tiny'"], id="model"
        ),
        pytest.param({"model": None}, (400, None, "model"), ["None"], id="no model"),
        pytest.param({"model": 3}, (400, None, "model"), ["3"], id="model's type"),
        pytest.param({"encoding_format": "int8"}, (400, None, "encoding_format"), ["'int8'"], id="encoding"),
        pytest.param({"encoding_format": []}, (400, None, "encoding_format"), ["[]"], id="encoding's type"),
        pytest.param({"dimensions": 0}, (400, None, "dimensions"), ["0", "1 to 32"], id="no dimensions"),
        pytest.param({"dimensions": 33}, (400, None, "dimensions"), ["33", "1 to 32"], id="many dimensions"),
        pytest.param({"dimensions": 1.5}, (400, None, "dimensions"), ["1.5"], id="a part of one"),
        pytest.param({"dimensions": True}, (400, None, "dimensions"), ["True"], id="dimensions' type"),
    ],
)
def test_bad_fields(task, fields, expected, words):
    """Each fault names its field and value, and what is accepted."""
    with pytest.raises(RequestError) as caught:
        task.prepare(body(**fields))
    error = json.loads(caught.value.to_body())["error"]
    assert (caught.value.status, error["code"], error["param"]) == expected
    assert error["type"] == "invalid_request_error"
    assert all(word in error["message"] for word in words), error["message"]
    assert len(error["message"]) < 300


def test_the_longest_input_fits(task):
    """The bound itself is accepted."""
    assert task.prepare(body(input="fox " * LONG)).prompt_tokens == TINY_POSITIONS
    assert len(task.prepare(body(input=["a"] * MAX_INPUTS)).sequences) == MAX_INPUTS


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b'{"model":"tiny","input":"\xff"}',
        b'{"model":"tiny","input":"a","user":"\xff"}',
        b'{"model":"tiny","input":"\\ud800"}',
        b'{"model":"tiny","input":"a","dimensions":1e999}',
        b'{"model":"tiny","input":' + b"[" * 100_000,
        b'{"model":"tiny","input":[' + b"9" * 10_000 + b"]}",
    ],
)
def test_bodies_that_are_none(task, raw):
    """What is no JSON object in UTF-8 is a client's error, whatever it is."""
    with pytest.raises(RequestError) as caught:
        task.prepare(raw)
    assert caught.value.status == 400


def answer(task, engine, **fields):
    prepared = task.prepare(body(**fields))
    rows = task.reduce(engine.infer(prepared.sequences), [len(ids) for ids in prepared.sequences])
    return json.loads(task.respond(prepared, list(rows)))


@pytest.fixture(scope="module")
def engine(model_dir):
    """The tiny model, loaded."""
    engine = CTranslate2Engine(model_dir, "embed", workers=1, threads=1)
    engine.load()
    yield engine
    engine.close()


def test_answer(task, engine, model_dir):
    """Vectors are those of each input alone, in order, whatever shared its batch; usage is true."""
    texts = ["the small brown fox", "a dog", " ".join(WORDS)]
    given = answer(task, engine, input=texts)
    assert given["object"] == "list"
    assert given["model"] == "tiny"
    assert [(entry["object"], entry["index"]) for entry in given["data"]] == [
        ("embedding", 0),
        ("embedding", 1),
        ("embedding", 2),
    ]
    prepared = task.prepare(body(input=texts))
    for entry, ids in zip(given["data"], prepared.sequences, strict=True):
        alone = infer_alone(model_dir, list(ids))
        assert np.dot(entry["embedding"], alone) == pytest.approx(1, abs=1e-3)
        assert np.linalg.norm(entry["embedding"]) == pytest.approx(1, abs=1e-5)
    assert given["usage"] == {"prompt_tokens": 35, "total_tokens": 35}


def test_base64_is_the_same_vector(task, engine):
    """Little-endian float32, the very numbers of the float answer."""
    plain = answer(task, engine)["data"][0]["embedding"]
    packed = answer(task, engine, encoding_format="base64")["data"][0]["embedding"]
    assert np.frombuffer(base64.b64decode(packed), "<f4").tolist() == plain


@pytest.mark.parametrize("count", [1, 7, TINY_DIMENSIONS])
def test_dimensions_truncate_and_normalise(task, engine, count):
    """The first ones, of length 1 again."""
    whole = np.array(answer(task, engine)["data"][0]["embedding"])[:count]
    cut = answer(task, engine, dimensions=count)["data"][0]["embedding"]
    assert np.allclose(cut, whole / np.linalg.norm(whole), atol=1e-6)


@pytest.mark.parametrize(
    ("pooling", "normalize", "expected"),
    [
        ("mean", False, [[2.0, 3.0], [5.0, 6.0]]),
        ("cls", False, [[1.0, 2.0], [5.0, 6.0]]),
        ("cls", True, [[0.4472136, 0.8944272], [0.6401844, 0.7682213]]),
    ],
)
def test_pooling(description, pooling, normalize, expected):
    """As the manifest says, over the real length: what stands beyond it counts for nothing."""
    model = Description(2, 8, 50, pooling, normalize, description.tokenizer)
    vectors = np.array([[[1, 2], [3, 4]], [[5, 6], [np.nan, 1e30]]], np.float32)
    assert np.allclose(EmbedTask("tiny", model).reduce(vectors, [2, 1]), expected)


MANY = 2_000_000


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        pytest.param('"input":[%s[]]' % ("[]," * MANY), "too many entries", id="lists"),
        pytest.param('"input":{"a":[%s1]}' % ("[]," * MANY), "none of what is accepted", id="an object"),
        pytest.param('"input":["a",%s1]' % ("[]," * MANY), "none of what is accepted", id="mixed"),
        pytest.param('"input":[[1,%s1]]' % ("1.5," * MANY), "too many tokens", id="no token ids"),
        pytest.param('"input":[%s1]' % ("1," * MANY), "too many tokens", id="token ids"),
        pytest.param('"input":"a","dimensions":[%s1]' % ("[]," * MANY), "dimensions has", id="another field"),
    ],
)
def test_large_bodies_that_are_none_make_no_objects(task, raw, message):
    """They are refused before millions of objects hold up the process, and with it its beats."""
    before = sum(stage["collections"] for stage in gc.get_stats())
    with pytest.raises(RequestError, match=message):
        task.prepare(f'{{"model":"tiny",{raw}}}'.encode())
    assert sum(stage["collections"] for stage in gc.get_stats()) - before < 10


@pytest.mark.slow
@pytest.mark.parametrize("space", ["", " ", "\n" * 100], ids=["none", "one", "many"])
def test_large_inputs_that_are_fine(task, space):
    """Of each shape that may be large, with spaces in it or not."""
    word = '"fox' + " " * (LONG * CHARACTERS_PER_TOKEN // 2) + '"'
    ids = "[4" + " " * 40 + "]"
    for entry in (word, ids):
        entries = ",".join([entry] * MAX_INPUTS)
        raw = f'{{"model":"tiny","input":[{space}{entries}]}}'.encode()
        assert len(raw) > SMALL_BYTES
        assert len(task.prepare(raw).sequences) == MAX_INPUTS
