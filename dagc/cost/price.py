"""price: what one execution of every op takes, per rank by broadcasting.

Measured kernel times where the hardware names a calibration that knows the kernel (`match.py`). Else the roofline:
max(FLOPs / (peak mfu), bytes / (bandwidth mbu)) + launch. Collectives: `transfers.py`. Expert ops: work follows the load of
the rank, weight bytes the distinct experts its tokens hit. The floor takes datasheet peaks and no overhead at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..base.dtypes import dtype
from ..base.frozen import replace
from ..base.traced import is_traced, larger, number
from ..ir.graph import Graph
from ..ir.mesh import Mesh
from ..ir.op import Op
from ..ir.ops.attributes.copies import ExpertCopyAttrs
from ..ir.ops.op_set import OPS, kernels_of, local_flops, traffic, uneven_share
from ..ir.routed_dims import Rows, routers, rows_of, rows_with
from ..ir.segment import Segment
from ..ir.sharding import AT_EXPERTS
from ..spec.hardware import Hardware
from ..spec.phase import Phase
from ..spec.unit import Unit
from .expert_load import ExpertLoad
from .fused_blocks import inner_bytes, leads
from .host_copies import copy_cost
from .records import NO_TRANSFER, Array, Costs, LayerLoad, OpCost, WhenAsked
from .transfers import collective_cost, stage_edges, stage_returns

if TYPE_CHECKING:
    from .exchange import Exchanges
    from .kept_costs import KeptCosts
    from .measured import Kept, Measured
    from .pass_costs import PassCosts

T = TypeVar("T")


def price(
    graph: Graph, unit: Unit, hardware: Hardware | None = None, kept: KeptCosts | None = None, passes: PassCosts | None = None
) -> Costs:  # fmt: skip
    """Costs of every op of every segment; `hardware` replaces the spec's (sensitivities). `kept`: costs that plans of one model graph
    share, on the spec's hardware; `passes`: those that passes of the phase share."""
    hardware = hardware or unit.spec.hardware
    graph = graph if passes is None else passes.begin(graph)
    once = _each_time if passes is None else passes.once
    costs: dict[tuple[str, str], OpCost] = {}
    load = np.ones(1)
    distinct, dropped, error, absent = 0.0, 0.0, 0.0, 0.0
    numbered: float | WhenAsked = 1.0
    by_layer: dict[int, LayerLoad] = {}
    for segment in graph.segments:
        loads = {
            rows: once(("load", segment.name, rows), partial(ExpertLoad.of, graph, segment, rows, unit))
            for rows in routers(segment)
        }
        if loads:
            experts = max(loads.values(), key=lambda found: found.most)
            load, distinct = experts.in_mesh_order(experts.ranks.relative), experts.ranks.distinct
            numbered, dropped, error = experts.numbered, experts.ranks.dropped, experts.ranks.error
            absent = experts.ranks.lacking
            if unit.routing.layers:
                by_layer |= {own.layer: own for own in experts.by_layer}
        own = (
            None
            if kept is None or graph.the_mesh.apart is not None
            else kept.of(segment, graph.the_mesh, unit.phase, loads)
        )
        shared = own if passes is None or graph.the_mesh.apart is not None else passes.of(segment, graph.the_mesh)
        own_times = partial(_measured, segment, graph.the_mesh, unit, hardware, loads, shared)
        measured = once(("measured", segment.name), own_times, *loads.values())
        exchanges = exchanges_of(segment, unit, hardware)
        sides = {"": (hardware, measured, exchanges)}
        sides[AT_EXPERTS] = sides[""]
        link = unit.spec.expert_link(unit.phase)
        if link is not None:  # experts are in another pool
            there = unit.spec.experts_on(unit.phase)
            measured_there = _measured(segment, graph.the_mesh, unit, there, loads, shared)
            sides[AT_EXPERTS] = there, measured_there, exchanges_of(segment, unit, there)
        for op in segment.ops:
            rows = rows_of(op.dims)
            busy = loads[rows] if rows is not None else None
            here, known, calls = sides[op.on]
            found = known.get(op.name)
            cost = passes.known(("op", segment.name, op.name), busy, found) if passes is not None else None
            if cost is None:
                if op.is_copy:
                    make = partial(copy_cost, segment, op, graph.the_mesh, here.host_link, lacking(segment, op, loads))
                elif op.is_collective:
                    make = partial(collective_cost, segment, op, graph.the_mesh, here, busy, calls, own, link)
                else:
                    make = partial(_launched, segment, op, graph.the_mesh, unit, here, busy, found)
                    make = make if own is None else partial(own.compute, op, busy, found, make)
                cost = make() if op.is_copy else once(("op", segment.name, op.name), make, busy, found)
            costs[segment.name, op.name] = cost
    # Before collectives are there nothing is sent: ops alone have a price.
    sends = graph.level != "annotated"
    edges, tokens = stage_edges(graph, hardware) if sends else ((), NO_TRANSFER)
    layers = tuple(by_layer[layer] for layer in sorted(by_layer))
    return Costs(
        costs, edges, tokens, load, distinct, numbered, dropped, load_error=error, layers=layers, host_s=unit.phase.host_s,
        launched_s=launched_s(graph, unit.phase), lacking=absent, returns=stage_returns(graph, hardware) if sends else (),
    )  # fmt: skip


def _each_time(key: object, make: Callable[[], T], *given: object) -> T:
    """As `PassCosts.once` where nothing is shared."""
    return make()


def lacking(segment: Segment, op: Op, loads: Mapping[Rows, ExpertLoad]) -> Array | None:
    """Of copies of experts the share of a rank's that it needs and that its GPU does not hold; None for others."""
    if not isinstance(op.attrs, ExpertCopyAttrs):
        return None
    return loads[next(rows_with(segment, segment.weight[op.inputs[0]]))].missed


def launched_s(graph: Graph, phase: Phase) -> float:
    """Host time to launch the layers of the stage that has most of them; of a step under a CUDA graph none."""
    if phase.is_captured:
        return 0.0
    body = {segment.name for segment in graph.body}
    layers = max(sum(n for name, n in stage.layers if name in body) for stage in graph.stages)
    return layers * graph.microbatches * graph.lanes * phase.launches.layer_s


def _measured(
    segment: Segment, mesh: Mesh, unit: Unit, hardware: Hardware, loads: Mapping[Rows, ExpertLoad],
    kept: Kept | None,
) -> dict[str, Measured]:  # fmt: skip
    """Times of measured kernels, when the hardware names a calibration."""
    if unit.phase.training is not None:
        from .training.step_kernels import kernel_times

        return kernel_times(segment, mesh, unit.spec.model, unit.phase, hardware, loads)
    if hardware.calibration is None:
        return {}
    from .match import measured_times

    return measured_times(segment, mesh, unit.spec.model, unit.phase, hardware, loads, kept)


def exchanges_of(segment: Segment, unit: Unit, hardware: Hardware) -> Exchanges | None:
    """Measured collectives, when the hardware names a calibration."""
    if hardware.calibration is None:
        return None
    from ..calib import load
    from .exchange import Exchanges

    if unit.phase.training is not None:
        from .training.step_exchanges import TrainingExchanges

        return TrainingExchanges(segment, unit, hardware, load(hardware.calibration))
    return Exchanges(segment, unit, hardware, load(hardware.calibration))


def _launched(
    segment: Segment, op: Op, mesh: Mesh, unit: Unit, hardware: Hardware, experts: ExpertLoad | None,
    measured: Measured | None,
) -> OpCost:  # fmt: skip
    """With its launch, where the host launches each kernel."""
    apart = unit.phase.fuse == ()
    cost = _compute(segment, op, mesh, hardware, experts, measured, apart)
    launched = leads(segment, op) if op.kernel else measured is not None or not _rides(op, apart)
    if not unit.phase.cuda_graph and launched and cost.time_s.any():
        launched_s = hardware.launch_s * max(1, len(kernels_of(segment, op, mesh)))
        cost = replace(cost, time_s=cost.time_s + launched_s, launch_s=cost.launch_s + launched_s)
    return cost


def _compute(
    segment: Segment, op: Op, mesh: Mesh, hardware: Hardware, experts: ExpertLoad | None, measured: Measured | None,
    apart: bool = False,
) -> OpCost:  # fmt: skip
    """`apart`: no op rides in the kernel of another."""
    flops = local_flops(segment, op, mesh)
    moved = traffic(segment, op, mesh)
    work: float | Array = 1.0
    reads: float | Array = 1.0
    if experts is not None and op.scope == "experts":
        work, reads = experts.work, experts.reads
    share = uneven_share(segment, op, mesh)
    several = kernels_of(segment, op, mesh)
    moved_B = (moved.activations_B * work + moved.weights_B) + moved.expert_weights_B * reads
    peak = (
        hardware.peak_flops(_math_dtype(segment, op)) if OPS[op.kind].uses_tensor_cores else hardware.peak_flops("fp32")
    )
    launch = 0.0 if _rides(op, apart) else hardware.launch_s
    saved_s: float | Array = 0.0
    if op.kernel:
        inner_B = inner_bytes(segment, op, mesh) * work
        moved_B, saved_s = moved_B - inner_B, inner_B / (hardware.hbm_Bps * hardware.mbu)
        if not leads(segment, op):
            launch, saved_s = 0.0, saved_s + hardware.launch_s
    if several:
        return _in_turn(several, flops, peak, hardware, mesh)
    own_flops = flops * work if share is None else flops * work * share
    compute_s, memory_s = own_flops / (peak * hardware.mfu), moved_B / (hardware.hbm_Bps * hardware.mbu)
    time = _over_ranks(_longer(compute_s, memory_s) + launch, mesh)
    floor = _over_ranks(_longer(own_flops / peak, moved_B / hardware.hbm_Bps), mesh)
    bound, bytes_ = _bound(compute_s, memory_s), number(_most(moved_B))
    if measured is None:
        return OpCost(time, floor, bound, flops, bytes_, launch_s=launch)
    if op.kernel:
        # Nobody measured it in one kernel: it has what it took alone, but for what stays on the chip.
        least = np.minimum(measured.time_s, time - launch)
        measured = measured.at(np.maximum(measured.time_s - saved_s, least))
    return OpCost(
        measured.time_s, np.minimum(floor, measured.time_s), bound, flops, bytes_,
        family=measured.family, error=measured.error, outside=measured.outside, table=measured.table,
        instead_of=measured.instead_of,
    )  # fmt: skip


def _rides(op: Op, apart: bool) -> bool:
    """Whether an op has no kernel of its own; a view never has."""
    return OPS[op.kind].fused and (OPS[op.kind].local or not apart)


def _in_turn(
    kernels: tuple[tuple[float, float], ...], flops: float, peak: float, hardware: Hardware, mesh: Mesh
) -> OpCost:
    """Kernels one after the other, each at its own roofline and with a launch of its own. `flops`: what the op counts as."""
    time_s = floor_s = moved_B = 0.0
    bounds: dict[str, float] = {}
    for own_flops, own_B in kernels:
        compute_s, memory_s = own_flops / (peak * hardware.mfu), own_B / (hardware.hbm_Bps * hardware.mbu)
        time_s, moved_B = time_s + max(compute_s, memory_s), moved_B + own_B
        floor_s += max(own_flops / peak, own_B / hardware.hbm_Bps)
        bound = _bound(compute_s, memory_s)
        bounds[bound] = bounds.get(bound, 0.0) + number(max(compute_s, memory_s))
    launch_s = len(kernels) * hardware.launch_s
    bound = max(bounds, key=lambda name: bounds[name])
    return OpCost(
        _over_ranks(time_s + launch_s, mesh),
        _over_ranks(floor_s, mesh),
        bound,
        flops,
        number(moved_B),
        launch_s=launch_s,
    )


def _longer(a: Any, b: Any) -> Any:
    """Of numbers where all ranks have as much to do, else over the ranks."""
    return max(a, b) if isinstance(a, float) and isinstance(b, float) else np.maximum(a, b)


def _over_ranks(found: Any, mesh: Mesh) -> Array:
    alike = (1,) * len(mesh.atoms)
    made: Array = np.full(alike, found) if isinstance(found, float) else found
    return made.reshape(alike) if is_traced(made) else made


def _most(found: Any) -> Any:
    return found if isinstance(found, float) else found.max()


def _bound(compute_s: float | Array, memory_s: float | Array) -> str:
    found: str = larger(_most(compute_s), _most(memory_s), ("compute", "memory"))
    return found


def _math_dtype(segment: Segment, op: Op) -> str:
    """A matmul runs at the precision of its weight, or of what was quantised for it; attention at that of its activations."""
    weight = next((segment.dtype_of(n) for n in op.inputs if segment.is_weight(n)), "")
    if weight or not OPS[op.kind].product:
        return weight or op.dtype
    read = segment.dtype_of(op.inputs[0])
    return read if dtype(read).quantised else op.dtype
