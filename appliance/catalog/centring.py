"""Shifts that make int8 lose less, and change nothing in exact arithmetic.

The engine gives the values of a token one scale: the largest sets how coarsely all of them are rounded.
Trained encoders have a few channels that are large at the first token, which every other token attends to;
rounding there costs most of the accuracy of short texts. So a constant c is taken off the beta of a norm,
which makes those values small. The layer that reads them gets W c on its bias, and c goes back into the
residual path with the bias of the layer after. Weights, operations and speed stay as they are.

Whether that helps a model is tried on a few sequences: a rehearsal runs beside the conversion, layer by
layer, three times at once: exactly, rounded as it is, and rounded with the shifts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from appliance.catalog.rounding import round_rows
from appliance.catalog.settings import EncoderSettings
from appliance.catalog.weights import Array

_EXACT, _PLAIN, _CENTRED = range(3)
#: Part of the first token's largest channel that is left to it; what it sheds, other tokens take on.
_LEFT_TO_FIRST: Final = 0.2
_ERF_AT: Final = np.linspace(-4.0, 4.0, 4097)
_ERF: Final = np.array([math.erf(at) for at in _ERF_AT])


@dataclass(frozen=True, slots=True)
class Shift:
    """`centre` [inputs] is taken off a layer's input; `moved` [outputs] is the layer's product with it."""

    centre: Array
    moved: Array


class Rehearsal:
    """Runs sequences through an encoder whose weights are handed over one by one, in the order of computing.

    `shifts` holds two for each layer, attention and feed-forward; `helps` says whether they are worth taking.
    `states` is what the last norm gave, [3, tokens, hidden]: exact, rounded, and rounded with the shifts.
    """

    def __init__(self, settings: EncoderSettings, sequences: Sequence[Sequence[int]]) -> None:
        self._settings = settings
        ends = np.cumsum([len(sequence) for sequence in sequences])
        self._spans = [slice(end - len(sequence), end) for sequence, end in zip(sequences, ends, strict=True)]
        self._first = np.array([span.start for span in self._spans])
        self.ids = np.concatenate([np.asarray(sequence) for sequence in sequences])
        self.positions = np.concatenate([np.arange(len(sequence)) for sequence in sequences])
        self.shifts: list[Shift] = []
        self._centre: Array | None = None
        self.states = np.zeros((3, len(self.ids), settings.hidden), np.float32)
        self._values = self.states  # what the last step gave

    def embed(self, embedded: Array) -> None:
        """Begin with the summed embeddings [tokens, hidden] of `ids` at `positions`."""
        self._values = np.stack([embedded] * 3)
        self.states = np.zeros_like(self._values)

    def normalize(self, gamma: Array, beta: Array) -> None:
        """The residual path and the last step's values, normalised."""
        with np.errstate(all="ignore"):
            total = self.states + self._values
            total -= total.mean(axis=-1, keepdims=True)
            variance = np.square(total).mean(axis=-1, keepdims=True)
            epsilon = np.float32(self._settings.layer_norm_epsilon)
            self.states = total / np.sqrt(variance + epsilon) * gamma + beta
        self._values = self.states

    def centre_attention(self) -> None:
        """Shift what the next linear layer reads: the first token's large channels become small."""
        with np.errstate(all="ignore"):
            first = self.states[_EXACT, self._first].mean(axis=0)
            kept = _LEFT_TO_FIRST * np.absolute(first).max()
            self._centre = _coarse(np.sign(first) * np.maximum(np.absolute(first) - kept, 0))

    def centre_feed_forward(self) -> None:
        """Shift what the next linear layer reads to the mean of all tokens but the first ones.

        There the first token's large channel is far larger still; half of it would drown the others.
        """
        with np.errstate(all="ignore"):
            others = np.delete(self.states[_EXACT], self._first, axis=0)
            self._centre = _coarse(others.mean(axis=0))

    def multiply(self, weight: Array, bias: Array) -> None:
        """A linear layer [outputs, inputs]; `weight` is in float32 and stays as it is."""
        inputs, centre = self._values, self._centre
        with np.errstate(all="ignore"):
            rounded = round_rows(weight).T
            self._values = np.empty((*inputs.shape[:2], len(bias)), np.float32)
            self._values[_EXACT] = inputs[_EXACT] @ weight.T
            self._values[_PLAIN] = round_rows(inputs[_PLAIN]) @ rounded
            if centre is None:
                self._values[_CENTRED] = round_rows(inputs[_CENTRED]) @ rounded
            else:
                moved = (weight.astype(np.float64) @ centre).astype(np.float32)
                self._values[_CENTRED] = round_rows(inputs[_CENTRED] - centre) @ rounded + moved
                self.shifts.append(Shift(centre, moved))
            self._values += bias
        self._centre = None

    def attend(self) -> None:
        """Queries, keys and values side by side to what the heads mix of the values."""
        heads, hidden = self._settings.heads, self._settings.hidden
        mixed = np.empty((3, len(self.ids), hidden), np.float32)
        for span in self._spans:
            tokens = span.stop - span.start
            shape = (3, tokens, 3, heads, hidden // heads)
            query, key, value = self._values[:, span].reshape(shape).transpose(2, 0, 3, 1, 4)
            with np.errstate(all="ignore"):
                scores = query @ key.swapaxes(-1, -2) / np.float32(math.sqrt(hidden // heads))
                scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
                scores /= scores.sum(axis=-1, keepdims=True)
                mixed[:, span] = (scores @ value).swapaxes(1, 2).reshape(3, tokens, hidden)
        self._values = mixed

    def activate(self) -> None:
        """The feed-forward layer's activation."""
        with np.errstate(all="ignore"):
            self._values = _activate(self._values, self._settings.activation)

    @property
    def helps(self) -> bool:
        """Whether sentence vectors are closer to the exact ones with the shifts than without."""
        states, shifts = self.states, self.shifts
        with np.errstate(all="ignore"):
            if self._settings.pooling == "cls":
                vectors = states[:, self._first]
            else:
                vectors = np.stack([states[:, span].mean(axis=1) for span in self._spans], axis=1)
            vectors = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
            closeness = (vectors * vectors[_EXACT]).sum(axis=-1).mean(axis=-1)
        finite = all(np.isfinite(shift.centre).all() and np.isfinite(shift.moved).all() for shift in shifts)
        return finite and bool(closeness[_CENTRED] > closeness[_PLAIN])


def _coarse(centre: Array) -> Array:
    """Rounded to a 32nd of the largest or finer: a digest must not hang on the last bits of a sum."""
    _, exponent = np.frexp(np.absolute(centre).max())
    step = np.ldexp(np.float32(1), exponent - 6)
    rounded: Array = (np.rint(centre / step) * step).astype(np.float32)
    return rounded


def _activate(values: Array, name: str) -> Array:
    """By the engine's name of the activation."""
    if name == "RELU":
        return np.maximum(values, 0)
    if name == "GELU":
        gate = 0.5 + 0.5 * np.interp(values * math.sqrt(0.5), _ERF_AT, _ERF)
    elif name == "GELUTanh":
        gate = 0.5 + 0.5 * np.tanh(math.sqrt(2 / math.pi) * (values + 0.044715 * values**3))
    else:
        steep = {"GELUSigmoid": 1.702, "SWISH": 1.0}[name]
        gate = 1 / (1 + np.exp(-steep * values))
    activated: Array = (values * gate).astype(np.float32)
    return activated
