"""Records around fitted constants: the GPU, and for each variant its range and its measured error."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Generic, TypeVar

from ..base.frozen import record

C = TypeVar("C")


class CalibrationError(ValueError):
    """A calibration file is missing, or does not say what it must."""


def folder() -> Traversable:
    """Where the files are that dagc comes with: one calibration per GPU, and what belongs to no GPU."""
    return resources.files("dagc.grammar.library") / "calibration"


@record
class Device:
    """Datasheet peaks: dense FLOP/s by dtype, memory and one-way link bandwidth, streaming multiprocessors."""

    flops: Mapping[str, float]
    hbm_Bps: float
    link_Bps: float
    sms: float


@record
class FitError:
    """|estimate / measurement - 1| over `rows` rows that the fit did not see."""

    median: float
    p90: float
    rows: int


@record
class Entry(Generic[C]):
    """Constants of one variant, the least and greatest of each shape fitted on, and the error."""

    constants: C
    shapes: Mapping[str, tuple[float, float]]
    error: FitError

    def outside(self, **shape: float) -> list[str]:
        """Shapes, of those given, that lie outside the fitted range (an extrapolation).

        Raises KeyError for a shape that the variant does not have.
        """
        return [name for name, value in shape.items() if not self.shapes[name][0] <= value <= self.shapes[name][1]]
