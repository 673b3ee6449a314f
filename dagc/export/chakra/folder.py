"""Write the traces of a phase: a directory with one file per rank, never more than one rank in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from ...base.diagnostics import Diagnostic, SpecError
from ...base.frozen import record
from ...cost.records import value_at
from ...plan.plan import CompiledPlan
from ...plan.trained import TrainingResult
from ...view.facts.size import MOST_STREAMED, check_size, check_step_size
from ..json import dumps
from . import configs
from . import messages as schema
from .image import Encoder, Image, Templates, encoded
from .pass_program import PassProgram
from .rank_program import FIRST_ID, RankProgram
from .ranks import Hole, Placed, Ranks
from .simulated import nearest
from .step_program import StepProgram
from .trace_rows import Context, Pattern, TraceLayer, TraceNode, Words

Position = tuple[int, ...]
"""[stage, *mesh] of a rank."""
Widths = tuple[tuple[Hole, int], ...]


@record(slots=False)
class RankClass:
    """Ranks whose files differ in nothing but which groups and peers they name. `widths`: bytes of each such value."""

    stage: int
    widths: Widths
    members: tuple[tuple[int, Position, dict[Hole, int]], ...]


def classes(result: Placed, ranks: Ranks) -> Iterator[RankClass]:
    """Equal ranks: of one stage, of equal times, and with values of their own that take equally many bytes."""
    mesh = result.graph.the_mesh
    long = {
        axis
        for cost in result.costs.ops.values()
        for axis, size in enumerate(np.broadcast_shapes(cost.time_s.shape, (1,) * len(mesh.shape)))
        if size > 1
    }
    groups: dict[tuple[int, Position, Widths], list[tuple[int, Position, dict[Hole, int]]]] = {}
    for at in np.ndindex(ranks.number.shape):
        holes = ranks.holes(at)
        widths = tuple((key, len(encoded(key, value))) for key, value in holes.items())
        alike = (at[0], tuple(at[1 + axis] for axis in sorted(long)), widths)
        groups.setdefault(alike, []).append((int(ranks.number[at]), at, holes))
    return (RankClass(stage, widths, tuple(members)) for (stage, _, widths), members in groups.items())


def program(ranks: Ranks, stage: int, holes: Mapping[Hole, int], first_B: int = 1) -> RankProgram:
    """What the ranks of a stage run."""
    made = StepProgram if isinstance(ranks.result, TrainingResult) else PassProgram
    return made(ranks, stage, holes, first_B)


def image(ranks: Ranks, alike: RankClass, templates: Templates | None = None) -> Image:
    """The file of some equal ranks, without what is each rank's own. Templates serve all of equal stage and widths."""
    result, at = ranks.result, alike.members[0][1]
    templates = templates or Templates(program(ranks, alike.stage, dict(alike.widths)))
    times = {key: value_at(cost.time_s, at[1:]) for key, cost in result.costs.ops.items()}
    times |= templates.program.other_times()
    return Encoder(templates, times).encode(templates.program.rows())


def idle(ranks: Ranks, first_B: int) -> memoryview:
    """The file of a rank that the phase leaves idle: one node of no work, since a file must have one to begin with."""
    work = schema.attribute("num_ops", "int64", 1) + schema.attribute("tensor_size", "uint64", first_B)
    none = Context(((),), (), ())
    pattern = Pattern((TraceNode(Words(("idle",)), schema.COMP, "compute", (), (), None, 0, work),), none)
    return Encoder(Templates(program(ranks, 0, {})), {}).encode([TraceLayer(pattern, FIRST_ID, (), 0, 0, 0)]).data.data


def traces(result: Placed, ranks: Ranks, first_B: int = 1) -> Iterator[tuple[int, memoryview]]:
    """The file of each rank, in no order of ranks. A view is good until the next one is asked for. `first_B`: as a program's."""
    shared: dict[tuple[int, Widths], Templates] = {}
    for alike in classes(result, ranks):
        key = (alike.stage, alike.widths)
        if key not in shared:
            shared[key] = Templates(program(ranks, alike.stage, dict(alike.widths), first_B))
        made = image(ranks, alike, shared[key])
        for rank, _, holes in alike.members:
            yield rank, made.write_over(holes)
    for rank in (rank for rank, gpu in enumerate(ranks.network.gpus.tolist()) if gpu < 0):
        yield rank, idle(ranks, first_B)


def folder(plan: CompiledPlan, phase: str, *, target: Path) -> dict[str, Callable[[Path], None]]:
    """What fills the folder that will be called `target`. Raises SpecError for a name that the simulator cannot read."""
    check_name(target)
    if phase not in plan.trainings and plan.phases[phase].takes_turns:
        message = f"Chakra traces have no collective from `{phase}`'s attention to experts on GPUs of their own"
        because = ("its collectives are among one group of ranks, all of which do the same",)
        help = ("`--emit perfetto` and `--emit json` have what goes across",)
        raise SpecError([Diagnostic("E05", message, plan.units[phase].phase.span, because=because, help=help)])
    if phase not in plan.trainings and plan.phases[phase].graph.copies:
        message = f"Chakra traces have no copies between the GPUs of `{phase}` and their hosts"
        because = ("its simulator knows no links of hosts",)
        help = ("`--emit perfetto` and `--emit json` have these copies",)
        raise SpecError([Diagnostic("E05", message, plan.units[phase].phase.span, because=because, help=help)])
    return {"chakra": partial(write, plan, phase, name=target.name)}


def write(plan: CompiledPlan, phase: str, directory: Path, name: str) -> None:
    """Everything that the simulator needs for one phase, into an empty directory that will have this name."""
    hardware = plan.spec.of(plan.spec.phase(phase)).hardware
    if phase in plan.trainings:
        result: Placed = plan.trainings[phase]
        check_step_size(plan.trainings[phase], "the traces", MOST_STREAMED)
    else:
        result = plan.phases[phase]
        check_size(plan.phases[phase], "the traces", MOST_STREAMED)
    ranks = Ranks(result)
    for rank, data in traces(result, ranks, configs.first_B(hardware)):
        (directory / f"rank.{rank}.et").write_bytes(data)
    given = configs.links_of(ranks.network, hardware)
    found = nearest(result, ranks, hardware, given)
    systems = (configs.system(found.algorithms, hardware, roofline=roofline) for roofline in (False, True))
    small = {
        "groups.json": dumps(configs.groups(ranks), indent=True),
        "network.yml": configs.network_text(ranks.network, found.links).encode(),
        "memory.json": dumps(configs.MEMORY, indent=True),
        **{
            name: dumps(one, indent=True)
            for name, one in zip(("system.json", "system.roofline.json"), systems, strict=True)
        },
    }
    if found.links != given:
        small["network.datasheet.yml"] = configs.network_text(ranks.network, given).encode()
    gpus = [gpu if gpu >= 0 else None for gpu in ranks.network.gpus.tolist()]
    small["ranks.json"] = dumps(
        {
            "schema": 2,
            "phase": phase,
            **simulated_s(result),
            "gpus": gpus,
            "command": configs.command(name, "system.json"),
        },
        indent=True,
    )
    for name, content in small.items():
        (directory / name).write_bytes(content)


def simulated_s(result: Placed) -> dict[str, float]:
    """`pass_s`: what is simulated, by dagc's own estimate; `steady_s`: from one to the next, where stages overlap them."""
    if isinstance(result, TrainingResult):
        return {"pass_s": result.time_s, "steady_s": result.time_s}
    return {"pass_s": result.schedule.latency_s, "steady_s": result.schedule.period_s}


def check_name(directory: Path) -> None:
    """The simulator takes a path of communicator groups with `empty` in it for none at all. Raises SpecError."""
    if "empty" in str(directory):
        message = f"ASTRA-sim would ignore the communicator groups in `{directory}`"
        because = ("it treats a path that contains `empty` as no path",)
        raise SpecError([Diagnostic("E05", message, because=because, help=("choose another name with -o",))])
