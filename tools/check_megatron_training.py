"""Read dagc's training scripts with Megatron-LM's own parser and checks, without a GPU.

python tools/check_megatron_training.py --megatron DIR [--folder DIR] [PLAN.moe ...]

DIR is a checkout of Megatron-LM, or its git directory. Makes an environment in --folder (default: build/engines), exports the plans (default: those of
engine_parsers/training_plans.py), and lets Megatron parse, check and resolve each script on the first node and the last. What it resolves has
to be what the plan says; beside it, its own formula of a step's FLOPs over the plan's. Exit 1 where it finds a fault, or resolves something else.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from check_engines import READERS, ROOT, answers
from engine_parsers.environments import checked_out, environment, megatron_version
from engine_parsers.training_plans import training_plans

import dagc
from dagc.engines.facts import facts
from dagc.export.engines.degrees import layout
from dagc.export.engines.megatron_training import NAME, training_files
from dagc.spec.unit import Unit


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megatron", type=Path, required=True, metavar="DIR")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "engines")
    parser.add_argument("specs", nargs="*", type=Path)
    given = parser.parse_args()
    chosen = [(p.stem, p.read_text()) for p in given.specs] or list(training_plans())
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    python = environment("megatron", "0.16.1", folder)
    package = checked_out(given.megatron, "megatron", folder)
    print(
        f"Megatron-LM {megatron_version(package, given.megatron)}, files for {facts(NAME).label}: {len(chosen)} plans"
    )
    asked: list[dict[str, Any]] = []
    counts = {"read as written": 0, "refused by dagc": 0, "faults": 0}
    for name, text in chosen:
        plan = dagc.compile_text(text)
        for phase in plan.trainings:
            try:
                (script,) = training_files(plan, phase, name).values()
            except dagc.SpecError as error:
                counts["refused by dagc"] += 1
                print(f"{name:<32} refused: {'; '.join(error.diagnostics[0].because)}")
                continue
            want = wanted(plan, phase)
            machine = {"gpus": 8, "memory_B": 85_520_000_000, "capability": [9, 0], "name": "NVIDIA H100"}
            for node in dict.fromkeys((0, len(want["gpus"]) // 8 - 1)):
                own = {"id": len(asked), "name": name, "script": script.decode(), "node": node, "machine": machine}
                asked.append({**own, "version": "", "wanted": want})
    assert READERS.exists()
    for answer in answers("megatron_training", asked, python, package):
        item = asked[answer["id"]]
        fault = answer.get("fault") or differs(item["wanted"], answer)
        counts["faults" if fault else "read as written"] += 1
        ratio = answer.get("flops", 0.0) / item["wanted"]["flops"]
        shown = " ".join(f"{k} {v}" for k, v in answer.items() if k not in ("id", "fault", "flops"))
        print(
            f"{item['name']:<32} {f'FAULT {fault}' if fault else f'{shown} FLOPs {ratio:.4f} of the plan'}", flush=True
        )
    print(", ".join(f"{n} {what}" for what, n in counts.items()))
    return 1 if counts["faults"] else 0


PRODUCTS = {"fp8": "hybrid tensorwise", "fp8_block": "e4m3 blockwise", "mxfp8": "e4m3 mxfp8", "nvfp4": "e2m1 nvfp4"}
"""Formats and recipes of products, as its config has them."""


def wanted(plan: dagc.Plan, phase: str) -> dict[str, Any]:
    """What has to come out, by the names that the reader has."""
    result = plan.trainings[phase]
    one = layout(result.graph, result.graph.the_mesh.the_gpus.ids, Unit(plan.spec, plan.spec.phase(phase)))
    degrees = {axis: one.degree[axis] for axis in ("tp", "pp", "dp", "sp")}
    experts = {axis: one.degree[axis] for axis in ("ep", "etp")} if one.moe else {}
    recompute, delayed = result.training.recompute, result.training.fp8_scaling == "delayed"
    return {
        **degrees,
        **experts,
        "chunks": result.steps.schedule.chunks,
        "microbatches": result.graph.microbatches,
        "shards_optimizer": result.training.zero > 0,
        "hides": result.training.overlap == "full",
        "recomputes": "full" if "full" in recompute else "selective" if recompute else "",
        "layers": sum(segment.repeat for segment in result.graph.body),
        "experts": one.spec.model.count("experts.count", 0),
        "gradients": {"fp32": "float32", "bf16": "bfloat16"}[result.training.gradient_dtype],
        "overlaps": result.training.exchange_overlap == "full",
        "products": "hybrid delayed" if delayed else PRODUCTS.get(result.training.matmul_dtype, ""),
        "stores": result.training.quantised_weights,
        "gpus": list(result.gpus),
        "flops": result.flops,
    }


def differs(want: Mapping[str, Any], answer: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} of the plan is {value}, not {answer[key]}"
        for key, value in want.items()
        if key not in ("gpus", "flops") and answer[key] != value
    )


if __name__ == "__main__":
    sys.exit(main())
