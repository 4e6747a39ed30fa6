"""What a sentence-transformers style directory says of its model: its files read and checked."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

from appliance.catalog.errors import BadModel, disk_errors

MAX_JSON_BYTES: Final = 64 * 1024 * 1024
#: model_type in config.json -> our name of the architecture, and how its classes' names begin.
ARCHITECTURES: Final = {
    "bert": ("bert", "Bert"),
    "roberta": ("roberta", "Roberta"),
    "xlm-roberta": ("roberta", "XLMRoberta"),
    "camembert": ("roberta", "Camembert"),
    "distilbert": ("distilbert", "DistilBert"),
}
#: hidden_act in config.json -> the engine's name of it.
ACTIVATIONS: Final = {
    "gelu": "GELU", "gelu_new": "GELUTanh", "gelu_fast": "GELUTanh", "gelu_pytorch_tanh": "GELUTanh",
    "quick_gelu": "GELUSigmoid", "relu": "RELU", "silu": "SWISH", "swish": "SWISH",
}  # fmt: skip
_POOLINGS: Final = {"mean": "mean", "cls": "cls", "mean_tokens": "mean", "cls_token": "cls"}
_MODULES: Final = ("Transformer", "Pooling", "Normalize")

Pooling = Literal["mean", "cls"]


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    """A BERT-like encoder and how a sentence's vector is taken from it.

    `positions` counts usable ones: RoBERTa's first `position_offset` rows are never used.
    `max_length` is in tokens, special ones included. `token_types` is 0 where there are none.
    """

    architecture: str
    layers: int
    heads: int
    hidden: int
    intermediate: int
    vocabulary_size: int
    positions: int
    position_offset: int
    token_types: int
    activation: str
    layer_norm_epsilon: float
    pooling: Pooling
    normalize: bool
    max_length: int


def read_settings(root: Path) -> tuple[EncoderSettings, Path]:
    """Read a model directory; return its settings and the folder that holds weights and tokenizer.

    Raises BadModel naming the file, the value and what is accepted.
    """
    if not root.is_dir():
        raise BadModel(f"{root} is no directory", "give the directory that holds config.json")
    modules = _modules(root)
    folder = _inside(root, modules.get("Transformer", ""))
    config = _read_object(folder / "config.json")
    if config is None:
        raise BadModel(
            f"{folder / 'config.json'} is missing", "a sentence-transformers directory is accepted"
        )
    pooling = _pooling(_inside(root, modules.get("Pooling", "1_Pooling")) / "config.json")
    normalize = "Normalize" in modules or not modules
    limit = (_read_object(folder / "sentence_bert_config.json") or {}).get("max_seq_length")
    return _settings(config, pooling, normalize, limit), folder


def _settings(config: Mapping[str, Any], pooling: Pooling, normalize: bool, limit: object) -> EncoderSettings:  # noqa: FBT001 - private, one caller
    architecture = _architecture(config)
    distil = architecture == "distilbert"
    hidden, heads = (
        _count(config, "dim" if distil else "hidden_size"),
        _count(config, "n_heads" if distil else "num_attention_heads"),
    )
    if hidden % heads:
        raise BadModel(f"config.json: hidden size {hidden} is no multiple of {heads} attention heads")
    offset = _count(config, "pad_token_id", default=1, least=0) + 1 if architecture == "roberta" else 0
    positions = _count(config, "max_position_embeddings", default=512) - offset
    if positions < 1:
        raise BadModel(f"config.json: max_position_embeddings leaves {positions} usable positions")
    return EncoderSettings(
        architecture=architecture,
        layers=_count(config, "n_layers" if distil else "num_hidden_layers"),
        heads=heads,
        hidden=hidden,
        intermediate=_count(config, "hidden_dim" if distil else "intermediate_size"),
        vocabulary_size=_count(config, "vocab_size"),
        positions=positions,
        position_offset=offset,
        token_types=0 if distil else _count(config, "type_vocab_size", default=2),
        activation=_activation(config, "activation" if distil else "hidden_act"),
        layer_norm_epsilon=1e-12 if distil else _epsilon(config),
        pooling=pooling,
        normalize=normalize,
        max_length=positions
        if limit is None
        else min(positions, _count({"max_seq_length": limit}, "max_seq_length")),
    )


def _architecture(config: Mapping[str, Any]) -> str:
    kind, classes = config.get("model_type"), config.get("architectures") or []
    known = ARCHITECTURES.get(kind) if isinstance(kind, str) else None
    named = classes[0] if isinstance(classes, list) and classes and isinstance(classes[0], str) else None
    if known is None or (named is not None and not named.startswith(known[1])):
        raise BadModel(
            f"config.json: architecture {named or kind!r} (model_type {kind!r}) is not supported",
            f"accepted are encoders of model_type {', '.join(ARCHITECTURES)}",
        )
    if "auto_map" in config:
        raise BadModel("config.json: the model needs code of its own (auto_map), which is never run")
    position_type = config.get("position_embedding_type") or "absolute"
    if position_type != "absolute":
        raise BadModel(f"config.json: position_embedding_type {position_type!r}; only 'absolute' is accepted")
    if config.get("is_decoder") or config.get("add_cross_attention") or config.get("sinusoidal_pos_embds"):
        raise BadModel(
            "config.json: decoders and computed position embeddings are not supported; encoders are"
        )
    return known[0]


def _activation(config: Mapping[str, Any], key: str) -> str:
    name = config.get(key, "gelu")
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise BadModel(f"config.json: {key} {name!r} is not supported; accepted: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _epsilon(config: Mapping[str, Any]) -> float:
    value = config.get("layer_norm_eps", 1e-12)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise BadModel(f"config.json: layer_norm_eps {value!r}; a number between 0 and 1 is accepted")
    return float(value)


def _count(config: Mapping[str, Any], key: str, *, default: int | None = None, least: int = 1) -> int:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 10_000_000:
        raise BadModel(
            f"{key} is {value!r} in the model's configuration; a whole number from {least} is accepted"
        )
    return value


def _pooling(path: Path) -> Pooling:
    """Mean where nothing is said, as sentence-transformers does."""
    given = _read_object(path)
    if given is None:
        return "mean"
    modes = [
        key.removeprefix("pooling_mode_")
        for key, on in given.items()
        if key.startswith("pooling_mode_") and on
    ]
    if isinstance(given.get("pooling_mode"), str):
        modes = [given["pooling_mode"]]
    pooling = _POOLINGS.get(modes[0]) if len(modes) == 1 else None
    if pooling == "mean":
        return "mean"
    if pooling == "cls":
        return "cls"
    raise BadModel(f"{path}: pooling {' + '.join(modes) or 'none'} is not supported; mean or cls is accepted")


def _modules(root: Path) -> dict[str, str]:
    """Kind of module -> its folder, from modules.json; empty where there is none."""
    path = root / "modules.json"
    given = _read(path)
    if given is None:
        return {}
    modules: dict[str, str] = {}
    try:
        for module in given:
            kind = str(module["type"]).rpartition(".")[2]
            if kind not in _MODULES:
                raise BadModel(f"{path}: module {kind!r} is not supported; accepted: {', '.join(_MODULES)}")
            modules[kind] = str(module["path"])
    except (TypeError, KeyError) as error:
        raise BadModel(f"{path} is no list of modules with type and path") from error
    return modules


def _inside(root: Path, relative: str) -> Path:
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts:
        raise BadModel(f"modules.json names {relative!r}; folders inside the model are accepted")
    return root / path


def _read_object(path: Path) -> dict[str, Any] | None:
    given = _read(path)
    if given is not None and not isinstance(given, dict):
        raise BadModel(f"{path} is no JSON object")
    return given


def _read(path: Path) -> Any:
    """The JSON in a file, None where the file does not exist."""
    with disk_errors("the model cannot be read", path):
        if not path.is_file():
            return None
        if path.stat().st_size > MAX_JSON_BYTES:
            raise BadModel(f"{path} has more than {MAX_JSON_BYTES} bytes")
        raw = path.read_bytes()
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadModel(f"{path} is no JSON: {error}") from error
