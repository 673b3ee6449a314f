"""`dagc preflight`: whether machines are what a spec says they are, before anything is deployed."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..base.diagnostics import Diagnostic, SpecError
from ..base.files import Unreadable
from ..base.frozen import replace
from .arguments import at_least, percent, spec_arguments
from .common import compiled, put, settings, tell, width
from .manner import color, manner

if TYPE_CHECKING:
    from ..measure.preflight.inventory import Machine
    from ..measure.preflight.wanted import Wanted
    from ..plan.plan import CompiledPlan

LIMIT_S = 120.0
"""Of the exchange: PyTorch and NCCL need most of it to start."""
TOLERANCE = 25.0


def add_arguments(parser: ArgumentParser) -> None:
    spec_arguments(parser)
    parser.add_argument(
        "--device",
        choices=("gpu", "cpu"),
        default="gpu",
        help="cpu: GPUs are not looked for (default: gpu, of the spec's vendor)",
    )
    parser.add_argument("--pool", metavar="POOL", help="of several pools of GPUs, the one that the machines are of")
    parser.add_argument(
        "--read",
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="judge what was found elsewhere: what --json printed, or nvidia-smi and rocm-smi",
    )
    parser.add_argument("--weights", metavar="DIR", help="where weights are to be (default: Hugging Face's cache)")
    parser.add_argument(
        "--exchange",
        type=at_least(1, float),
        nargs="?",
        const=LIMIT_S,
        metavar="SECONDS",
        help=f"time a short exchange between the GPUs, for at most so long (default: {LIMIT_S:g}; needs PyTorch)",
    )
    parser.add_argument(
        "--tolerance",
        type=percent,
        default=TOLERANCE,
        metavar="PERCENT",
        help=f"how much longer than its estimate an exchange may take (default: {TOLERANCE:g})",
    )
    parser.add_argument("--strict", action="store_true", help="exit 1 also where something was not checked")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: Namespace) -> int:
    from ..measure.preflight.preflight_report import plain, text
    from ..measure.preflight.verdicts import FAILED, UNKNOWN, Check, assigned, of_pool
    from ..measure.preflight.wanted import wanted
    from ..spec.inference_alone import inference_phases

    try:
        _check(args)
        read = _read(args)
        plan = _plan(args)
        if plan is None:
            return 2
        inference_phases(plan.spec, args.phase, "`dagc preflight` is")
        pools = _chosen(wanted(plan), args.pool)
        machines = read or [_here(args, pools)]
        groups, rest = assigned(pools, machines)
    except SpecError as error:
        tell(error.diagnostics)
        return 2
    looked = args.device == "gpu"
    checks = [one for pool, own in groups for one in of_pool(pool, own, args.tolerance / 100, gpu=looked)]
    why = "its GPUs are those of no pool, or of several: `--pool` says which"
    checks += [Check("", "host", UNKNOWN, why=why, hosts=(machine.host,)) for machine in rest]
    failed, unknown = (sum(one.verdict == word for one in checks) for word in (FAILED, UNKNOWN))
    code = 1 if failed or (args.strict and unknown) else 0
    if args.json:
        put((json.dumps(plain(checks, machines, code == 0), indent=1) + "\n").encode())
    else:
        from ..view.report.terminal_text import Paint

        lines = text(args.spec, pools, checks, machines, Paint(color(sys.stdout), width(sys.stdout)))
        print(lines[-1] if manner().quiet else "\n".join(lines))
    return code


def _plan(args: Namespace) -> CompiledPlan | None:
    """The phases; None after their errors were printed. Requirements and servings say nothing of a machine. Raises SpecError."""
    if args.spec.endswith(".json"):
        return compiled(args.spec, args)
    from ..base.diagnostics import Collector
    from ..base.syntax.input import folder_of, read_source
    from ..lang.load import load
    from ..pipeline.compile import compile_spec

    source, out = read_source(args.spec, args.allow_import), Collector()
    spec = load(source, out, settings(args), folder_of(args.spec), args.allow_import)
    return compile_spec(replace(spec, requirements=(), serves=()), out, args.phase or None)


def _stop(message: str, *help: str) -> SpecError:
    return SpecError([Diagnostic("E14", message, help=help)])


def _check(args: Namespace) -> None:
    """Before anything is compiled. Raises SpecError."""
    from importlib.util import find_spec

    from ..base.distribution import how_to_install

    if args.read and (args.exchange or args.weights):
        option = "--exchange" if args.exchange else "--weights"
        raise _stop(f"`{option}` is of this machine, `--read` of others", "run `dagc preflight SPEC --json` on each")
    if args.exchange and find_spec("torch") is None:
        raise SpecError([Diagnostic("E16", "`--exchange` needs PyTorch", help=(how_to_install("torch"),))])


def _chosen(pools: Sequence[Wanted], name: str | None) -> list[Wanted]:
    """Raises SpecError for a pool that no phase uses."""
    if name is None:
        return list(pools)
    found = [one for one in pools if one.pool == name]
    if not found:
        raise _stop(f"no phase is on a pool `{name}`", f"pools in use: {', '.join(one.pool for one in pools)}")
    return found


def _read(args: Namespace) -> list[Machine]:
    from ..measure.preflight.elsewhere import machines
    from ..measure.preflight.inventory import Misread

    try:
        found = machines(args.read, args.allow_import)
    except Unreadable as error:
        raise SpecError([Diagnostic("E05", f"cannot read {error}", help=error.help)]) from None
    except Misread as error:
        raise SpecError([Diagnostic("E05", str(error))]) from None
    names = [machine.host for machine in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SpecError([Diagnostic("E05", f"two machines are called `{twice}`: one host must not count twice")])
    return found


def _here(args: Namespace, pools: Sequence[Wanted]) -> Machine:
    """This machine, and what its GPUs exchanged if that is asked for. Raises SpecError where that does not start."""
    from ..measure.preflight.gpu_exchange import NotExchanged, exchanged
    from ..measure.preflight.probe import found

    looked = args.device == "gpu" and pools[0].hardware.kind == "gpu"
    machine = found(pools[0].hardware.vendor if looked else "", args.weights)
    if not args.exchange:
        return machine
    pool = pools[0]
    device = "cuda" if looked else "cpu"
    ranks = min(pool.gpus, len(machine.gpus)) if looked else min(pool.gpus, 4)
    try:
        if ranks < 2:
            raise NotExchanged("it needs two GPUs")
        return replace(machine, exchange_on=device, exchange=exchanged(pool, ranks, device, float(args.exchange)))
    except NotExchanged as error:
        return replace(machine, missing=(*machine.missing, f"exchange: {error}"))
