"""What a deployment is asked to do: sequences, their lengths, and how their tokens choose experts."""

from __future__ import annotations

from dataclasses import field

from ..base.frozen import record
from ..base.source import Span


@record
class Routing:
    """How tokens choose experts: kind `uniform`; `zipf` or `power_law` with exponent `s`; or `histogram`, the share of
    the choices that each expert gets."""

    kind: str = "uniform"
    s: float = 0.0
    histogram: tuple[float, ...] = ()


@record
class Workload:
    """`sequences` in the whole batch of a phase, each of `prompt` tokens, generating `output` tokens."""

    sequences: int
    prompt: int
    output: int
    routing: Routing = Routing()
    span: Span | None = field(default=None, compare=False, repr=False)
