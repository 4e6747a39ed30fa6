"""Tensors of a model as float32, read from safetensors files one at a time."""

import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from appliance.catalog.errors import BadModel, disk_errors

WHOLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
_NUMPY_READS: Final = ("F64", "F32", "F16")
_BF16: Final = "BF16"

Array = npt.NDArray[np.float32]


class Weights:
    """The tensors in a folder's model.safetensors, or in the files its index names.

    Used as a context: the files are mapped into memory while it is open.
    Raises BadModel where they are missing, damaged or incomplete.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._files: dict[str, Any] = {}
        self._home: dict[str, Path] = {}  # tensor -> its file
        self._read: set[str] = set()

    def __enter__(self) -> Self:
        with disk_errors("the weights cannot be read", self._folder):
            for path in weight_files(self._folder):
                self._open(path)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._files.clear()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._home))

    def __contains__(self, name: str) -> bool:
        return name in self._home

    def unread(self) -> Iterator[str]:
        """Names that nobody has read so far."""
        return iter(sorted(set(self._home) - self._read))

    def read(self, name: str, shape: tuple[int, ...]) -> Array:
        """A fresh float32 copy. Raises BadModel where name, shape, type or values are not right."""
        if name not in self._home:
            raise BadModel(f"the weights lack {name!r}")
        path = self._home[name]
        part = self._files[str(path)].get_slice(name)
        found, kind = tuple(part.get_shape()), part.get_dtype()
        if found != shape:
            raise BadModel(
                f"weight {name!r} has shape {list(found)}; the configuration makes it {list(shape)}"
            )
        if kind in _NUMPY_READS:
            array = np.array(self._files[str(path)].get_tensor(name), dtype=np.float32, order="C")
        elif kind == _BF16:
            array = _read_bf16(path, name, shape)
        else:
            raise BadModel(f"weight {name!r} is of type {kind}; F32, F16, BF16 and F64 are accepted")
        if not np.isfinite(array).all():
            raise BadModel(f"weight {name!r} holds values that are not finite")
        self._read.add(name)
        return array

    def _open(self, path: Path) -> None:
        try:
            file = self._stack.enter_context(safe_open(str(path), framework="numpy"))
        except SafetensorError as error:
            raise BadModel(f"{path} is no sound safetensors file: {error}") from error
        self._files[str(path)] = file
        for name in file.keys():  # noqa: SIM118 - the library's object is no mapping
            if name in self._home:
                raise BadModel(f"weight {name!r} is in both {self._home[name].name} and {path.name}")
            self._home[name] = path


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model. Raises BadModel where there are none, or one is missing."""
    if (folder / WHOLE).is_file():
        return [folder / WHOLE]
    index = folder / INDEX
    if not index.is_file():
        raise BadModel(
            f"{folder / WHOLE} is missing", "weights are accepted as safetensors only, never as pickles"
        )
    try:
        given: Mapping[str, Any] = json.loads(index.read_bytes())["weight_map"]
        names = sorted({str(name) for name in given.values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadModel(f"{index} has no weight_map that can be understood") from error
    for name in names:
        if PurePosixPath(name).name != name or not name.endswith(".safetensors"):
            raise BadModel(f"{index} names {name!r}; safetensors files beside it are accepted")
        if not (folder / name).is_file():
            raise BadModel(f"{folder / name} is missing; {INDEX} names it")
    return [folder / name for name in names]


def _read_bf16(path: Path, name: str, shape: tuple[int, ...]) -> Array:
    """Decode bfloat16, which numpy has not: the upper half of a float32.

    The file was checked when it was opened, so its header can be trusted.
    """
    with path.open("rb") as file:
        header_bytes = struct.unpack("<Q", file.read(8))[0]
        begin, end = json.loads(file.read(header_bytes))[name]["data_offsets"]
        file.seek(8 + header_bytes + begin)
        halves = np.frombuffer(file.read(end - begin), dtype="<u2")
    return (halves.astype(np.uint32) << 16).view(np.float32).reshape(shape)
