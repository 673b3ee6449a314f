"""The graph of a phase: its segments, its stages with the order of the layers, and what is sent between stages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from itertools import groupby

from ..base.frozen import record, replace
from ..base.phase_kinds import PHASE_KINDS, PhaseKind
from .mesh import Mesh
from .op import APART_STREAMS, COPY, STREAMS, TURNS_STREAMS, Op, Taken
from .segment import Segment
from .sharding import AT_EXPERTS, Sharding


@record
class Stage:
    """Layers of one pipeline stage: (segment name, how many of it), in order."""

    index: int
    layers: tuple[tuple[str, int], ...]
    gpus: tuple[int, ...] = ()


def runs(names: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """Runs of equal layers: [a, a, b] -> ((a, 2), (b, 1))."""
    return tuple((name, len(list(group))) for name, group in groupby(names))


@record
class StageEdge:
    """Send and receive of the local shard of a value between equal ranks of two stages, set by reshard. `beside`: what goes with it
    that layers hand on beside the residual stream, with the dims of the layer that makes it."""

    source: int
    target: int
    value: str
    dims: tuple[str, ...]
    dtype: str
    sharding: Sharding
    beside: tuple[Taken, ...] = ()

    @property
    def values(self) -> tuple[str, ...]:
        """Names of what it carries."""
        return (self.value, *(one.name for one in self.beside))


@record(slots=False)
class Graph:
    """One phase. `level` is model, annotated, sharded or placed. `lanes` is 2 under two-batch overlap.

    Equal layers are one segment, wherever they are; `stages` has the order of the layers.

    `sizes["batch"]` of a segment counts the sequences of one lane of one micro-batch.
    """

    phase: str
    kind: str  # of base.phase_kinds
    level: str
    segments: tuple[Segment, ...]
    microbatches: int = 1
    lanes: int = 1
    mesh: Mesh | None = None
    stages: tuple[Stage, ...] = ()
    sends: tuple[StageEdge, ...] = ()

    @property
    def phase_kind(self) -> PhaseKind:
        return PHASE_KINDS[self.kind]

    @property
    def takes_prompts(self) -> bool:
        return self.phase_kind.takes_prompts

    @property
    def generates(self) -> bool:
        return self.phase_kind.generates

    @property
    def embedding(self) -> Segment:
        """The first layer of the model."""
        return self.segments[0]

    @property
    def body(self) -> tuple[Segment, ...]:
        """The layers between embedding and head."""
        return self.segments[1:-1]

    @property
    def head(self) -> Segment:
        """The last layer of the model."""
        return self.segments[-1]

    @property
    def layers(self) -> Iterator[tuple[Segment, int]]:
        """Every layer in order with its index: the embedding is -1, the first transformer layer 0."""
        names = (name for stage in self.stages for name, count in stage.layers for _ in range(count))
        return ((self.segment(name), index) for index, name in enumerate(names, start=-1))

    def first_layer(self, stage: int) -> int:
        """Index of the first layer of a stage, as `layers` counts them."""
        return sum(count for before in self.stages[:stage] for _, count in before.layers) - 1

    def is_end(self, segment: str) -> bool:
        """Whether it is the embedding or the head, which go by their names."""
        return segment in (self.embedding.name, self.head.name)

    def layer_name(self, segment: str, index: int) -> str:
        """The name of a layer in every file and picture: `sparse.5`, counted over the model; `embed` and `lm_head` alone."""
        return segment if self.is_end(segment) else f"{segment}.{index}"

    @cached_property
    def _by_name(self) -> dict[str, Segment]:
        return {s.name: s for s in self.segments}

    def segment(self, name: str) -> Segment:
        return self._by_name[name]

    def find(self, name: str) -> Segment | None:
        return self._by_name.get(name)

    def in_fullest_stage(self, of_layer: Mapping[str, float]) -> float:
        """The sum over the layers of the stage where it is largest. `of_layer`: what a layer has, by segment."""
        return max(sum(count * of_layer[name] for name, count in stage.layers) for stage in self.stages)

    @property
    def sides(self) -> tuple[str, ...]:
        """The sets of ranks that a stage has."""
        return ("",) if self.mesh is None or self.mesh.apart is None else ("", AT_EXPERTS)

    @property
    def streams(self) -> tuple[str, ...]:
        """On which the ops of a stage run in order."""
        if self.mesh is None or self.mesh.apart is None:
            own: tuple[str, ...] = STREAMS
        else:
            own = TURNS_STREAMS if self.lanes > 1 else APART_STREAMS
        return (*own, COPY) if self.copies else own

    @cached_property
    def copies(self) -> bool:
        """Whether anything is copied between GPUs and their hosts."""
        return any([segment.copied for segment in self.segments])

    def stream_of(self, segment: Segment, op: Op) -> str:
        """The one on which an op runs."""
        return f"{op.stream} between" if self.lanes > 1 and op.name in segment.between else op.stream

    @property
    def the_mesh(self) -> Mesh:
        assert self.mesh is not None, "the mesh pass has not run"
        return self.mesh

    def map_segments(self, change: Callable[[Segment], Segment]) -> Graph:
        """The graph with every segment replaced by `change(segment)`; itself where that changes none."""
        segments = tuple(change(s) for s in self.segments)
        same = all(a is b for a, b in zip(segments, self.segments, strict=True))
        return self if same else replace(self, segments=segments)

    def map_ops(self, change: Callable[[Segment, Op], Op], level: str) -> Graph:
        """The graph with every op replaced by `change(segment, op)`."""
        segments = tuple(s.with_ops(tuple([change(s, op) for op in s.ops])) for s in self.segments)
        return replace(self, segments=segments, level=level)
