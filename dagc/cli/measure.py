"""`dagc measure`: time the kernels of a plan on this machine and compare them with their estimates."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.diagnostics import Diagnostic, SpecError
from ..base.distribution import how_to_install
from .arguments import at_least, common_arguments
from .common import compiled, tell
from .manner import live, say
from .writing import check_folder, seen_from, write_all

if TYPE_CHECKING:
    from ..measure.extract import PlanKernel
    from ..measure.jobs import Job
    from ..measure.timer import Result
    from ..measure.torch_device import TorchDevice
    from ..plan.plan import CompiledPlan

FITTED_GRID = 2
"""Steps of the grid under --fit: three shapes or so are too few for the constants of a kernel."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("spec", nargs="?", metavar="SPEC", help="spec file, - for standard input")
    common_arguments(parser)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--grid",
        type=at_least(0),
        metavar="N",
        help="also sizes times 2^-N ... 2^N around each (default: 0; with --fit 2)",
    )
    parser.add_argument("--samples", type=at_least(1), default=20, metavar="N", help="samples per kernel (default: 20)")
    parser.add_argument("--name", metavar="GPU", help="name of the device in the tables (default: the driver's)")
    parser.add_argument("--collectives", action="store_true", help="time the collectives instead, under torchrun")
    parser.add_argument("--fit", action="store_true", help="fit a calibration file to the tables (needs SciPy)")
    parser.add_argument(
        "--machine",
        metavar="FILE.moe",
        help="instead of a plan, what processes of this machine reach on its CPU, as a `hardware` section (kind = cpu)",
    )
    parser.add_argument("-o", "--output", default=".", metavar="DIR", help="where tables go (default: here)")


def run(args: Namespace) -> int:
    from ..spec.inference_alone import inference_phases

    try:
        _check(args)
        if args.machine is not None:
            return _machine(args)
        plan = compiled(args.spec, args)
        if plan is None:
            return 2
        inference_phases(plan.spec, args.phase, "`dagc measure` is")
        _check_pool(plan)
        device = _device(args.device)
        return _collectives(args, plan, device) if args.collectives else _compute(args, plan, device)
    except SpecError as error:
        tell(error.diagnostics)
        return 2


def _stop(message: str, *help: str) -> SpecError:
    return SpecError([Diagnostic("E16", message, help=help)])


def _check(args: Namespace) -> None:
    """Faults of the command line and missing packages are reported before anything is compiled or timed."""
    if find_spec("torch") is None:
        raise _stop("`dagc measure` needs PyTorch", how_to_install("torch"))
    if (args.machine is None) == (args.spec is None):
        message = "`dagc measure` takes a spec, or `--machine FILE.moe`"
        raise SpecError([Diagnostic("E14", message, help=("dagc measure SPEC", "dagc measure --machine cpu.moe"))])
    if args.machine is not None and not args.machine.endswith(".moe"):
        raise SpecError([Diagnostic("E14", "`--machine`: specs take a section from a file that ends in .moe")])
    if args.fit and find_spec("scipy") is None:
        raise _stop("`--fit` needs SciPy", how_to_install("fit"))


def _machine(args: Namespace) -> int:
    """Two processes, of which the first measures by itself too."""
    from ..execute.torch.processes import LaunchError, launched, spawn
    from ..measure.collectives import Ranks
    from ..measure.cpu_machine import machine, section

    path = Path(args.machine)
    if not launched():
        check_folder(path.absolute().parent)
        try:
            return spawn(["measure", f"--machine={args.machine}"], 2)
        except LaunchError as error:
            raise _stop(str(error)) from None
    ranks = Ranks(_device("cpu"))
    try:
        found = machine(ranks)
    finally:
        ranks.close()
    if found is not None:
        write_all({path: section(found, ranks.device.versions).encode()})
        say(f'wrote {path}; in a spec: hardware cpu from "{path}" {{ }}')
    return 0


def _check_pool(plan: CompiledPlan) -> None:
    """A machine has GPUs of one pool."""
    pools = sorted({result.hardware for result in plan.phases.values()})
    if len(pools) > 1:
        of_one = [name for name, result in plan.phases.items() if result.hardware == pools[0]]
        chosen = " ".join(f"--phase {name}" for name in of_one)
        message = f"the phases run on several pools of GPUs: {', '.join(pools)}"
        raise _stop(message, f"a machine has GPUs of one: `{chosen}` measures what runs on `{pools[0]}`")


def _device(kind: str) -> TorchDevice:
    from ..measure.torch_device import NoDevice, TorchDevice, TorchMissing

    try:
        return TorchDevice(kind)
    except TorchMissing as error:
        raise _stop(str(error), how_to_install("torch")) from None
    except NoDevice as error:
        raise _stop(str(error), "`--device cpu` times the kernels on the CPU") from None


def _steps(args: Namespace) -> int:
    return int(args.grid) if args.grid is not None else FITTED_GRID if args.fit else 0


def _compute(args: Namespace, plan: CompiledPlan, device: TorchDevice) -> int:
    from ..measure.extract import kernels
    from ..measure.jobs import neighbours
    from ..measure.timer import measure
    from ..measure.timing import Effort

    found = kernels(plan)
    jobs = neighbours([kernel.job for kernel in found if kernel.job is not None], _steps(args))
    progress = _Progress(len(jobs))
    results = measure(device, jobs, Effort(args.samples), progress.step)
    return _finish(args, plan, device, found, results)


def _collectives(args: Namespace, plan: CompiledPlan, device: TorchDevice) -> int:
    from ..measure.collectives import NotLaunched, Ranks
    from ..measure.extract import collectives
    from ..measure.jobs import Exchange, neighbours
    from ..measure.timing import Effort

    found = collectives(plan)
    jobs = neighbours([kernel.job for kernel in found if kernel.job is not None], _steps(args))
    try:
        ranks = Ranks(device)
    except NotLaunched as error:
        launch = "torchrun --nproc-per-node N -m dagc measure SPEC --collectives"
        raise _stop(str(error), launch) from None
    try:
        results = ranks.measure([job for job in jobs if isinstance(job, Exchange)], Effort(args.samples))
        return _finish(args, plan, device, found, results) if ranks.rank == 0 else 0
    finally:
        ranks.close()


def _finish(
    args: Namespace, plan: CompiledPlan, device: TorchDevice, found: list[PlanKernel], results: list[Result]
) -> int:
    """Tables, report and, if asked for, the calibration."""
    from ..measure import csv_tables
    from ..measure.summary import report

    gpu = args.name or device.slug
    folder = Path(args.output)
    by_job: dict[Job, Result] = {result.job: result for result in results}
    title = f"{device.name}, " + ", ".join(f"{name} {value}" for name, value in device.versions.items() if value)
    sys.stdout.write(report(found, by_job, title))
    tables = csv_tables.rows(results, gpu, device.name, device.versions)
    try:
        files = {folder / name: csv_tables.merged(folder / name, rows) for name, rows in tables.items()}
    except (OSError, ValueError) as error:
        raise _stop(str(error)) from None
    write_all(files)
    for path in files:
        say(f"wrote {path}")
    return _fit(args, plan, device, gpu, folder) if args.fit else 0


def _fit(args: Namespace, plan: CompiledPlan, device: TorchDevice, gpu: str, folder: Path) -> int:
    from ..calib.fitting.tables import TableError
    from ..measure.calibrate import calibrate

    how = {"device": device.name, **device.versions}
    hardware = next(iter(plan.units.values())).spec.hardware
    try:
        fitted = calibrate(folder, gpu, hardware, device.processors, how)
    except TableError as error:
        raise _stop(str(error)) from None
    print("fitted:", *fitted.lines, sep="\n")
    if not fitted.text:
        raise _stop("no kernel has enough rows to fit", "a larger --grid measures more")
    path = folder / f"{gpu}.json"
    write_all({path: fitted.text.encode()})
    say(f'wrote {path}; in a spec: hardware {{ calibration = "{seen_from(args.spec, path)}" }}')
    return 0


class _Progress:
    """One line on standard error, on a terminal only."""

    def __init__(self, count: int) -> None:
        self.count, self.at = count, 0
        self.shown = live()

    def step(self, result: Result) -> None:
        self.at += 1
        if self.shown:
            end = "\n" if self.at == self.count else ""
            print(f"\r{self.at} of {self.count} kernels", end=end, file=sys.stderr, flush=True)
