"""What pricing finds: the cost of every op of a graph, per rank."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from math import fsum
from typing import Any

import numpy as np

from ..base.arrays import NDArray
from ..base.frozen import field, record
from ..base.traced import number
from ..ir.groups import GroupShape

Array = NDArray[np.float64]
"""Per rank by broadcasting: one dimension per mesh atom, of length 1 where ranks are equal."""


def index_at(rank: Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    """Where an array of that shape has the value of a rank. `rank`: its mesh coordinates."""
    return tuple([min(i, n - 1) for i, n in zip(rank, shape, strict=True)])


def value_at(array: Array, rank: Sequence[int]) -> float:
    """The value of a rank. `rank`: its mesh coordinates."""
    return array.item() if array.size == 1 else array.item(index_at(rank, array.shape))


@record
class OpCost:
    """Cost of one execution. Arrays are per rank; `bound` names what the time is made of:
    compute, memory, node, cluster or latency. `launch_s`: the part of the time in which the kernel is only launched."""

    time_s: Array
    floor_s: Array
    bound: str
    flops: float = 0.0
    bytes: float = 0.0
    payload_B: float = 0.0
    wire_B: float = 0.0
    group: GroupShape | None = None
    algorithm: str = ""
    family: str = ""  # the measured kernel that the time is from; empty: the roofline or alpha-beta
    error: float = 0.0  # its median relative error
    outside: tuple[str, ...] = ()  # sizes beyond what was measured
    table: str = ""  # whose table the family is from: `vllm on h200_sxm`
    instead_of: str = ""  # what nobody measured and that table takes the place of
    launch_s: float = 0.0
    level_B: Mapping[str, float] = field(default_factory=dict)  # of `wire_B`, on the links of each level
    buffer_B: float = 0.0  # of the busiest rank's payload, what the measured kernel sends; 0: all of it


@record
class Transfer:
    """The send from one stage to the next, per rank: of the residual stream, and of what layers behind take beside it."""

    payload_B: float
    time_s: float
    floor_s: float
    bound: str
    level: str  # the links that it crosses


@record(slots=False)
class WhenAsked:
    """Numbers of layers that are found when somebody asks for them: `find(*given)`."""

    find: Callable[..., tuple[float, ...]]
    given: tuple[Any, ...]

    @cached_property
    def each(self) -> tuple[float, ...]:
        return self.find(*self.given)

    @property
    def mean(self) -> float:
        return fsum(self.each) / len(self.each)


@record
class LayerLoad:
    """Load of one routed layer: rows of its busiest expert rank over the mean of its ranks, and without the spare copies
    of experts. `layer` 0 is the first transformer layer."""

    layer: int
    imbalance: float
    plain: float


NO_TRANSFER = Transfer(0.0, 0.0, 0.0, "node", "node")
Hops = Mapping[tuple[int, int, int], tuple[Transfer, Transfer]]
"""(the first of two virtual stages, the lower and the higher GPU of a pipeline) -> sends forward, and of gradients back."""
NO_HOPS: Hops = {}


@record
class Costs:
    """`ops`: (segment, op) -> cost. `edges`: the sends of each stage but the last to the next; `returns`: of gradients back, where they are of less. `load`: rows of each
    expert rank over the mean of all, the largest as it is expected of the busiest rank of a step. `numbered`: that
    largest with experts as they are numbered, without spare copies. `dropped`: share of the choices over an expert's capacity.
    `load_error`: relative standard error of the busiest rank (0: exact). `layers`: of the load's layers each for
    itself, where the loads of experts are given by layer (`load` and `numbered` are means). `host_s`: what the host takes before the
    GPUs begin a pass; `lacking`: of the experts that a step needs the share that no GPU holds; `launched_s`: to launch all kernels of a stage, beside what the GPUs do; 0 under a CUDA graph.
    `kernels`: that a GPU launches in a pass, where `ops` are not there to be counted. `hops`: of a training step whose layers hand values on
    beside the residual stream, sends by virtual stage and by the GPUs of the pipeline."""

    ops: Mapping[tuple[str, str], OpCost]
    edges: tuple[Transfer, ...]
    token_return: Transfer
    load: NDArray[np.float64]
    distinct_experts: float
    numbered: float | WhenAsked = 1.0
    dropped: float = 0.0
    host_s: float = 0.0
    load_error: float = 0.0
    launched_s: float = 0.0
    layers: tuple[LayerLoad, ...] = ()
    lacking: float = 0.0
    kernels: float | None = None
    returns: tuple[Transfer, ...] = ()
    hops: Hops = NO_HOPS

    @property
    def transfer(self) -> Transfer:
        """The slowest of the sends between stages: one figure represents all of them."""
        hops = (edge for pair in self.hops.values() for edge in pair)
        return max((*self.edges, *hops), key=lambda edge: edge.time_s, default=NO_TRANSFER)

    @property
    def plain(self) -> float:
        """The largest without spare copies of experts."""
        return self.numbered.mean if isinstance(self.numbered, WhenAsked) else self.numbered

    @property
    def imbalance(self) -> float:
        """Expected rows of the busiest rank over the mean of all ranks."""
        found: float = number(self.load.max())
        return found


@record
class Rebalanced:
    """`times`: placements after the first; of one of them, in the mean: `moved_B` that all GPUs get, and `move_s` until the one that takes longest has
    its part. `imbalance`, `step_s`: with the first placement kept over the whole time; `own_s`: a step with experts placed anew, between two
    placements. `every`: steps between these."""

    times: int
    moved_B: float
    move_s: float
    imbalance: float
    step_s: float
    own_s: float
    every: int

    @property
    def gain(self) -> float:
        """Share of the time that is saved, moves included; below none where these take more."""
        return 1.0 - (self.own_s + self.move_s / self.every) / self.step_s

    @property
    def break_even(self) -> float | None:
        """Steps between placements at which moves take what they save; None where they save nothing."""
        saved = self.step_s - self.own_s
        return self.move_s / saved if saved > 0 else None


@record
class ExpertCache:
    """Of GPUs that hold some of their experts, and get the others from their hosts: `found`, the share of what a step needs that is there; `copied_B`
    that the busiest GPU gets in a pass; `held_B` of experts on a GPU, of the stage with most; `fill_s`: until these came over the host's link, `load_s`: until all
    experts of a host came from its storage, None: nobody says how fast it is. `steps`: after which a GPU that began with none has as
    many as it has room for, None: it has to be told which. `all_s`: a pass with all experts on GPUs; `own_s`: of the phase; `cold_s`: with none."""

    found: float
    copied_B: float
    held_B: float
    host_B: float
    fill_s: float
    load_s: float | None
    steps: float | None
    all_s: float
    own_s: float
    cold_s: float

    @property
    def slowdown(self) -> float:
        return self.own_s / self.all_s

    @property
    def cold_slowdown(self) -> float:
        return self.cold_s / self.all_s

    @property
    def warm_s(self) -> float:
        """Until the GPUs hold what their rule keeps: as it is needed, beside passes that have it, or all at once."""
        return self.fill_s + (0.0 if self.steps is None else self.steps * self.all_s)
