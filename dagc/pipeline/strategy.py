"""The passes that lower a phase, with the options that its strategy says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from ..base.axes import TENSOR
from ..base.low_precision import RECIPES
from ..base.pipeline_schedules import SCHEDULES
from ..cost.prices import LinkPrices, PoolPrices
from ..ir.axes import Dispatch, Method
from ..ir.graph_pass import GraphPass, PassError
from ..ir.mesh import Factors
from ..passes import GRAPH_PASSES, OF_FEWER_BITS, OF_HOSTS, OF_TRAINING
from ..passes.backward import Backward
from ..passes.dp import DataParallel
from ..passes.ep import ExpertParallel
from ..passes.host_experts import ResidentExperts
from ..passes.mesh import MakeMesh
from ..passes.pp import PipelineParallel
from ..passes.quantise import Quantise
from ..passes.recompute import Recompute
from ..passes.reshard import Reshard
from ..passes.sp import SequenceParallel
from ..passes.tie import TieTables
from ..passes.tp import TensorParallel
from ..passes.zero import ZeroRedundancy
from ..spec.factors import even_stages, expert_side, factorisations, neighbours
from ..spec.strategy import Strategy
from ..spec.training import Training
from ..spec.unit import Unit
from .gpu_ids import placed_ids

Added = Mapping[str, Sequence[GraphPass]]
"""Passes of plugins, by the pass that they follow."""


def lowering(unit: Unit, added: Added) -> tuple[GraphPass, ...]:
    """Every graph pass in order, those of plugins behind the one that they follow. Raises SpecError with E03."""
    set_here = {type(one): one for one in _with_options(unit)}
    training = unit.phase.training
    left_out: tuple[type[GraphPass], ...] = tuple(one for one in OF_HOSTS if not one_keeps(unit, one))
    if training is None:
        left_out += OF_TRAINING
    elif not training.quantises:
        left_out += OF_FEWER_BITS
    own = [set_here.get(one) or one() for one in GRAPH_PASSES if one not in left_out]
    if missed := sorted(added.keys() - {"expand", *(one.name for one in own)}):
        what = f"`{added[missed[0]][0].name}` follows `{missed[0]}`, a pass of training phases"
        raise PassError(f"{what}: it would never run here", at="passes")
    return (*added.get("expand", ()), *(one for step in own for one in (step, *added.get(step.name, ()))))


def one_keeps(unit: Unit, one: type[GraphPass]) -> bool:
    """Whether the hosts of a phase keep what a pass makes copies of: no experts, where GPUs hold all of a layer."""
    return lacks_experts(unit) if one is ResidentExperts else bool(unit.phase.cache.offload)


def lacks_experts(unit: Unit) -> bool:
    """Whether GPUs hold fewer experts of a layer than there are."""
    slots = unit.spec.model.count("experts.count", 0) + unit.phase.strategy.redundant
    return 0 < unit.phase.experts.resident < slots


def resident_experts(unit: Unit) -> ResidentExperts:
    use = unit.phase.experts
    return ResidentExperts(use.resident, use.foretold is not None, use.foretold or 0.0)


def _with_options(unit: Unit) -> tuple[GraphPass, ...]:
    """The passes whose options follow from the spec; all others run with their defaults."""
    phase, hardware = unit.phase, unit.spec.hardware
    s = phase.strategy
    factors = _factors(s)
    prices: LinkPrices | PoolPrices = LinkPrices(*hardware.links)
    link, other = unit.spec.expert_link(phase), unit.spec.experts_on(phase)
    if link is not None:
        prices = PoolPrices(LinkPrices(*hardware.links), LinkPrices(*other.links), link)
    first = unit.spec.first_expert_id(phase)
    training = phase.training or Training()
    return (
        resident_experts(unit),
        backward_of(unit),
        Quantise(
            training.quantises and training.quantised_weights and RECIPES[training.matmul_dtype].gathers,
            training.quantises and phase.dispatch_dtype == training.matmul_dtype,
            unit.spec.model.dtype if training.zero == 3 and not training.quantised_weights else "",
        ),
        Recompute(training.recompute),
        ZeroRedundancy(training.zero, training.reshard_after_forward),
        MakeMesh(
            sides=factors.sides,
            rules=factors.rules,
            stages=s.pp,
            order=s.order,
            gpus=phase.gpus,
            place=placed_ids(unit, factors.sides),
            per_node=hardware.domains[0],
            further=hardware.domains[1:],
            nics=hardware.nics or (),
            zigzag=s.sp_layout == "zigzag",
            beside=tuple(_factors(other) for other in neighbours(unit.spec, phase)),
            dcp=s.dcp,
            experts=expert_side(s),
            expert_gpus=() if s.apart is None else tuple(first + gpu for gpu in s.apart.gpus),
            expert_domains=() if link is None else other.domains,
            expert_nics=() if link is None else other.nics or (),
        ),
        TensorParallel(tuple(d for d, axis in dict(s.shard).items() if axis == TENSOR)),
        SequenceParallel(cast(Method, s.sp_method), s.sequence_parallel, s.dcp),
        # No engine exchanges tokens that all its ranks have, unless told whose kernels take them
        # (vllm/config/parallel.py, use_sequence_parallel_moe: from two data-parallel ranks on).
        ExpertParallel(
            cast(Dispatch, s.dispatch),
            prices,
            phase.memory.engine is not None and phase.exchange is None,
            "" if s.placing == s.usual_placing else s.placing,
        ),
        DataParallel(cast(Dispatch, s.dispatch)),
        PipelineParallel(_cut(unit.spec.model.layers, s)),
        TieTables(SCHEDULES[training.schedule].ends_meet),
        Reshard(s.sequence_parallel, prices),
    )


OVER: Mapping[str, Callable[[Unit], int]] = {
    "rank": lambda unit: unit.phase.batching.each,
    "sequence": lambda unit: 1,
    "micro_batch": lambda unit: 0,
}
"""Sequences over which shares of experts are taken, by the word of a phase; 0: all of a micro-batch."""


def backward_of(unit: Unit) -> Backward:
    """The pass that makes the gradients of a training phase."""
    training = unit.phase.training or Training()
    further = training.mtp_loss / unit.spec.model.count("mtp_layers") if training.mtp_loss else 0.0
    over = OVER[training.aux_loss_over](unit) if training.aux_loss else 0
    return Backward(
        training.gradient_dtype, training.optimizer, further, training.aux_loss, training.z_loss, over,
        unit.spec.model.dtype if training.quantises else "", training.dropout,
    )  # fmt: skip


def _factors(strategy: Strategy) -> Factors:
    return Factors(factorisations(strategy), tuple(d for d, _ in strategy.shard))


def _cut(layers: int, s: Strategy) -> tuple[int, ...]:
    """Layers of each stage. Of chunks that a training schedule cuts them into anew (`virtual_stages`) stages need not say more."""
    if s.layers_per_stage is not None and len(s.layers_per_stage) == s.pp:
        return s.layers_per_stage
    return even_stages(layers, s.pp) if s.balanced or s.layers_per_stage is not None else ()
