"""How a phase is parallelised, as written."""

from __future__ import annotations

from ..base.axes import AXES
from ..base.frozen import record
from ..base.syntax.ast import Expr
from .rebalance import Rebalance


@record
class Fold:
    """Degrees of one side of a folded strategy, outermost first: (("dp", 8), ("sp", 1), ("tp", 4))."""

    degrees: tuple[tuple[str, int], ...]


@record
class ExpertGpus:
    """GPUs that have the routed experts and nothing else, by their ids in `hardware`, their pool: nothing where it is the phase's."""

    gpus: tuple[int, ...]
    hardware: str = ""


@record
class Strategy:
    """Degrees as written. Flat: dp, ep, sp, tp. Folded: `attention` and `experts` are set and override them. `balanced`: the layers of each
    stage are those of the least busy cut, `layers_per_stage` once found. `best`: which GPU each rank is, is searched for; `ids` are what was found, stage by stage, ranks in mesh order. `apart`: experts have
    GPUs of their own, which `experts` factors; micro-batches then take turns, one at the experts while others are at attention."""

    pp: int = 1
    dp: int = 1
    ep: int = 1
    sp: int = 1
    tp: int = 1
    replicas: int = 1
    attention: Fold | None = None
    experts: Fold | None = None
    order: tuple[str, ...] = tuple(AXES)
    place: Expr | None = None
    best: bool = False
    ids: tuple[int, ...] = ()
    microbatches: int = 1
    layers_per_stage: tuple[int, ...] | None = None
    balanced: bool = False
    sequence_parallel: bool = False
    sp_method: str = "allgather"  # allgather | ring | ulysses
    sp_layout: str = "contiguous"  # contiguous | zigzag
    dcp: int = 1  # ranks of tp that share the context of decode
    redundant: int = 0
    expert_placement: str | None = None  # linear | eplb | balanced; None: see `placing`
    dispatch: str = "all_to_all"  # all_to_all | allgather
    overlap: str = "none"  # none | two_batch
    shard: tuple[tuple[str, str], ...] = ()  # extra rules: (dimension, axis name)
    passes: tuple[str, ...] = ()  # of installed plugins
    apart: ExpertGpus | None = None
    rebalance: Rebalance | None = None  # loads over time, by which experts are placed anew

    @property
    def lanes(self) -> int:
        """Parts of a batch that overlap."""
        return self.microbatches if self.apart is not None else 2 if self.overlap == "two_batch" else 1

    @property
    def rounds(self) -> int:
        """Parts of a batch that go through the stages one after the other, each in as many `lanes`."""
        return 1 if self.apart is not None else self.microbatches

    @property
    def placing(self) -> str:
        """How experts are placed on ranks."""
        return self.expert_placement or self.usual_placing

    @property
    def usual_placing(self) -> str:
        """By their numbers; with spare copies, or loads over time, as engines place them."""
        return "eplb" if self.redundant or self.rebalance is not None else "linear"
