"""Builders for the tests of the catalog: small random encoders, written as model directories."""

import json
import math
from dataclasses import dataclass

import numpy as np
from safetensors.numpy import save_file

#: model_type -> (class, prefix of a layer, the parts of a layer).
NAMES = {
    "bert": (
        "BertModel",
        "encoder.layer",
        {
            "q": "attention.self.query",
            "k": "attention.self.key",
            "v": "attention.self.value",
            "o": "attention.output.dense",
            "n1": "attention.output.LayerNorm",
            "up": "intermediate.dense",
            "down": "output.dense",
            "n2": "output.LayerNorm",
        },
    ),
    "distilbert": (
        "DistilBertModel",
        "transformer.layer",
        {
            "q": "attention.q_lin",
            "k": "attention.k_lin",
            "v": "attention.v_lin",
            "o": "attention.out_lin",
            "n1": "sa_layer_norm",
            "up": "ffn.lin1",
            "down": "ffn.lin2",
            "n2": "output_layer_norm",
        },
    ),
}
NAMES["xlm-roberta"] = ("XLMRobertaModel", *NAMES["bert"][1:])
NAMES["roberta"] = ("RobertaModel", *NAMES["bert"][1:])


@dataclass(frozen=True)
class Shape:
    """A small encoder."""

    kind: str = "bert"
    layers: int = 2
    heads: int = 4
    hidden: int = 32
    wide: int = 64
    vocabulary: int = 50
    positions: int = 24
    activation: str = "gelu"
    epsilon: float = 1e-12

    @property
    def offset(self):
        """RoBERTa's positions begin after the padding's."""
        return 2 if "roberta" in self.kind else 0

    def config(self):
        named, _, _ = NAMES[self.kind]
        common = {"model_type": self.kind, "architectures": [named], "vocab_size": self.vocabulary}
        common["max_position_embeddings"] = self.positions + self.offset
        if self.kind == "distilbert":
            return {
                **common,
                "n_layers": self.layers,
                "n_heads": self.heads,
                "dim": self.hidden,
                "hidden_dim": self.wide,
                "activation": self.activation,
            }
        return {
            **common,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "hidden_size": self.hidden,
            "intermediate_size": self.wide,
            "hidden_act": self.activation,
            "layer_norm_eps": self.epsilon,
            "type_vocab_size": 1 if self.offset else 2,
            "pad_token_id": 1 if self.offset else 0,
        }


def random_weights(shape, seed=7):
    """Weights with a spread like those of trained models, so that attention and norms matter."""
    rng = np.random.default_rng(seed)
    weights = {}

    def linear(name, outputs, inputs):
        weights[f"{name}.weight"] = rng.normal(0, 1.5 / math.sqrt(inputs), (outputs, inputs)).astype(
            np.float32
        )
        weights[f"{name}.bias"] = rng.normal(0, 0.2, outputs).astype(np.float32)

    def norm(name):
        weights[f"{name}.weight"] = rng.uniform(0.5, 1.5, shape.hidden).astype(np.float32)
        weights[f"{name}.bias"] = rng.normal(0, 0.2, shape.hidden).astype(np.float32)

    def table(name, rows):
        weights[f"embeddings.{name}.weight"] = rng.normal(0, 1, (rows, shape.hidden)).astype(np.float32)

    table("word_embeddings", shape.vocabulary)
    table("position_embeddings", shape.positions + shape.offset)
    if shape.kind != "distilbert":
        table("token_type_embeddings", 1 if shape.offset else 2)
    norm("embeddings.LayerNorm")
    _, prefix, part = NAMES[shape.kind]
    for number in range(shape.layers):
        at = f"{prefix}.{number}"
        for key in "qkvo":
            linear(f"{at}.{part[key]}", shape.hidden, shape.hidden)
        linear(f"{at}.{part['up']}", shape.wide, shape.hidden)
        linear(f"{at}.{part['down']}", shape.hidden, shape.wide)
        norm(f"{at}.{part['n1']}")
        norm(f"{at}.{part['n2']}")
    return weights


def write_model(
    folder,
    shape=Shape(),
    weights=None,
    *,
    config=None,
    prefix="",
    pooling="mean",
    max_seq_length=None,
    modules=("Normalize",),
):
    """A sentence-transformers directory; `config` changes or, with None, removes keys of config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = random_weights(shape) if weights is None else weights
    save_file({prefix + name: array for name, array in weights.items()}, folder / "model.safetensors")
    changed = {**shape.config(), **(config or {})}
    write_json(folder / "config.json", {key: value for key, value in changed.items() if value is not None})
    write_json(folder / "tokenizer.json", tokenizer(shape.vocabulary - 3))
    if pooling:
        (folder / "1_Pooling").mkdir(exist_ok=True)
        modes = {
            f"pooling_mode_{mode}": mode == pooling for mode in ("mean_tokens", "cls_token", "max_tokens")
        }
        modes[f"pooling_mode_{ {'mean': 'mean_tokens', 'cls': 'cls_token'}.get(pooling, pooling) }"] = True
        write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": shape.hidden, **modes})
        kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), *((kind, f"2_{kind}") for kind in modules)]
        write_json(
            folder / "modules.json",
            [
                {"idx": at, "path": path, "type": f"sentence_transformers.models.{kind}"}
                for at, (kind, path) in enumerate(kinds)
            ],
        )
    if max_seq_length:
        write_json(
            folder / "sentence_bert_config.json", {"max_seq_length": max_seq_length, "do_lower_case": False}
        )
    return folder


def write_json(path, content):
    path.write_text(json.dumps(content))


def tokenizer(size):
    """A word-level tokenizer with `size` tokens, with truncation and padding on, as real ones have."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] + [f"w{number}" for number in range(4, size)]
    return {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0},
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {name: at for at, name in enumerate(names)},
            "unk_token": "[UNK]",
        },
    }
