"""Directories that cannot be converted: one clear line each, and nothing left in the store."""

import numpy as np
import pytest
from catalog_builders import Shape, random_weights, tokenizer, write_json, write_model
from safetensors.numpy import save_file

from appliance.catalog.errors import BadModel, CatalogError
from appliance.catalog.importing import import_model

HIDDEN = "encoder.layer.1.output.dense.weight"


def without(name):
    def change(folder):
        (folder / name).unlink()

    return change


def with_config(**config):
    return lambda folder: write_model(folder, config=config)


def with_weights(**changes):
    """Each named weight (dots as in the file) replaced, or left out where None."""

    def change(folder):
        weights = {**random_weights(Shape()), **changes}
        save_file(
            {name: array for name, array in weights.items() if array is not None},
            folder / "model.safetensors",
        )

    return change


def with_text(name, text):
    return lambda folder: (folder / name).write_text(text)


CASES = {
    "no config": (without("config.json"), r"config\.json is missing"),
    "no weights": (without("model.safetensors"), r"model\.safetensors is missing"),
    "no tokenizer": (without("tokenizer.json"), r"tokenizer\.json is missing"),
    "config is no JSON": (with_text("config.json", "{"), "is no JSON"),
    "config is a list": (with_text("config.json", "[]"), "is no JSON object"),
    "weights are garbage": (with_text("model.safetensors", "pickle"), "no sound safetensors file"),
    "tokenizer is garbage": (with_text("tokenizer.json", "{}"), "is no tokenizer"),
    "tokenizer too large": (
        lambda folder: write_json(folder / "tokenizer.json", tokenizer(60)),
        "token id 59; the model's ids end at 49",
    ),
    "decoder": (
        with_config(model_type="gpt2", architectures=["GPT2LMHeadModel"]),
        "architecture 'GPT2LMHeadModel'",
    ),
    "other class": (with_config(architectures=["NomicBertModel"]), "architecture 'NomicBertModel'"),
    "no type": (with_config(model_type=None), "is not supported"),
    "own code": (with_config(auto_map={"AutoModel": "x.Y"}), "auto_map"),
    "relative positions": (with_config(position_embedding_type="relative_key"), "'relative_key'"),
    "is a decoder": (with_config(is_decoder=True), "decoders"),
    "activation": (with_config(hidden_act="mish"), "hidden_act 'mish' is not supported; accepted: gelu"),
    "heads": (with_config(num_attention_heads=5), "32 is no multiple of 5"),
    "layers is text": (with_config(num_hidden_layers="six"), "num_hidden_layers is 'six'"),
    "layers is true": (with_config(num_hidden_layers=True), "num_hidden_layers is True"),
    "hidden missing": (with_config(hidden_size=None), "hidden_size is None"),
    "epsilon": (with_config(layer_norm_eps=-1), "layer_norm_eps -1"),
    "fewer layers in config": (
        with_config(num_hidden_layers=1),
        r"'encoder\.layer\.1\..*does not account for",
    ),
    "more layers in config": (with_config(num_hidden_layers=3), r"lack 'encoder\.layer\.2\."),
    "wrong size in config": (
        with_config(intermediate_size=128),
        r"has shape \[64, 32\].*makes it \[128, 32\]",
    ),
    "weight missing": (with_weights(**{HIDDEN: None}), f"lack '{HIDDEN}'"),
    "weight of wrong type": (with_weights(**{HIDDEN: np.ones((32, 64), np.int8)}), "is of type I8"),
    "max pooling": (
        lambda folder: write_model(folder, pooling="max_tokens"),
        "pooling max_tokens is not supported",
    ),
    "dense module": (
        lambda folder: write_model(folder, modules=("Dense",)),
        "module 'Dense' is not supported",
    ),
    "module outside": (
        lambda folder: write_json(folder / "modules.json", [{"type": "a.Transformer", "path": "../x"}]),
        r"names '\.\./x'",
    ),
    "modules is text": (with_text("modules.json", '"x"'), "is no list of modules"),
    "index outside": (
        lambda folder: (
            (folder / "model.safetensors").unlink(),
            write_json(folder / "model.safetensors.index.json", {"weight_map": {"a": "../b.safetensors"}}),
        ),
        r"names '\.\./b\.safetensors'",
    ),
    "shard missing": (
        lambda folder: (
            (folder / "model.safetensors").unlink(),
            write_json(folder / "model.safetensors.index.json", {"weight_map": {"a": "b.safetensors"}}),
        ),
        r"b\.safetensors is missing",
    ),
}


@pytest.mark.parametrize(("change", "message"), CASES.values(), ids=CASES.keys())
def test_bad_models_are_refused_by_name(store, tmp_path, change, message):
    """The error names the file and value that is wrong, on one line, and the store stays empty."""
    folder = write_model(tmp_path / "model")
    change(folder)
    with pytest.raises(BadModel, match=message) as caught:
        import_model(store, str(folder))
    assert "\n" not in caught.value.message
    assert store.list() == []
    assert [path.name for path in (tmp_path / "home" / "models").iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"task": "paint"}, "task 'paint' is unknown; accepted: embed", id="task"),
        pytest.param(
            {"quantization": "int4"}, "quantization 'int4' is unknown; accepted: int8, float32", id="bits"
        ),
    ],
)
def test_unknown_choices_are_refused(store, bert, arguments, message):
    """A task or quantization that does not exist is named with those that do."""
    with pytest.raises(CatalogError, match=message):
        import_model(store, str(bert), **arguments)


def test_a_disk_with_too_little_room_is_named(store, bert, monkeypatch):
    """Too little free space is found before the conversion, with both figures."""
    import shutil  # noqa: PLC0415 - only to be replaced

    usage = type(shutil.disk_usage("/"))(10**9, 10**9 - 1000, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(CatalogError, match=r"converting takes .* MB at .*, 0 are free") as caught:
        import_model(store, str(bert))
    assert not caught.value.permanent
