"""`dagc survive`: the plan that goes on after GPUs were lost."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.diagnostics import Collector, Diagnostic, SpecError
from ..base.units import BYTES, TIME, show, show_runs
from .arguments import allow_import_arguments, at_least
from .common import put, settings, stem, tell, width
from .writing import check_folder, write_all

if TYPE_CHECKING:
    from ..execute.prove import Proof
    from ..lang.open_spec import OpenSpec
    from ..optimize.survive import Kept, Stopped, Survival
    from ..pipeline.moved import Moved
    from ..spec.phase import Phase

Proofs = dict[int, list["Proof"]]
SCHEMA = 1


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("spec", metavar="SPEC", help="spec file, - for standard input")
    parser.add_argument(
        "--lose",
        action="append",
        default=[],
        metavar="WHAT",
        help="gpu:17, gpu:8..11 or node:3, of one of several pools POOL.gpu:17 (repeatable)",
    )
    parser.add_argument("--set", action="append", default=[], metavar="K=V", help="value of a param (repeatable)")
    parser.add_argument(
        "--top", type=at_least(1), default=3, metavar="N", help="plans to print (default: 3, at most 8)"
    )
    parser.add_argument("--verify", action="store_true", help="prove the lowering of every plan that is printed")
    parser.add_argument("-o", "--output", metavar="DIR", help="write the best plan there, as a spec")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    allow_import_arguments(parser)


def run(args: Namespace) -> int:
    from ..optimize.lost import lost_gpus
    from ..optimize.own_gpus import refuse
    from ..optimize.survive import survive
    from ..spec.inference_alone import inference_phases

    try:
        if not args.lose:
            help = ("dagc survive SPEC --lose gpu:17",)
            raise SpecError([Diagnostic("E14", "nothing is lost", help=help)])
        opened = read(args)
        inference_phases(opened.spec, (), "`dagc survive` is")
        refuse(opened.spec.phases, "dagc survive", "`dagc compile` judges the plan on other `gpus`")
        if args.output:
            check_folder(Path(args.output))
        found = survive(opened, lost_gpus(args.lose, opened.spec), top=int(args.top))
        proofs: Proofs = {k: proved(one) for k, one in enumerate(found.plans)} if args.verify else {}
        path = write(args, opened, found)
    except SpecError as error:
        tell(error.diagnostics)
        return 2
    if args.json:
        put((json.dumps(plain(found, proofs), indent=1) + "\n").encode())
    else:
        from ..view.report.terminal_text import narrow

        print(
            "\n".join(
                [*narrow(text(args.spec, found, proofs), width(sys.stdout)), *([f"wrote {path}"] if path else [])]
            )
        )
    if found.unchanged:
        return 0
    plans = found.plans
    held = bool(plans) and not plans[0].broken and not plans[0].unsaid
    return 0 if held and all(proof.holds for of in proofs.values() for proof in of) else 1


def read(args: Namespace) -> OpenSpec:
    """The spec. Raises SpecError, also where it leaves something open."""
    from ..base.syntax.input import folder_of, read_source
    from ..lang.load import load
    from ..lang.open_spec import load_open

    source = read_source(args.spec, args.allow_import)
    given = (settings(args), folder_of(args.spec), args.allow_import)
    load(source, Collector(), *given)  # which says what an open spec is not for
    return load_open(source, Collector(), *given)


def proved(one: Kept) -> list[Proof]:
    """The proof of every phase that changes."""
    from ..execute.prove import prove_small

    return [prove_small(one.plan, phase.name) for phase in one.phases]


def write(args: Namespace, opened: OpenSpec, found: Survival) -> Path | None:
    """The best plan, where it is asked for and there is one."""
    from ..optimize.survive import written

    if not args.output or not (found.plans or found.unchanged):
        return None
    path = Path(args.output) / f"{stem(args.spec)}.survivor.moe"
    data = written(opened, found.plans[0].phases if found.plans else ())
    write_all({path: data.encode()})
    return path


def text(name: str, found: Survival, proofs: Proofs) -> list[str]:
    """The report, line by line."""
    plans = found.plans
    lines = [f"{name} without {gpus_words(found.lost)}"]
    if found.unused:
        lines.append(f"no phase uses {gpus_words(found.unused)}")
    if found.unchanged:
        return [*lines, "the plan goes on unchanged"]
    held = sum(v.passed for v in found.verdicts)
    before = f"before: {held} of {len(found.verdicts)} requirements on phases hold, " if found.verdicts else "before: "
    lines.append(f"{before}{found.headroom:.1%} of the fullest GPU is free")
    for stopped in found.stopped:
        lines += stopped_lines(stopped)
    for one in plans[0].lost if plans else ():
        lines.append(
            f"{one.phase}: the cache of {one.sequences:,} of {one.of:,} sequences is lost, {show(one.kv_B, BYTES)}"
        )
    for k, plan in enumerate(plans):
        lines += ["", *plan_lines(k, plan, found, proofs)]
    return lines


def gpus_words(gpus: Mapping[str, tuple[int, ...]]) -> str:
    """`GPUs 8..15`, of several pools `GPU 3 of fast and GPU 17 of slow`"""
    parts = []
    for pool, ids in gpus.items():
        of = f" of {pool}" if pool else ""
        parts.append(f"GPU{'s' if len(ids) > 1 else ''} {show_runs(ids, most=8)}{of}")
    return " and ".join(parts)


def plan_lines(k: int, one: Kept, found: Survival, proofs: Proofs) -> list[str]:
    """A plan that goes on."""
    from ..optimize.survive import phase_words

    kept = ", ".join(f"{name} {share:.1%}" for name, share in one.kept.items())
    lines = [f"{k + 1}. {one.kind}: keeps {kept} of the throughput"]
    lines += [f"   {p.name}: {phase_words(p)}{batch(p)}, gpus = [{show_runs(p.gpus, most=6)}]" for p in one.phases]
    restarted = ", ".join(f"{of.phase} {of.restarted:,} of {of.of:,}" for of in one.lost)
    lines.append(f"   sequences that begin anew: {restarted}; {one.headroom:.1%} of the fullest GPU is free")
    lines.append(f"   weights to fetch: {fetched(one)}")
    if one.idle:
        lines.append(f"   left without work: {len(one.idle)} GPUs ({show_runs(one.idle, most=6)})")
    if one.broken or one.unsaid:
        lines += [f"   does not hold any more: {label}" for label in one.broken]
        lines += [f"   cannot be asked of it: {label}" for label in one.unsaid]
    elif one.verdicts:
        lines.append(
            "   every requirement that held does"
            + ("" if one.served or not found.spec.serves else ", servings not simulated")
        )
    lines += [f"   proof of {proof.phase}: {proof.verdict} on {proof.ranks} ranks" for proof in proofs.get(k, ())]
    return lines


def batch(phase: Phase) -> str:
    return "" if phase.parts else f", {phase.sequences:,} sequence{'' if phase.sequences == 1 else 's'}"


def fetched(one: Kept) -> str:
    """`at least 2.555 GB to 1 GPU in 51.1 ms; 1.088 TB to 143 GPUs in 153.3 ms with experts balanced as they are priced`"""
    least, balanced = one.least_moved, one.moved
    words = f"at least {fetched_words(least)}" if least.total_B else "none" if not balanced.total_B else "at least none"
    return (
        words if balanced == least else f"{words}; {fetched_words(balanced)} with experts balanced as they are priced"
    )


def fetched_words(moves: Moved) -> str:
    stored = f", {show(moves.storage_B, BYTES)} of it from storage" if moves.storage_B else ""
    gpus = f"{moves.fetching} GPU{'s' if moves.fetching > 1 else ''}"
    return f"{show(moves.total_B, BYTES)} to {gpus} in {show(moves.time_s, TIME)}{stored}"


def stopped_lines(stopped: Stopped) -> list[str]:
    """Phases that cannot go on, and why."""
    from ..optimize.layouts import layout_words

    names = " and ".join(stopped.phases)
    lines = [
        "",
        f"{names} cannot go on with the {stopped.left} GPU{'' if stopped.left == 1 else 's'} that {'is' if stopped.left == 1 else 'are'} left",
    ]
    lines += [f"   {kind}: {why}" for kind, why in stopped.refused]
    need = stopped.fewest
    if need is not None and need.layout:
        lines.append(
            f"   it takes {need.gpus} GPU{'' if need.gpus == 1 else 's'} to hold one sequence each: {layout_words(need.layout[0])}"
        )
        lines += [
            f"   {need.gpus - 1}: {rule.count} layouts by {rule.rule}, e.g. {rule.example}" for rule in need.fewer[:3]
        ]
    elif need is not None:
        lines.append(f"   no layout on up to {need.most} GPUs of this pool holds one sequence each")
    return lines


def plain(found: Survival, proofs: Proofs) -> dict[str, Any]:
    """The same as data, SI units; its schema is `survive.schema.json` of dagc.export."""
    return {
        "schema": SCHEMA,
        "lost": {pool: list(ids) for pool, ids in found.lost.items()},
        "unused": {pool: list(ids) for pool, ids in found.unused.items()},
        "phases": list(found.touched),
        "headroom": found.headroom,
        "requirements": [{"label": v.requirement.label, "passed": v.passed} for v in found.verdicts],
        "plans": [plan_object(one, proofs.get(k, ())) for k, one in enumerate(found.plans)],
        "stopped": [
            {
                "phases": list(one.phases),
                "left": one.left,
                "refused": dict(one.refused),
                "gpus_needed": one.fewest.gpus if one.fewest is not None and one.fewest.layout else None,
            }
            for one in found.stopped
        ],
        "tried": found.tried,
    }


def plan_object(one: Kept, proofs: Any) -> dict[str, Any]:
    from ..optimize.layouts import layout_words

    return {
        "kind": one.kind,
        "phases": {
            p.name: {
                "gpus": list(p.gpus),
                "layout": layout_words(p),
                "sequences": p.sequences,
                "time_s": one.plan.phases[p.name].time_s,
                "throughput_tok_s": one.plan.phases[p.name].throughput_tok_s,
                "kept": one.kept[p.name],
            }
            for p in one.phases
        },
        "kept": one.share,
        "headroom": one.headroom,
        "lost": {
            of.phase: {"sequences": of.sequences, "of": of.of, "kv_B": of.kv_B, "restarted": of.restarted}
            for of in one.lost
        },
        "fetched": {"least": moved_object(one.least_moved), "balanced": moved_object(one.moved)},
        "idle": list(one.idle),
        "broken": list(one.broken),
        "unsaid": list(one.unsaid),
        "servings_simulated": one.served,
        "proofs": {proof.phase: proof.verdict for proof in proofs},
    }


def moved_object(moves: Moved) -> dict[str, Any]:
    return {
        "node_B": moves.node_B,
        "cluster_B": moves.cluster_B,
        "pools_B": moves.pools_B,
        "storage_B": moves.storage_B,
        "time_s": moves.time_s,
        "gpus": moves.fetching,
        "experts_lost": moves.experts,
    }
