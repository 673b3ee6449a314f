"""Types of arrays. Importing `numpy.typing` takes a good part of what `import numpy` does, and nothing but a type checker needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike as ArrayLike
    from numpy.typing import NDArray as NDArray
else:
    ArrayLike = NDArray = np.ndarray
