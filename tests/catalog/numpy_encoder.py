"""An encoder in plain numpy, written from the architecture's definition.

It shares no code with the conversion that it judges.
"""

import math

import numpy as np
from catalog_builders import NAMES

_ERF = np.vectorize(math.erf, otypes=[np.float64])


def encode(weights, shape, ids):
    """The token vectors of one sequence in float32, [tokens, hidden], by definition."""
    _, prefix, part = NAMES[shape.kind]
    positions = np.arange(len(ids)) + shape.offset
    states = (
        weights["embeddings.word_embeddings.weight"][ids]
        + weights["embeddings.position_embeddings.weight"][positions]
    )
    if shape.kind != "distilbert":
        states = states + weights["embeddings.token_type_embeddings.weight"][0]
    states = _norm(states, weights, "embeddings.LayerNorm", shape.epsilon)
    for number in range(shape.layers):
        at = f"{prefix}.{number}"
        mixed = _attention(states, weights, {key: f"{at}.{name}" for key, name in part.items()}, shape.heads)
        states = _norm(states + mixed, weights, f"{at}.{part['n1']}", shape.epsilon)
        wide = _activate(_linear(states, weights, f"{at}.{part['up']}"), shape.activation)
        states = _norm(
            states + _linear(wide, weights, f"{at}.{part['down']}"),
            weights,
            f"{at}.{part['n2']}",
            shape.epsilon,
        )
    return states


def _attention(states, weights, names, heads):
    tokens, hidden = states.shape
    query, key, value = (
        _linear(states, weights, names[name]).reshape(tokens, heads, hidden // heads).transpose(1, 0, 2)
        for name in "qkv"
    )
    scores = query @ key.transpose(0, 2, 1) / np.float32(math.sqrt(hidden // heads))
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ value
    return _linear(mixed.transpose(1, 0, 2).reshape(tokens, hidden), weights, names["o"])


def _linear(states, weights, name):
    return states @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _norm(states, weights, name, epsilon):
    centred = states - states.mean(axis=-1, keepdims=True)
    scale = 1 / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + np.float32(epsilon))
    return centred * scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _activate(states, name):
    if name == "gelu":
        return (states * 0.5 * (1 + _ERF(states / math.sqrt(2)))).astype(np.float32)
    if name == "gelu_new":
        inner = math.sqrt(2 / math.pi) * (states + 0.044715 * states**3)
        return (0.5 * states * (1 + np.tanh(inner))).astype(np.float32)
    if name == "relu":
        return np.maximum(states, 0)
    raise AssertionError(name)


def cosines(found, expected):
    """Row by row."""
    lengths = np.linalg.norm(found, axis=-1) * np.linalg.norm(expected, axis=-1)
    return (found * expected).sum(axis=-1) / lengths
