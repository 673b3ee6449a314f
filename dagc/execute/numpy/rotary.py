"""Rotary embedding with the stretched frequencies of long-context models."""

from __future__ import annotations

import math

import numpy as np

from ...base.frozen import record
from ...base.number_texts import numbers_of
from ...ir.ops.attention import rotated
from ...ir.ops.attributes.attrs import Attrs, values
from ..values import Floats, Ints


@record
class Rotary:
    """The attributes of a `rope` section. `original`: the context that frequencies were trained on, in tokens.
    `inverse`: rotated back. `tail`: the last numbers turn, not the first."""

    theta: float = 10_000.0
    fraction: float = 1.0
    interleaved: bool = False
    scaling: str = "none"
    factor: float = 1.0
    original: float = 4096.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    low: float = 1.0
    high: float = 4.0
    magnitude: float = 1.0
    stretch: str = ""
    inverse: bool = False
    tail: bool = False

    @staticmethod
    def of(attrs: Attrs) -> Rotary:
        """Of an op; at which positions it turns is not the table's."""
        return Rotary(**{name: value for name, value in values(attrs).items() if name != "tree"})

    def rotate(self, x: Floats, positions: Ints, axis: int, factors: Floats | None = None) -> Floats:
        """Pairs of the last dim, rotated by their position along `axis`. `factors`: of the frequency of each."""
        width = self.width(x.shape[-1])
        angle = positions[:, None] * self.frequencies(width) * (1.0 if factors is None else factors)
        shape = [1] * x.ndim
        shape[axis], shape[-1] = len(positions), width // 2
        cos, sin = (f(angle).reshape(shape) * self.magnitude for f in (np.cos, np.sin))
        sin = -sin if self.inverse else sin
        out = x.copy()
        first, second = self.halves(x.shape[-1])
        a, b = x[..., first], x[..., second]
        out[..., first], out[..., second] = a * cos - b * sin, a * sin + b * cos
        return out

    def halves(self, size: int) -> tuple[slice, slice]:
        """The first and the second number of each pair of a head of that size."""
        width = self.width(size)
        start = size - width if self.tail else 0
        if self.interleaved:
            return slice(start, start + width, 2), slice(start + 1, start + width, 2)
        return slice(start, start + width // 2), slice(start + width // 2, start + width)

    def width(self, size: int) -> int:
        """Numbers of a head of that size whose pairs are looked at: its first `fraction`; laid out proportionally, all of them."""
        return size if self.scaling == "proportional" else rotated(size, self.fraction)

    def frequencies(self, width: int) -> Floats:
        """[width / 2], radians a token. Yarn: arXiv 2309.00071, section 3; llama3: Llama 3.1's published code; proportional, as Gemma 4
        has it: frequencies of the whole width, of which the first `fraction` turn; of a `stretch` each by its number (arXiv 2402.13753)."""
        plain = self.theta ** (-np.arange(0, width, 2) / width)
        if self.stretch:
            return np.asarray(plain / np.asarray(numbers_of(self.stretch)))
        if self.scaling == "proportional":
            return np.asarray(
                np.where(np.arange(width // 2) < rotated(width, self.fraction) // 2, plain / self.factor, 0.0)
            )
        if self.scaling == "linear":
            return plain / self.factor
        if self.scaling == "llama3":
            turns = self.original * plain / (2.0 * math.pi)
            kept = (
                np.clip((turns - self.low) / (self.high - self.low), 0.0, 1.0)
                if self.high > self.low
                else turns >= self.low
            )
            return plain * (kept + (1.0 - kept) / self.factor)
        if self.scaling == "yarn":
            low, high = self._dimension(width, self.beta_fast), self._dimension(width, self.beta_slow)
            if self.truncate:
                low, high = math.floor(low), math.ceil(high)
            low, high = max(low, 0), min(high, width - 1)
            ramp = np.clip((np.arange(width // 2) - low) / ((high - low) or 1e-3), 0.0, 1.0)
            return np.asarray(plain * (ramp / self.factor + 1.0 - ramp))
        return np.asarray(plain)

    def _dimension(self, width: int, turns: float) -> float:
        """The pair that makes so many rotations over the original context."""
        return width * math.log(self.original / (turns * 2.0 * math.pi)) / (2.0 * math.log(self.theta))
