"""The official SDK, unchanged, against the real model."""

import base64
import json
import math
import struct
import urllib.request

import openai
import pytest
from tokenizers import Tokenizer

pytestmark = pytest.mark.slow

SENTENCES = [
    "The mill grinds corn.",
    "A wheel turns in the river.",
    "Quarterly revenue rose by nine percent.",
]


@pytest.fixture(scope="module")
def client(appliance, key):
    with openai.OpenAI(api_key=key, base_url=f"{appliance.api}/v1", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def tokenizer(appliance):
    path = next((appliance.home / "models").glob("*/tokenizer.json"))
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def cosine(one, other):
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return dot / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))


def embed(client, text, **more):
    return client.embeddings.create(model="minilm", input=text, **more)


def test_string_gives_one_unit_vector(client, tokenizer):
    """A string gives one vector of 384 numbers, length 1, and its true token count."""
    answer = embed(client, SENTENCES[0])
    assert answer.model == "minilm"
    (item,) = answer.data
    assert len(item.embedding) == 384
    assert math.isclose(sum(x * x for x in item.embedding), 1.0, abs_tol=1e-4)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == len(tokenizer.encode(SENTENCES[0]).ids)


def test_list_keeps_its_order(client, tokenizer):
    """Each sentence of a list has the vector it has alone, at its own place."""
    many = SENTENCES * 40
    answer = embed(client, many)
    assert [item.index for item in answer.data] == list(range(len(many)))
    alone = [embed(client, sentence).data[0].embedding for sentence in SENTENCES]
    for index, item in enumerate(answer.data):
        scores = [cosine(item.embedding, vector) for vector in alone]
        assert max(range(3), key=scores.__getitem__) == index % 3
        assert scores[index % 3] > 0.99
    assert answer.usage.prompt_tokens == sum(len(tokenizer.encode(text).ids) for text in many)


def test_token_ids_are_what_the_tokenizer_gives(client, tokenizer):
    """Token ids, with or without special tokens, mean the same as the text; so do lists of them."""
    encoding = tokenizer.encode(SENTENCES[1])
    bare = [
        token
        for token, special in zip(encoding.ids, encoding.special_tokens_mask, strict=True)
        if not special
    ]
    expected = embed(client, SENTENCES[1]).data[0].embedding
    for ids in (encoding.ids, bare):
        answer = embed(client, ids)
        assert cosine(answer.data[0].embedding, expected) > 0.999
        assert answer.usage.prompt_tokens == len(encoding.ids)
    assert len(embed(client, [encoding.ids, bare]).data) == 2


def test_base64_and_float_are_the_same_numbers(client, appliance, key):
    """Both encodings carry the same vector; base64 is what the SDK asks for by default."""
    floats = embed(client, SENTENCES[0], encoding_format="float").data[0].embedding
    default = embed(client, SENTENCES[0]).data[0].embedding
    assert cosine(floats, default) > 0.99999
    body = json.dumps({"model": "minilm", "input": SENTENCES[0], "encoding_format": "base64"}).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    with urllib.request.urlopen(
        urllib.request.Request(f"{appliance.api}/v1/embeddings", body, headers)
    ) as answer:
        raw = base64.b64decode(json.load(answer)["data"][0]["embedding"])
    assert cosine(struct.unpack("<384f", raw), floats) > 0.99999


def test_dimensions_cut_and_renormalise(client):
    """Fewer dimensions are the first ones, scaled to length 1; more than there are is refused."""
    whole = embed(client, SENTENCES[0]).data[0].embedding
    cut = embed(client, SENTENCES[0], dimensions=64).data[0].embedding
    assert len(cut) == 64
    assert math.isclose(sum(x * x for x in cut), 1.0, abs_tol=1e-4)
    assert cosine(cut, whole[:64]) > 0.9999
    with pytest.raises(openai.BadRequestError) as refused:
        embed(client, SENTENCES[0], dimensions=385)
    assert refused.value.param == "dimensions"


def test_models_are_listed(client):
    """The list and the single model have the SDK's shape."""
    assert [model.id for model in client.models.list()] == ["minilm"]
    assert client.models.retrieve("minilm").object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nothing")


def test_errors_reach_the_sdk_as_its_own(appliance, key):
    """The SDK raises its own exception types, with our codes."""
    with openai.OpenAI(api_key="mw-wrong", base_url=f"{appliance.api}/v1", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as refused:
            embed(client, "x")
        assert refused.value.code == "invalid_api_key"
    with openai.OpenAI(api_key=key, base_url=f"{appliance.api}/v1", max_retries=0) as client:
        with pytest.raises(openai.NotFoundError) as unknown:
            client.embeddings.create(model="nothing", input="x")
        assert unknown.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as long:
            embed(client, "mill " * 600)
        assert long.value.code == "context_length_exceeded"
