"""A BERT-like encoder's weights into CTranslate2's form, without torch.

Weights are read, fused and quantised one at a time: beside the finished model, memory holds a few
copies of its largest tensor, not the whole model in float32. An int8 model is rehearsed as it is read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from ctranslate2.specs import common_spec, transformer_spec

from appliance.catalog.centring import Rehearsal, Shift
from appliance.catalog.errors import BadModel
from appliance.catalog.rounding import quantize_rows
from appliance.catalog.settings import EncoderSettings
from appliance.catalog.vocabulary import Vocabulary, sample_sequences
from appliance.catalog.weights import Array, Weights

QUANTIZATIONS: Final = ("int8", "float32")
_WORDS: Final = "embeddings.word_embeddings.weight"


@dataclass(frozen=True, slots=True)
class _Names:
    """What an architecture calls the parts of a layer, after the layer's number."""

    layer: str
    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str
    widen: str
    narrow: str
    output_norm: str


_BERT_NAMES: Final = _Names(
    "encoder.layer", "attention.self.query", "attention.self.key", "attention.self.value",
    "attention.output.dense", "attention.output.LayerNorm",
    "intermediate.dense", "output.dense", "output.LayerNorm",
)  # fmt: skip
_DISTILBERT_NAMES: Final = _Names(
    "transformer.layer", "attention.q_lin", "attention.k_lin", "attention.v_lin",
    "attention.out_lin", "sa_layer_norm", "ffn.lin1", "ffn.lin2", "output_layer_norm",
)  # fmt: skip


def convert_encoder(
    settings: EncoderSettings, weights: Weights, vocabulary: Vocabulary, quantization: str
) -> transformer_spec.TransformerEncoderModelSpec:
    """Build the model, ready to be saved.

    The pooler is left out: sentence vectors are taken from the last layer.
    Raises BadModel where weights are missing, of a wrong shape, or more than the settings account for.
    """
    encoder = transformer_spec.TransformerEncoderSpec(
        settings.layers,
        settings.heads,
        pre_norm=False,
        activation=common_spec.Activation[settings.activation],
        layernorm_embedding=True,
        num_source_embeddings=2 if settings.token_types else 1,
        embeddings_merge=common_spec.EmbeddingsMerge.ADD,
    )
    encoder.scale_embeddings = False
    spec = transformer_spec.TransformerEncoderModelSpec(encoder)
    sequences = sample_sequences(vocabulary, settings.positions) if quantization == "int8" else []
    rehearsal = Rehearsal(settings, sequences) if sequences else None
    _Filler(settings, weights, quantization, rehearsal).fill(encoder)
    if rehearsal and rehearsal.helps:
        shift_encoder(encoder, rehearsal.shifts)
    spec.register_vocabulary(list(vocabulary.tokens))
    spec.config.unk_token = "[UNK]" if "[UNK]" in vocabulary.tokens else "<unk>"
    spec.config.layer_norm_epsilon = settings.layer_norm_epsilon
    try:
        spec.validate()
    except ValueError as error:
        raise BadModel(f"the model is not whole: {' '.join(str(error).split())}") from error
    spec.optimize()  # shares equal tensors; the quantising is done
    return spec


def shift_encoder(encoder: Any, shifts: Sequence[Shift]) -> None:
    """Take each centre off the norm before a layer, and add to the biases after it what that leaves out.

    `shifts` are those of attention and feed-forward, layer by layer. In exact arithmetic nothing changes.
    """
    norm = encoder.layernorm_embedding
    for layer, attention, feed_forward in zip(encoder.layer, shifts[::2], shifts[1::2], strict=True):
        project, merge = layer.self_attention.linear
        _shift(norm, project, merge, attention)
        _shift(layer.self_attention.layer_norm, layer.ffn.linear_0, layer.ffn.linear_1, feed_forward)
        norm = layer.ffn.layer_norm


def _shift(norm: Any, reader: Any, adder: Any, shift: Shift) -> None:
    """`reader` takes what `norm` gives; `adder` is the last before the residual path is added."""
    norm.beta = norm.beta - shift.centre
    reader.bias = reader.bias + shift.moved
    adder.bias = adder.bias + shift.centre


class _Filler:
    """Puts weights where the engine's specification wants them."""

    def __init__(
        self, settings: EncoderSettings, weights: Weights, quantization: str, rehearsal: Rehearsal | None
    ) -> None:
        self._settings = settings
        self._rehearsal = rehearsal
        self._weights = weights
        self._quantized = quantization == "int8"
        self._prefix = _prefix(weights)
        self._names = _DISTILBERT_NAMES if settings.architecture == "distilbert" else _BERT_NAMES

    def fill(self, encoder: Any) -> None:
        settings, hidden, rehearsal = self._settings, self._settings.hidden, self._rehearsal
        words = self._read(_WORDS, settings.vocabulary_size, hidden)
        rows = settings.positions + settings.position_offset
        positions = self._read("embeddings.position_embeddings.weight", rows, hidden)
        positions = positions[settings.position_offset :].copy()
        types = np.zeros((1, hidden), np.float32)
        if settings.token_types:
            types = self._read("embeddings.token_type_embeddings.weight", settings.token_types, hidden)
        if rehearsal:
            rehearsal.embed(words[rehearsal.ids] + positions[rehearsal.positions] + types[0])
        self._set_weight(encoder.embeddings[0], words)
        if settings.token_types:
            self._set_weight(encoder.embeddings[1], types)
        encoder.position_encodings.encodings = positions
        self._set_norm(encoder.layernorm_embedding, "embeddings.LayerNorm")
        for number, layer in enumerate(encoder.layer):
            self._fill_layer(layer, f"{self._names.layer}.{number}")
        self._refuse_left_over()

    def _fill_layer(self, layer: Any, at: str) -> None:
        """The rehearsal needs the parts in the order in which they compute."""
        names, hidden, wide, rehearsal = (
            self._names, self._settings.hidden, self._settings.intermediate, self._rehearsal
        )  # fmt: skip
        attention, projections = layer.self_attention, (names.query, names.key, names.value)
        if rehearsal:
            rehearsal.centre_attention()
        self._set_linear(attention.linear[0], [f"{at}.{part}" for part in projections], hidden, hidden)
        if rehearsal:
            rehearsal.attend()
        self._set_linear(attention.linear[1], [f"{at}.{names.attention_output}"], hidden, hidden)
        self._set_norm(attention.layer_norm, f"{at}.{names.attention_norm}")
        if rehearsal:
            rehearsal.centre_feed_forward()
        self._set_linear(layer.ffn.linear_0, [f"{at}.{names.widen}"], wide, hidden)
        if rehearsal:
            rehearsal.activate()
        self._set_linear(layer.ffn.linear_1, [f"{at}.{names.narrow}"], hidden, wide)
        self._set_norm(layer.ffn.layer_norm, f"{at}.{names.output_norm}")

    def _set_linear(self, spec: Any, names: Sequence[str], outputs: int, inputs: int) -> None:
        """Several layers become one, their outputs one after the other."""
        weight = np.concatenate([self._read(f"{name}.weight", outputs, inputs) for name in names])
        spec.bias = np.concatenate([self._read(f"{name}.bias", outputs) for name in names])
        if self._rehearsal:
            self._rehearsal.multiply(weight, spec.bias)
        self._set_weight(spec, weight)

    def _set_norm(self, spec: Any, name: str) -> None:
        """Older files say gamma and beta where newer ones say weight and bias."""
        old = f"{self._prefix}{name}.gamma" in self._weights
        spec.gamma = self._read(f"{name}.{'gamma' if old else 'weight'}", self._settings.hidden)
        spec.beta = self._read(f"{name}.{'beta' if old else 'bias'}", self._settings.hidden)
        if self._rehearsal:
            self._rehearsal.normalize(spec.gamma, spec.beta)

    def _set_weight(self, spec: Any, array: Array) -> None:
        if self._quantized:
            spec.weight, spec.weight_scale = quantize_rows(array)
        else:
            spec.weight = array

    def _read(self, name: str, *shape: int) -> Array:
        return self._weights.read(self._prefix + name, shape)

    def _refuse_left_over(self) -> None:
        """A weight of the encoder that was not used would silently change every answer."""
        begin = (f"{self._prefix}{self._names.layer}.", f"{self._prefix}embeddings.")
        left = [
            name for name in self._weights.unread()
            if name.startswith(begin) and not name.endswith(("position_ids", "token_type_ids"))
        ]  # fmt: skip
        if left:
            raise BadModel(
                f"the weights hold {left[0]!r} ({len(left)} such), which config.json does not account for"
            )


def _prefix(weights: Weights) -> str:
    """What stands before every name, such as `bert.` or `0.auto_model.`."""
    found = [name.removesuffix(_WORDS) for name in weights if name.endswith(_WORDS)]
    if len(found) != 1:
        raise BadModel(f"the weights hold {len(found)} tensors named {_WORDS}; one is accepted")
    return found[0]
