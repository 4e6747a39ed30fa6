"""A BERT-like encoder's weights into CTranslate2's form, without torch.

Weights are read, fused and quantised one at a time: beside the finished model, memory holds a few
copies of its largest tensor, not the whole model in float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import tokenizers
from ctranslate2.specs import common_spec, transformer_spec

from appliance.catalog.errors import BadModel, disk_errors
from appliance.catalog.settings import EncoderSettings
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
    settings: EncoderSettings, weights: Weights, tokens: Sequence[str], quantization: str
) -> transformer_spec.TransformerEncoderModelSpec:
    """Build the model, ready to be saved. `tokens` is the vocabulary in the order of the ids.

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
    _Filler(settings, weights, quantization).fill(encoder)
    spec.register_vocabulary(list(tokens))
    spec.config.unk_token = "[UNK]" if "[UNK]" in tokens else "<unk>"
    spec.config.layer_norm_epsilon = settings.layer_norm_epsilon
    try:
        spec.validate()
    except ValueError as error:
        raise BadModel(f"the model is not whole: {' '.join(str(error).split())}") from error
    spec.optimize()  # shares equal tensors; the quantising is done
    return spec


def read_vocabulary(path: Path, size: int) -> list[str]:
    """The tokens of a tokenizer.json by id, filled up to `size` with names that no text contains.

    Raises BadModel where the file is missing or damaged, or has ids that the model does not know.
    """
    with disk_errors("the tokenizer cannot be read", path):
        if not path.is_file():
            raise BadModel(
                f"{path} is missing", "save the model with its fast tokenizer, which writes this file"
            )
        text = path.read_text(encoding="utf-8", errors="replace")
    try:
        vocabulary = tokenizers.Tokenizer.from_str(text).get_vocab(with_added_tokens=True)
    except Exception as error:
        raise BadModel(f"{path} is no tokenizer: {error}") from error
    if not vocabulary:
        raise BadModel(f"{path} has an empty vocabulary")
    largest = max(vocabulary.values())
    if largest >= size:
        raise BadModel(f"{path} has token id {largest}; the model's ids end at {size - 1}")
    tokens = [f"<extra_id_{number}>" for number in range(size)]
    for token, number in vocabulary.items():
        tokens[number] = token
    return tokens


class _Filler:
    """Puts weights where the engine's specification wants them."""

    def __init__(self, settings: EncoderSettings, weights: Weights, quantization: str) -> None:
        self._settings = settings
        self._weights = weights
        self._quantized = quantization == "int8"
        self._prefix = _prefix(weights)
        self._names = _DISTILBERT_NAMES if settings.architecture == "distilbert" else _BERT_NAMES

    def fill(self, encoder: Any) -> None:
        settings, hidden = self._settings, self._settings.hidden
        self._set_weight(encoder.embeddings[0], self._read(_WORDS, settings.vocabulary_size, hidden))
        if settings.token_types:
            types = self._read("embeddings.token_type_embeddings.weight", settings.token_types, hidden)
            self._set_weight(encoder.embeddings[1], types)
        rows = settings.positions + settings.position_offset
        positions = self._read("embeddings.position_embeddings.weight", rows, hidden)
        encoder.position_encodings.encodings = positions[settings.position_offset :].copy()
        self._set_norm(encoder.layernorm_embedding, "embeddings.LayerNorm")
        for number, layer in enumerate(encoder.layer):
            self._fill_layer(layer, f"{self._names.layer}.{number}")
        self._refuse_left_over()

    def _fill_layer(self, layer: Any, at: str) -> None:
        names, hidden, wide = self._names, self._settings.hidden, self._settings.intermediate
        attention = layer.self_attention
        self._set_linear(
            attention.linear[0],
            [f"{at}.{part}" for part in (names.query, names.key, names.value)],
            hidden,
            hidden,
        )
        self._set_linear(attention.linear[1], [f"{at}.{names.attention_output}"], hidden, hidden)
        self._set_norm(attention.layer_norm, f"{at}.{names.attention_norm}")
        self._set_linear(layer.ffn.linear_0, [f"{at}.{names.widen}"], wide, hidden)
        self._set_linear(layer.ffn.linear_1, [f"{at}.{names.narrow}"], hidden, wide)
        self._set_norm(layer.ffn.layer_norm, f"{at}.{names.output_norm}")

    def _set_linear(self, spec: Any, names: Sequence[str], outputs: int, inputs: int) -> None:
        """Several layers become one, their outputs one after the other."""
        self._set_weight(
            spec, np.concatenate([self._read(f"{name}.weight", outputs, inputs) for name in names])
        )
        spec.bias = np.concatenate([self._read(f"{name}.bias", outputs) for name in names])

    def _set_norm(self, spec: Any, name: str) -> None:
        """Older files say gamma and beta where newer ones say weight and bias."""
        old = f"{self._prefix}{name}.gamma" in self._weights
        spec.gamma = self._read(f"{name}.{'gamma' if old else 'weight'}", self._settings.hidden)
        spec.beta = self._read(f"{name}.{'beta' if old else 'bias'}", self._settings.hidden)

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


def quantize_rows(array: Array) -> tuple[np.ndarray[Any, np.dtype[np.int8]], Array]:
    """Scale each row so that its largest value becomes 127; return the int8 rows and the scales.

    `array` is overwritten. A row of zeros gets the scale 1.
    """
    largest = np.amax(np.absolute(array), axis=1)
    largest[largest == 0] = 127.0
    largest = np.maximum(largest, np.float32(127) / np.finfo(np.float32).max)
    scales = (np.float32(127.0) / largest).astype(np.float32)
    array *= scales[:, np.newaxis]
    return np.rint(array, out=array).astype(np.int8), scales


def _prefix(weights: Weights) -> str:
    """What stands before every name, such as `bert.` or `0.auto_model.`."""
    found = [name.removesuffix(_WORDS) for name in weights if name.endswith(_WORDS)]
    if len(found) != 1:
        raise BadModel(f"the weights hold {len(found)} tensors named {_WORDS}; one is accepted")
    return found[0]
