"""Records around fitted constants: the GPU, and for each variant its range, its residual and its measured error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from ..base.frozen import record
from ..base.traced import Traced
from .residual import Residual

C = TypeVar("C")


class CalibrationError(ValueError):
    """A calibration file is missing, or does not say what it must."""


@record
class Device:
    """Datasheet peaks: dense FLOP/s by dtype, memory and one-way link bandwidth, streaming multiprocessors."""

    flops: Mapping[str, float]
    hbm_Bps: float
    link_Bps: float
    sms: float


@record
class FitError:
    """|estimate / measurement - 1| over `rows` rows, each estimated by a fit that did not see it. `bias`: median of the
    signed error. `unseen`: median where the fit saw no row of that shape; None: the rows are all of one shape."""

    median: float
    p90: float
    rows: int
    bias: float = 0.0
    unseen: float | None = None


@record
class Over:
    """The sibling that few rows were fitted over, the same kernels on another GPU or called by another engine: its residual
    counts as well. `variant`: the sibling's name of them; empty: the same. `over`: what the sibling itself was fitted over."""

    gpu: str
    engine: str
    residual: Residual | None
    variant: str = ""
    over: Over | None = None

    @property
    def residuals(self) -> tuple[Residual | None, ...]:
        """The sibling's, and of what that was fitted over."""
        return (self.residual, *(self.over.residuals if self.over is not None else ()))


@record
class Entry(Generic[C]):
    """Constants of one variant, the least and greatest of each shape fitted on, the residual and the error.

    `engine`: whose kernels were timed (`common`: of no engine; empty: a file that serves any). `instead_of`: what nobody
    measured and this entry takes the place of, empty where it was measured; then `error` is that of such substitutes.
    `over`: the sibling that it was fitted over; then `residual` is what the formula and the sibling's residual miss.
    """

    constants: C
    shapes: Mapping[str, tuple[float, float]]
    error: FitError
    device: Device
    residual: Residual | None = None
    gpu: str = ""
    engine: str = ""
    variant: str = ""
    instead_of: str = ""
    over: Over | None = None

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self) >> 4

    def outside(self, **shape: float) -> list[str]:
        """Shapes, of those given, that lie outside the fitted range (an extrapolation); of traced ones it says none, unless their tape is to
        tell.

        Raises KeyError for a shape that the variant does not have.
        """
        given: list[tuple[str, Any]] = [
            (name, value) for name, value in shape.items() if not isinstance(value, Traced) or value.tape.tells
        ]
        return [name for name, value in given if not self.shapes[name][0] <= value <= self.shapes[name][1]]

    @property
    def table(self) -> str:
        """Whose table it is, for people: `vllm on h200_sxm`."""
        return f"{self.engine} on {self.gpu}" if self.engine else self.gpu
