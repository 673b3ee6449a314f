"""`dagc run`: the placed graph on real devices, on GPUs with measured times beside the estimates."""

from __future__ import annotations

import importlib.util
import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.diagnostics import Collector, Diagnostic, SpecError
from ..base.distribution import how_to_install
from ..base.frozen import replace
from .arguments import at_least, spec_arguments
from .common import put, settings, tell
from .writing import check_folder, write_all

if TYPE_CHECKING:
    from ..execute.torch.outcome import Options, Outcome
    from ..execute.torch.spans import Timeline
    from ..execute.twin import Twin
    from ..plan.plan import CompiledPlan
    from ..plan.trained import TrainingResult
    from ..spec.phase import Phase
    from ..spec.spec import Spec
    from ..spec.unit import Unit

NEGLIGIBLE_S = 1e-7
"""Of an estimate: ops that have no kernel of their own."""


class DoesNotFit(SpecError):
    """The plan needs more memory than its GPUs have: it is not run."""


def add_arguments(parser: ArgumentParser) -> None:
    spec_arguments(parser, "spec file")
    parser.add_argument("--engine", choices=("torch",), default="torch", help="what executes the graph")
    parser.add_argument("--full-dims", action="store_true", help="the model's own dims, not those of its small twin")
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="default: GPUs if there are enough; gloo on cpu, NCCL on cuda",
    )
    parser.add_argument(
        "--dtype", choices=("fp64", "fp32", "bf16", "fp16"), help="default: fp64; the model's at full dims"
    )
    parser.add_argument(
        "--repeat",
        type=at_least(1),
        default=3,
        metavar="N",
        help="timed passes, of which the median counts (default: 3)",
    )
    parser.add_argument(
        "--timeout",
        type=at_least(1, float),
        default=600.0,
        metavar="S",
        help="longest wait for another process, seconds (default: 600)",
    )
    parser.add_argument(
        "--trace",
        metavar="DIR",
        help="one more pass under PyTorch's profiler, a trace of each rank into DIR, and PHASE.timeline.pftrace with the measured "
        "beside the planned timeline",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")


def run(args: Namespace) -> int:
    from ..api.asked_specs import check_phases
    from ..execute.torch.processes import LaunchError, launched
    from ..optimize.own_gpus import refuse

    try:
        if args.spec == "-":
            raise SpecError([Diagnostic("E14", "`dagc run` starts processes that read the spec: it needs a file")])
        if importlib.util.find_spec(args.engine) is None:
            raise SpecError(
                [
                    Diagnostic(
                        "E16", f"`dagc run --engine {args.engine}` needs PyTorch", help=(how_to_install(args.engine),)
                    )
                ]
            )
        spec = load_spec(args)
        check_phases(spec, args.phase)
        known = (*spec.phases, *spec.trainings)
        chosen = [phase for phase in known if not args.phase or phase.name in args.phase]
        refuse(chosen, "dagc run", "`dagc verify` runs its ranks in NumPy")
        if args.trace is not None:
            check_folder(Path(args.trace))
        if not launched():
            return max(start(args, spec, phase) for phase in chosen)
        return max(work(args, spec, phase) for phase in chosen)
    except DoesNotFit as error:
        tell(error.diagnostics)
        return 1
    except SpecError as error:
        tell(error.diagnostics)
        return 2
    except LaunchError as error:
        tell([Diagnostic("E16", str(error))])
        return 2


def load_spec(args: Namespace) -> Spec:
    from ..base.syntax.input import folder_of, read_source
    from ..lang.load import load

    source = read_source(args.spec, args.allow_import)
    return load(source, Collector(), settings(args), folder_of(args.spec), args.allow_import)


def start(args: Namespace, spec: Spec, phase: Phase) -> int:
    """A local process for each GPU id of a phase."""
    from ..execute.torch.processes import device_of, spawn

    if args.device == "cuda":
        device_of(args.device, len(phase.gpus))
    if phase.training is None:
        plan_to_run(spec, phase, args.full_dims)  # an error is reported once, not by every process
    else:
        step_to_run(spec, phase, args.full_dims)
    own = ["run", args.spec, "--phase", phase.name, "--engine", args.engine, "--device", args.device]
    own += ["--repeat", str(args.repeat), "--timeout", str(args.timeout)]
    own += [f"--set={pair}" for pair in args.set]
    own += [f"--allow-import={folder}" for folder in args.allow_import]
    own += ["--dtype", args.dtype] if args.dtype else []
    own += [f"--trace={args.trace}"] if args.trace is not None else []
    own += [flag for flag, given in (("--full-dims", args.full_dims), ("--json", args.json)) if given]
    return spawn(own, len(phase.gpus))


def work(args: Namespace, spec: Spec, phase: Phase) -> int:
    """This process's part of the job."""
    from ..execute.torch.outcome import DTYPES, Options
    from ..execute.torch.processes import device_of

    processes = _from_environment("WORLD_SIZE")
    if processes != len(phase.gpus):
        message = f"phase `{phase.name}` has {len(phase.gpus)} GPUs, the job {processes} processes"
        raise SpecError(
            [Diagnostic("E16", message, help=("torchrun starts one process for each GPU id of the phase",))]
        )
    local = _from_environment("LOCAL_WORLD_SIZE") if "LOCAL_WORLD_SIZE" in os.environ else processes
    kind = spec.of(phase).hardware.kind
    device = device_of("cpu" if (args.device, kind) == ("auto", "cpu") else args.device, local)
    kinds = ("fp64",) if not args.full_dims else (spec.of(phase).model.dtype, "bf16")
    dtype = args.dtype or next(kind for kind in kinds if kind in DTYPES)
    trace = Path(args.trace) if args.trace is not None else None
    options = Options(device, dtype, args.repeat, not args.full_dims, args.timeout, trace)
    outcome = ran(spec, phase, options)
    if outcome is None:
        return 0
    if trace is not None and outcome.timeline is not None:
        write_timeline(outcome, outcome.timeline, trace)
    if args.json:
        from ..export.json import dumps

        put(dumps(outcome.to_json(), indent=True))
    else:
        print(table(outcome))
    return 0 if outcome.holds else 1


def ran(spec: Spec, phase: Phase, options: Options) -> Outcome | None:
    """What the first process of the job says."""
    if phase.training is None:
        from ..execute.torch.trial import run as measure

        plan, twin = plan_to_run(spec, phase, not options.check)
        return measure(plan, phase.name, options, twin)
    from ..execute.torch.training_trial import run_step

    result, unit, twin_of_it = step_to_run(spec, phase, not options.check)
    return run_step(result, unit, options, twin_of_it)


def write_timeline(outcome: Outcome, timeline: Timeline, folder: Path) -> None:
    """Raises SpecError with E05."""
    from ..export import perfetto
    from ..export.run_events import events

    path = folder / f"{outcome.phase}.timeline.pftrace"
    write_all({path: perfetto.written(events(timeline, outcome.device, outcome.planned))})
    told = (
        f"wrote {folder}: {outcome.phase}.rank0.json.gz and so on, of each rank; {path.name}, measured beside planned"
    )
    print(told, file=sys.stderr)


def _from_environment(name: str) -> int:
    """A number that torchrun, or whoever started the processes, sets."""
    text = os.environ[name]
    if not text.isdecimal() or not int(text):
        raise SpecError([Diagnostic("E16", f"{name} is {text!r}, not a number of processes")])
    return int(text)


def plan_to_run(spec: Spec, phase: Phase, full: bool) -> tuple[CompiledPlan, Twin | None]:
    """The phase alone, with its small twin unless it is run at the model's own dims."""
    from ..execute.prove import twin_of_phase
    from ..execute.twin import NoTwin

    plan = compiled(spec, phase)
    if full:
        return plan, None
    try:
        return plan, twin_of_phase(plan, phase.name)
    except NoTwin as error:
        raise no_twin(phase, error) from None


def step_to_run(
    spec: Spec, phase: Phase, full: bool
) -> tuple[TrainingResult, Unit, tuple[Twin, TrainingResult] | None]:
    """The same of a phase that trains."""
    from ..execute.step_twin import twin_of_step
    from ..execute.twin import NoTwin
    from ..spec.unit import Unit

    result, unit = compiled(spec, phase).trainings[phase.name], Unit(spec, phase)
    if full:
        return result, unit, None
    try:
        return result, unit, twin_of_step(result, unit)
    except NoTwin as error:
        raise no_twin(phase, error) from None


def no_twin(phase: Phase, error: Exception) -> SpecError:
    return SpecError([Diagnostic("E03", f"phase `{phase.name}` has no small twin: {error}", phase.span)])


def compiled(spec: Spec, phase: Phase) -> CompiledPlan:
    """The phase alone: its own errors come first. Raises DoesNotFit."""
    from ..pipeline.compile import compile_spec

    plan = compile_spec(replace(spec, requirements=()), Collector(), [phase.name], cures=True)
    if not plan.fits:
        raise DoesNotFit([d for d in plan.diagnostics if d.code == "E04"])
    return plan


def table(outcome: Outcome) -> str:
    """One line per class of op: measured against estimated on GPUs, and on a CPU its time alone."""
    checked = compared_words(outcome)
    alone = f"{outcome.device.replace('cuda', 'gpu').upper()} time ms"
    titles = ("measured ms", "estimated ms", "ratio") if outcome.compares else (alone,)
    lines = [
        f"{outcome.phase}: {outcome.ranks} processes on {outcome.device}, {outcome.dtype}; {checked}",
        "".join([f"{'class':<16}{'calls':>8}", *(f"{title:>14}" for title in titles)]),
    ]
    rows = [(c.name, str(c.calls), c.measured_s, c.estimated_s) for c in outcome.classes]
    rows.append(("one step" if outcome.training else "one pass", "", outcome.measured_s, outcome.estimated_s))
    for name, calls, measured, estimated in rows:
        ratio = f"{measured / estimated:.2f}" if estimated >= NEGLIGIBLE_S else "-"
        cells = (f"{measured * 1e3:.3f}", f"{estimated * 1e3:.3f}", ratio)[: len(titles)]
        lines.append("".join([f"{name:<16}{calls:>8}", *(f"{cell:>14}" for cell in cells)]))
    lines += step_lines(outcome)
    lines.append("ops run one after the other, none overlaps: in the plan's pass a class may hide behind another")
    if not outcome.compares:
        mine, other = ("CPU", "GPU") if outcome.device == "cpu" else ("GPU", "CPU")
        lines.append(f"the plan's times are a {other}'s: a {mine}'s say nothing about them")
    elif outcome.planned_dtype != outcome.dtype:
        lines.append(f"the estimates are of {outcome.planned_dtype} values, {outcome.dtype} ones ran: --dtype chooses")
    return "\n".join(lines)


def compared_words(outcome: Outcome) -> str:
    """What was compared with the whole model, and how near it is."""
    step = outcome.training
    if outcome.error is None:
        return "logits not compared" if step is None else f"loss {step.loss:.6g}, gradients not compared"
    word = "equal to" if outcome.error <= outcome.allowed else "differ from"
    near = f"error {outcome.error:.1e}, allowed {outcome.allowed:.0e}"
    if step is None:
        return f"logits {word} the whole model's: {near}" + ("" if outcome.same else "; other tokens are chosen")
    weights = "new weights too" if outcome.same else "new weights differ"
    return (
        f"loss and {step.weights} gradients {word} the whole model's: {near}; {weights}: error "
        f"{step.weight_error:.1e}, allowed {step.weight_allowed:.0e}"
        + (f"; first at {step.first}" if step.first else "")
    )


def step_lines(outcome: Outcome) -> list[str]:
    """How long each rank of a training step took, and waited for other stages; beside the estimate of its stage where that says something."""
    step = outcome.training
    if step is None:
        return []
    titles = ("step ms", "waited ms", *(("estimated ms", "waits ms") if outcome.compares else ()))
    lines = [
        f"{step.schedule}, {step.microbatches} micro-batch{'es' if step.microbatches > 1 else ''}; loss {step.loss:.6g}",
        "".join([f"{'rank':<8}{'GPU':>8}{'stage':>8}", *(f"{title:>14}" for title in titles)]),
    ]
    for rank in step.ranks:
        times = (rank.measured_s, rank.waited_s, rank.estimated_s, rank.estimated_waited_s)[: len(titles)]
        cells = [f"{time_s * 1e3:>14.3f}" for time_s in times]
        lines.append("".join([f"{rank.rank:<8}{rank.gpu:>8}{rank.stage:>8}", *cells]))
    return lines
