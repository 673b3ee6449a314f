"""Every benchmark runs, once and at its shortest: what they import and ask of dagc is still there. No time is judged."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from tiers import spread

SHORTEST = {
    "compiled_steps": (["-n", "1", "examples/plan_a.moe"], "plan_a, "),
    "chakra": (["-n", "1", "--gpus", "8", "qwen3_235b_vllm"], "symmetric, 8 GPUs"),
    "draw": (["-n", "1", "--parts", "2"], "one layer"),
    "compiled_schedules": (["-n", "1", "--layers", "16", "zb_h2"], "zb_h2"),
    "alternating_layers": (["-n", "1", "--layers", "48"], "4 x 8 micro-batches"),
    "placing_experts": (["-n", "1", "--layers", "2"], "balanced"),
    "estimate": (["-n", "1", "examples/three_link_levels.moe"], "three_link_levels, decode"),
    "ir_text": (["examples/three_link_levels.moe"], "three_link_levels"),
    "scale": (["-n", "1", "--nodes", "500"], "equal"),
    "placing": (["-n", "1"], "ways"),
    "requests_per_second": (["-n", "1", "--requests", "200", "--stepped", "20", "--many", "1000"], "times longer"),
    "kept_graphs": (["-n", "4"], "exact costs"),
    "searching": (["--gpus", "4", "--workers", "1"], "complete"),
    "startup": (["-n", "1", "examples/qwen3_235b_vllm.moe"], "qwen3_235b_vllm"),
    "keystrokes": (["-n", "1", "qwen3_235b_vllm"], "qwen3_235b_vllm"),
}
LIBRARIES = {"expand_nx"}
"""Modules of benchmarks that do nothing on their own."""
SLOW = {
    "startup", "scale", "searching", "keystrokes", "kept_graphs", "compiled_steps", "requests_per_second", "chakra", "draw", "placing", "alternating_layers",
}  # fmt: skip
"""Those that install a package, start processes, plan for many GPUs, or take most of a second otherwise."""
APART = {"startup"}
"""Those that change their process: they have one of their own."""


def test_every_benchmark_is_run_here() -> None:
    assert {file.stem for file in (ROOT / "benchmarks").glob("*.py")} == SHORTEST.keys() | LIBRARIES


@pytest.mark.parametrize("name", spread(SHORTEST, lambda name: name not in SLOW))
def test_benchmark(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if name == "draw" and shutil.which("dot") is None:
        pytest.skip("no Graphviz")
    if name == "chakra":
        pytest.importorskip("google.protobuf")
    arguments, printed = SHORTEST[name]
    command = [f"benchmarks/{name}.py", *arguments]
    if name in APART:
        done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=300)
        ended, shown, told = done.returncode, done.stdout, done.stderr
    else:
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", command)
        monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
        try:
            runpy.run_path(command[0], run_name="__main__")
            ended = 0
        except SystemExit as end:
            ended = end.code or 0
        shown, told = capsys.readouterr()
    assert ended == 0, told
    assert printed in shown and "Traceback" not in told
