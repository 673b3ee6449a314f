"""handed_on: what layers hand on beside the residual stream, and which part of it goes from stage to stage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..base.frozen import record
from .graph import Graph, StageEdge
from .op import Taken
from .ops.kind import Tokens
from .ops.op_set import OPS
from .requests import IDS
from .segment import Segment
from .sharding import Sharding


@record
class Made:
    """A value that a layer hands on, by its name there."""

    segment: Segment
    value: str

    @property
    def kind(self) -> str:
        """Of the op that makes it; of token ids their name."""
        return IDS if self.value == self.segment.input else self.segment.by_name[self.value].kind

    @property
    def is_cache(self) -> bool:
        """Whether its layer keeps it."""
        return self.kind != IDS and OPS[self.kind].tokens is Tokens.CACHE


def are_handed_on(graph: Graph) -> bool:
    """Whether a layer takes anything beside the residual stream."""
    return any([segment.taken for segment in graph.segments])


def made_in(layers: Iterable[Segment]) -> dict[str, Made]:
    """By name what the last of the layers that does so hands on."""
    return {name: Made(segment, value) for segment in layers for name, value in segment.handed}


def crossing(graph: Graph, stage: int) -> Mapping[str, Made]:
    """What goes to a stage from the one before: by name, in alphabetical order, what its layers or those behind take of the nearest
    layer before the stage that hands it on."""
    if not are_handed_on(graph):
        return {}
    made = made_in(graph.segment(name) for before in graph.stages[:stage] for name, _ in before.layers)
    wanted, own = set[str](), set[str]()
    for name in (name for here in graph.stages[stage:] for name, _ in here.layers):
        segment = graph.segment(name)
        wanted |= {one.name for one in segment.taken} - own
        own |= {given for given, _ in segment.handed}
    return {name: made[name] for name in sorted(wanted & made.keys())}


def crossings(graph: Graph) -> list[dict[str, Made]]:
    """What would go between the layers before the k-th and those from it on, if a stage ended there; k from 0 to the number of layers."""
    layers = [segment for segment, _ in graph.layers]
    if not are_handed_on(graph):
        return [{} for _ in range(len(layers) + 1)]
    wanted = [frozenset[str]()]
    for layer in reversed(layers):
        wanted.append(wanted[-1] - {name for name, _ in layer.handed} | {one.name for one in layer.taken})
    made = dict[str, Made]()
    found = [made]
    for layer, names in zip(layers, reversed(wanted[:-1]), strict=True):
        made = made | made_in([layer])
        found.append({name: made[name] for name in sorted(names & made.keys())})
    return found


def crossing_back(graph: Graph, stage: int) -> Mapping[str, Made]:
    """Of these, what gradients go back of in a training step."""
    names = {name for segment in graph.segments for name, _ in segment.gets}
    return {name: made for name, made in crossing(graph, stage).items() if name in names}


def carried(graph: Graph, stage: int) -> tuple[Taken, ...]:
    """The same as the edge to the stage states it: with the dims that it has where it is made."""
    found = []
    for name, made in crossing(graph, stage).items():
        at, value = made.segment, made.value
        found.append(
            Taken(name, at.dims_of(value), at.dtype_of(value), made.kind, at.scope_of(value), at.sharding_of(value))
        )
    return tuple(found)


def sent(graph: Graph, edge: StageEdge, *, back: bool = False) -> Iterator[tuple[str, Segment, str, Sharding]]:
    """What an edge carries, each by its name, with a layer that has it, its name there and its layout: first the residual stream, as the
    stage takes it. `back`: the gradients that go the other way, in the place of what they are of."""
    first = graph.segment(graph.stages[edge.target].layers[0][0])
    yield edge.value, first, first.input, edge.sharding
    made = crossing_back(graph, edge.target) if back else crossing(graph, edge.target)
    for one in edge.beside:
        if one.name in made:
            assert one.sharding is not None
            yield one.name, made[one.name].segment, made[one.name].value, one.sharding
