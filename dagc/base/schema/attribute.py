"""An attribute that a section takes: dimension, range, default and a line of documentation."""

from __future__ import annotations

from ..dtypes import NAMED
from ..frozen import record
from ..units import SCALAR, Dim

REQUIRED = object()

LARGE = 1e18

LEAST_RATE = 1.0
"""Per second: times stay finite."""

LEAST_SHARE = 1e-6


@record
class Attribute:
    """`kind`: number, count (a whole number), word, dtype, flag, list, counts (a list of whole numbers), text (a string), or
    routing and form, which are read apart.

    A count may be written with the unit `dim`.
    """

    about: str
    kind: str = "number"
    dim: Dim = SCALAR
    default: object = REQUIRED
    low: float = 0.0
    high: float = LARGE
    open_low: bool = True  # the lower bound itself is not allowed
    words: tuple[str, ...] = ()
    otherwise: str = ""  # where `default` is None: what holds, in words


def count_of(
    about: str, default: object = REQUIRED, low: float = 1, high: float = 1e12, dim: Dim = SCALAR, otherwise: str = ""
) -> Attribute:
    return Attribute(about, "count", dim, default, low, high, open_low=False, otherwise=otherwise)


def word_of(about: str, default: object, *words: str, otherwise: str = "") -> Attribute:
    return Attribute(about, "word", default=default, words=words, otherwise=otherwise)


def share_of(about: str, default: float) -> Attribute:
    return Attribute(about, "number", SCALAR, default, LEAST_SHARE, 1.0)


def dtype_of(about: str, default: object = None, otherwise: str = "") -> Attribute:
    return Attribute(about, "dtype", default=default, words=DTYPES, otherwise=otherwise)


DTYPES = tuple(NAMED)

ANY = "any"
"""The word that leaves an attribute to a search."""
