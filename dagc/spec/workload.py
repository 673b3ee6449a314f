"""What a deployment is asked to do: sequences, their lengths, and how their tokens choose experts."""

from __future__ import annotations

from ..base.frozen import field, record
from ..base.source import Span


@record
class Routing:
    """How tokens choose experts: kind `uniform`; `zipf` or `power_law` with exponent `s`; `histogram`, the share of the
    choices that each expert gets; or `loads`, one such histogram for each routed layer in `layers` (one for all of them if
    it is the only one), whose numbers in the model are `numbers` where they are stated.

    `where`: of each of `layers`, in words."""

    kind: str = "uniform"
    s: float = 0.0
    histogram: tuple[float, ...] = ()
    layers: tuple[tuple[float, ...], ...] = ()
    numbers: tuple[int, ...] = ()
    where: tuple[str, ...] = field(default=(), compare=False, repr=False)
    span: Span | None = field(default=None, compare=False, repr=False)

    @property
    def mean(self) -> Routing:
        """Of all layers together, each with the same share of the choices."""
        if self.kind != "loads":
            return self
        totals = [sum(layer) for layer in self.layers]
        shares = (sum(x / t for x, t in zip(column, totals, strict=True)) for column in zip(*self.layers, strict=True))
        return Routing("histogram", 0.0, tuple(shares))

    def of_layers(self, indices: tuple[int, ...], routed: tuple[int, ...]) -> tuple[Routing, ...]:
        """How tokens choose in each of some layers, of all `routed` ones of the model; one for all of them where they
        do not differ. Raises KeyError when there is no load of a layer."""
        if self.kind != "loads":
            return (self,)
        if len(self.layers) == 1:
            return (Routing("histogram", 0.0, self.layers[0]),)
        by_layer = dict(zip(self.numbers or routed, self.layers, strict=True))
        return tuple(Routing("histogram", 0.0, by_layer[index]) for index in indices)


@record
class Workload:
    """`sequences` in the whole batch of a phase, each of `prompt` tokens, generating `output` tokens."""

    sequences: int
    prompt: int
    output: int
    routing: Routing = Routing()
    span: Span | None = field(default=None, compare=False, repr=False)
