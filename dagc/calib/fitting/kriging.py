"""Fits a residual: weights of the knots, and two settings chosen by leaving rows and whole shapes out.

Leaving rows G out of a Gaussian process needs no new fit: their errors e solve [K^-1]_GG e = [K^-1 y]_G (Dubrule 1983,
Cross validation of kriging in a unique neighborhood).
"""

from __future__ import annotations

import numpy as np

from ...base.arrays import NDArray
from ..residual import Residual, distances, matern, packed
from ..shape import Floats

FACTORS = (0.5, 1.0, 2.0, 4.0)
"""By which the lengths of the family are scaled."""
NOISES = (0.02, 0.1, 0.5)
"""Variance of one row's own error over that of what rows share."""
SPIKE = 3.0
"""Row errors, in scaled median absolute deviations, beyond which a row counts less."""
WORTH = 0.98
"""A residual must take the loss below this share of what it is without."""


def fit_residual(
    features: Floats, missed: Floats, shapes: NDArray[np.int64], lengths: tuple[float, ...]
) -> Residual | None:
    """From features [n, d] in octaves and log(measured / formula) [n]; `shapes` [n]: rows that share a number are of one
    shape. None where no residual helps on rows and shapes left out."""
    if len(missed) < 6:
        return None
    groups = _groups(shapes)
    best, chosen = WORTH * loss(missed, missed), None
    for factor in FACTORS:
        scaled = features / (np.array(lengths) * factor)
        near = matern(distances(scaled, scaled))
        for noise in NOISES:
            variances = _robust(near, missed, noise)
            found = loss(*_left_out(near, variances, missed, groups))
            if found < best:
                best, chosen = found, (factor, near, variances)
    if chosen is None:
        return None
    factor, near, variances = chosen
    weights: Floats = np.asarray(np.linalg.solve(near + np.diag(variances), missed), dtype=np.float64)
    most = float(np.abs(missed).max())
    return packed(features, weights, tuple(float(f"{each * factor:.4g}") for each in lengths), float(f"{most:.4g}"))


def _groups(shapes: NDArray[np.int64]) -> list[NDArray[np.intp]]:
    order = np.argsort(shapes, kind="stable")
    return list(np.split(order, np.flatnonzero(np.diff(shapes[order])) + 1))


def _robust(near: Floats, missed: Floats, noise: float) -> Floats:
    """Noise variance of each row: more where the others say that it is a spike."""
    inverse = np.linalg.inv(near + noise * np.eye(len(missed)))
    error = np.abs(inverse @ missed / np.diag(inverse))
    usual = max(1.4826 * float(np.median(error)), 0.01)
    return np.asarray(noise * np.maximum(1.0, error / (SPIKE * usual)) ** 2)


def _left_out(near: Floats, variances: Floats, missed: Floats, groups: list[NDArray[np.intp]]) -> tuple[Floats, Floats]:
    """Errors of every row by the others, and by the rows of other shapes."""
    inverse = np.linalg.inv(near + np.diag(variances))
    weights = inverse @ missed
    by_row = weights / np.diag(inverse)
    by_shape = by_row.copy()
    if len(groups) > 1:
        for rows in groups:
            if len(rows) > 1:
                by_shape[rows] = np.linalg.solve(inverse[np.ix_(rows, rows)], weights[rows])
    return by_row, by_shape


def loss(by_row: Floats, by_shape: Floats) -> float:
    """Mean absolute log error, of which nothing beyond a factor of 1.5 counts more."""
    most = np.log(1.5)
    return float(np.minimum(np.abs(by_row), most).mean() + np.minimum(np.abs(by_shape), most).mean())
