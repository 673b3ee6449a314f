"""What a formula misses, learned: kriging of log(measured / formula) over the log-sizes of a kernel's shapes.

    log factor(x) = clip(sum_i w_i k(|(x - x_i) / lengths|)),   k(r) = (1 + sqrt(3) r) exp(-sqrt(3) r)

A Gaussian process with a Matern kernel of order 3/2 and mean 0 (Rasmussen and Williams, Gaussian Processes for Machine
Learning, 2006, equations 2.25 and 4.17): close to measured shapes it follows them, far from all it is 0.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from functools import cached_property

import numpy as np

from ..base.arrays import NDArray
from ..base.frozen import record
from .shape import Floats

ROOT_3 = 3.0**0.5


def matern(distance: Floats) -> Floats:
    """Correlation at a distance in correlation lengths."""
    scaled = ROOT_3 * distance
    return np.asarray((1 + scaled) * np.exp(-scaled))


def distances(a: Floats, b: Floats) -> Floats:
    """Between the rows of a [n, d] and b [m, d]: [n, m]. Feature by feature, so that no array is larger than the result."""
    squares = np.zeros((len(a), len(b)))
    for of_a, of_b in zip(a.T, b.T, strict=True):
        apart = of_a[:, None] - of_b
        apart *= apart
        squares += apart
    return np.sqrt(squares, out=squares)


@record(slots=False)
class Residual:
    """`lengths`: correlation length of each feature, in octaves; `most`: greatest |log factor|; `packed`: the knots, each
    the features over their lengths and a weight last, float32, little-endian, base64."""

    lengths: tuple[float, ...]
    most: float
    packed: str

    @cached_property
    def _table(self) -> Floats:
        raw = np.frombuffer(b64decode(self.packed, validate=True), dtype="<f4")
        return raw.reshape(-1, len(self.lengths) + 1).astype(np.float64)

    @cached_property
    def _over(self) -> NDArray[np.float64]:
        return 1.0 / np.array(self.lengths)

    @cached_property
    def _knots(self) -> Floats:
        return np.ascontiguousarray(self._table[:, :-1])

    @cached_property
    def _weights(self) -> Floats:
        return np.ascontiguousarray(self._table[:, -1])

    def fault(self) -> str:
        """What is wrong with the packed knots; empty if nothing is."""
        try:
            table = self._table
        except ValueError as error:
            return str(error)
        return "" if np.isfinite(table).all() else "a number is not finite"

    def log_factor(self, features: Floats) -> Floats:
        """[rows] from features [rows, d]."""
        at = features * self._over
        if len(at) == 1:
            apart = self._knots - at
            near = matern(np.sqrt(np.einsum("ij,ij->i", apart, apart)))[None]
        else:
            near = matern(distances(at, self._knots))
        return np.clip(near @ self._weights, -self.most, self.most)


def packed(knots: Floats, weights: Floats, lengths: tuple[float, ...], most: float) -> Residual:
    """From knots [n, d] in octaves and weights [n]."""
    table = np.hstack([knots / np.array(lengths), weights[:, None]]).astype("<f4")
    return Residual(lengths, most, b64encode(table.tobytes()).decode("ascii"))
