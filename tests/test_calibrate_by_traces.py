"""dagc compare --calibrate: a plan's calibration with what traces show of its kernels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import spec_text

import dagc
from dagc.api import Plan
from dagc.cli import main
from dagc.observe.gemm_shapes import product_of
from dagc.observe.matching.planned_calls import PlannedCalls
from dagc.observe.rank_trace import Product

SPEC = """moe 1
hardware pool from "h100-sxm" {{ gpus = 8{more} }}
model m from "mixtral-8x7b"
workload {{ sequences = 16, prompt = 1024 tok, output = 16 tok }}
phase prefill {{ gpus = 0..3, tp = 4, engine = vllm }}
"""
SLOWER = {"all_reduce": 1.3, "gemm": 1.5}
PRODUCTS = {("sparse", "gqa.q"), ("sparse", "gqa.y")}
DTYPES = {2.0: "BFloat16", 8.0: "Long"}


def of(more: str = "") -> Plan:
    return dagc.compile_text(SPEC.format(more=more))


def product_sizes(plan: Plan, name: tuple[str, str]) -> tuple[int, int, int]:
    from dagc.measure.extract import kernels

    (found,) = [k for k in kernels(plan) if (k.segment, k.ops) == (name[0], (name[1],))]
    assert found.job is not None
    job: Any = found.job
    return job.m, job.n, job.k


def traces(folder: Path, plan: Plan, shapes: bool = True) -> list[Path]:
    """Of each rank: its all-reduces, 1.3 times slower than planned, for which ranks wait unequally, and a product 1.5 times slower."""
    result = plan.phases["prefill"]
    m, n, k = product_sizes(plan, ("sparse", "gqa.y"))
    product_s = float(result.costs.ops["sparse", "gqa.y"].time_s.max()) * SLOWER["gemm"]
    paths = []
    for rank in range(4):
        events: list[dict[str, Any]] = []
        at = 1000.0
        for number, call in enumerate(PlannedCalls(result).of(rank)):
            elements = round(call.elements)
            said = {
                "Collective name": "allreduce", "In msg nelems": elements, "Out msg nelems": elements, "dtype": DTYPES[call.each_B],
                "Group size": 4, "Process Group Ranks": "[0, 1, 2, 3]", "stream": 7, "External id": 10 * number + 1,
            }  # fmt: skip
            took = call.time_s * SLOWER["all_reduce"] * 1e6
            waits = 1e3 * ((rank + number) % 4)
            name = "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(x)"
            events.append({"ph": "X", "cat": "kernel", "name": name, "ts": at, "dur": took + waits, "args": said})
            at += took + 5e3
            dims = {"Input Dims": [[m, k], [k, n]], "Input type": ["c10::BFloat16", "c10::BFloat16"]} if shapes else {}
            id_ = {"External id": 10 * number + 2}
            events.append({"ph": "X", "cat": "cpu_op", "name": "aten::mm", "ts": at, "dur": 5, "args": {**dims, **id_}})
            halves = [("nvjet_tst", 0.75), ("splitKreduce_kernel", 0.25)]
            for kernel, share in halves:
                took = product_s * 1e6 * share
                events.append(
                    {"ph": "X", "cat": "kernel", "name": kernel, "ts": at, "dur": took, "args": {"stream": 7, **id_}}
                )
                at += took
        path = folder / f"rank{rank}.json"
        info = {"rank": rank, "world_size": 4}
        path.write_text(json.dumps({"distributedInfo": info, "traceEvents": events}))
        paths.append(path)
    return paths


def test_the_plan_with_the_calibration_has_the_times_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, before = tmp_path / "p.moe", of()
    spec.write_text(SPEC.format(more=""))
    paths = traces(tmp_path, before)
    file = tmp_path / "mine.json"
    assert (
        main(["compare", str(spec), *map(str, paths), "--calibrate", str(file)]) == 1
    )  # the run is slower than planned
    told = capsys.readouterr().err
    assert 'hardware { calibration = "mine.json" }' in told, "by the path that the spec finds it by"
    assert "custom_allreduce graph: 2 sizes, 1.30 of the estimate" in told and "gemm bf16: 1 size, 1.50 of" in told
    spec.write_text(SPEC.format(more=', calibration = "mine.json"'))
    after = dagc.compile(spec)
    old, new = (plan.phases["prefill"].costs.ops for plan in (before, after))
    seen = set()
    for name, cost in old.items():
        ratio = float(new[name].time_s.max()) / float(cost.time_s.max()) if float(cost.time_s.max()) else 1.0
        if cost.payload_B:
            # of small messages neighbours that nothing was seen of pull it down, since times must rise with size
            assert ratio == pytest.approx(SLOWER["all_reduce"], rel=0.03 if cost.payload_B > 1e6 else 0.1)
            seen.add("all_reduce")
        elif name == ("sparse", "gqa.y"):
            assert ratio == pytest.approx(SLOWER["gemm"], rel=0.03)
            seen.add("gemm")
        elif cost.family != "gemm":
            assert ratio == pytest.approx(1.0, rel=1e-6), name  # nothing was seen of it
        else:
            assert 1 <= ratio < 1.5  # other products, the more the nearer their sizes
    assert seen == {"all_reduce", "gemm"}
    assert main(["compare", str(spec), *map(str, paths), "--calibrate", str(tmp_path / "again.json")]) in (0, 1)
    assert "1.00 of the estimate" in capsys.readouterr().err  # what was learned is not learned twice


def test_without_sizes_there_are_collectives_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "p.moe"
    spec.write_text(SPEC.format(more=""))
    paths = traces(tmp_path, of(), shapes=False)
    assert main(["compare", str(spec), *map(str, paths), "--calibrate", str(tmp_path / "c.json")]) == 1
    told = capsys.readouterr().err
    assert "gemm" not in told and "collective all_reduce: 2 sizes" in told


def test_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "p.moe"
    spec.write_text(SPEC.format(more=""))
    paths = [str(path) for path in traces(tmp_path, of(), shapes=False)]
    plain = tmp_path / "plain.moe"
    plain.write_text(spec_text(phase="gpus = 0..3, tp = 4"))
    cases = [
        ([str(spec), *paths, "--calibrate", "mine.csv"], "a file that ends in .json"),
        ([str(plain), *paths, "--calibrate", str(tmp_path / "c.json")], "has no calibration that traces could correct"),
        (
            [str(spec), paths[0], "--calibrate", str(tmp_path / "c.json")],
            "the traces time nothing that a calibration has",
        ),
        ([str(spec), *paths, "--calibrate", str(spec / "c.json")], "cannot write"),
        ([str(spec), "--calibrate", str(tmp_path / "c.json")], "nothing to compare with"),
    ]
    for argv, said in cases:
        assert main(["compare", *argv]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "c.json").exists()


@pytest.mark.parametrize(
    ("name", "args", "found"),
    [
        ("aten::mm", {"Input Dims": [[8, 4], [4, 2]], "Input type": ["float", "float"]}, Product("fp32", 8, 2, 4)),
        (
            "aten::addmm",
            {"Input Dims": [[2], [8, 4], [4, 2]], "Input type": ["c10::Half"] * 3},
            Product("fp16", 8, 2, 4),
        ),
        ("aten::mm", {"Input Dims": [[8, 4], [5, 2]], "Input type": ["float", "float"]}, None),
        ("aten::mm", {"Input Dims": [[8, 4]], "Input type": ["float"]}, None),
        ("aten::mm", {"Input Dims": [[8, -4], [-4, 2]], "Input type": ["float", "float"]}, None),
        ("aten::mm", {"Input Dims": [[8, True], [1, 2]], "Input type": ["float", "float"]}, None),
        ("aten::mm", {"Input Dims": [[8, 4], [4, 2]], "Input type": ["quaternion", "float"]}, None),
        ("aten::mm", {"Input Dims": "x", "Input type": 3}, None),
        ("aten::mm", {}, None),
        ("aten::relu", {"Input Dims": [[8, 4], [4, 2]], "Input type": ["float", "float"]}, None),
    ],
)
def test_sizes_of_products(name: str, args: dict[str, Any], found: Product | None) -> None:
    assert product_of(name, args) == found
