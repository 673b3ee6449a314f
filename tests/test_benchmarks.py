"""Every benchmark runs, once and at its shortest: what they import and ask of dagc is still there. No time is judged."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHORTEST = {
    "compiled_steps": (["-n", "1", "examples/plan_a.moe"], "plan_a, "),
    "chakra": (["-n", "1", "--gpus", "8"], "symmetric, 8 GPUs"),
    "draw": (["-n", "1", "--parts", "2"], "one layer"),
    "placing_experts": (["-n", "1", "--layers", "2"], "balanced"),
    "estimate": (["-n", "1", "examples/mixtral_8xh100.moe"], "mixtral_8xh100, decode"),
    "ir_text": (["examples/mixtral_8xh100.moe"], "mixtral_8xh100"),
    "scale": (["-n", "1", "--nodes", "2000"], "equal"),
    "placing": (["-n", "1"], "ways"),
    "requests_per_second": (["-n", "1", "--requests", "200", "--stepped", "20", "--many", "1000"], "times longer"),
    "kept_graphs": (["-n", "4"], "exact costs"),
    "searching": (["--gpus", "4", "--workers", "1"], "complete"),
    "startup": (["-n", "1", "examples/qwen3_235b_vllm.moe"], "qwen3_235b_vllm"),
    "keystrokes": (["-n", "1", "qwen3_235b_vllm"], "qwen3_235b_vllm"),
}
LIBRARIES = {"expand_nx"}
"""Modules of benchmarks that do nothing on their own."""


def test_every_benchmark_is_run_here() -> None:
    assert {file.stem for file in (ROOT / "benchmarks").glob("*.py")} == SHORTEST.keys() | LIBRARIES


@pytest.mark.parametrize("name", SHORTEST)
def test_benchmark(name: str) -> None:
    if name == "draw" and shutil.which("dot") is None:
        pytest.skip("no Graphviz")
    if name == "chakra":
        pytest.importorskip("google.protobuf")
    arguments, printed = SHORTEST[name]
    done = subprocess.run(
        [sys.executable, f"benchmarks/{name}.py", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert printed in done.stdout and "Traceback" not in done.stderr
