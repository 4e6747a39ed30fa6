"""Rounding to 8 bits as the engine does it: weights row by row, values token by token."""

from typing import Any

import numpy as np

from appliance.catalog.weights import Array


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


def round_rows(array: Array) -> Array:
    """What is left of [rows, columns] after rounding to int8 and back; `array` stays as it is."""
    rows, scales = quantize_rows(array.copy())
    rounded: Array = rows.astype(np.float32) / scales[:, np.newaxis]
    return rounded
