"""What the families share: array arguments, tiles, and how bounds that overlap add up."""

from __future__ import annotations

import numpy as np

from ..base.arrays import ArrayLike, NDArray

Floats = NDArray[np.float64]


def floats(value: ArrayLike) -> Floats:
    """A scalar or array as float64."""
    return np.asarray(value, dtype=np.float64)


def tiles(extent: ArrayLike, tile: float) -> Floats:
    """Tiles that cover an extent."""
    return floats(np.ceil(floats(extent) / tile))


def overlap_s(sharpness: float, *terms_s: Floats) -> Floats:
    """p-norm of times: their sum at sharpness 1, their maximum as it grows."""
    longest = terms_s[0]
    for term in terms_s[1:]:
        longest = np.maximum(longest, term)
    scale = np.where(longest > 0, longest, 1.0)  # powers of microseconds underflow unscaled
    total = floats(sum((term / scale) ** sharpness for term in terms_s))
    return floats(scale * total ** (1.0 / sharpness))
