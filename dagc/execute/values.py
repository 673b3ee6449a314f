"""Values of one rank other than plain arrays. Each is defined once: its arrays are NumPy's or torch's."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..base.arrays import NDArray
from ..base.frozen import record, replace

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Array = Any
"""Of NumPy or of torch: every value of a run has arrays of one of the two."""


@record(slots=False)
class Ragged:
    """Routed rows, sorted by physical expert and key: physical expert [n], key [n, 3] (sequence, token, choice), data
    [n, ..]. `held`: the physical experts that rows may be of."""

    physical: Array
    keys: Array
    data: Array
    held: range

    def with_data(self, data: Array) -> Ragged:
        return replace(self, data=data)
