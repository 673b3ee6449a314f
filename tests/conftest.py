"""Shared helpers: a small spec as text, and the examples compiled once."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import dagc
from dagc.api import Plan

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.moe"))


def examples(count: int) -> int:
    """How many random cases a property is tried on: DAGC_EXAMPLES=20 tries twenty times as many, and other ones."""
    return count * int(os.environ.get("DAGC_EXAMPLES", "1"))


# No test fails because a machine is slow.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", settings.get_profile("patient"), derandomize=True, database=None)
settings.register_profile("long", settings.get_profile("patient"), print_blob=True)
settings.load_profile("long" if "DAGC_EXAMPLES" in os.environ else "repeatable")


def spec_text(
    *,
    phase: str = "gpus = 0..7, ep = 4, tp = 2",
    kind: str = "prefill",
    gpus: int = 64,
    model: str = "",
    workload: str = "sequences = 64, prompt = 256 tok, output = 16 tok",
    extra: str = "",
    dtype: str = "fp32",
) -> str:
    """A small MoE spec; every part can be replaced."""
    model = model or (
        f"layers = 4, hidden = 64, vocab = 512, dtype = {dtype}\n"
        "attention { kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }\n"
        "experts { count = 8, top_k = 2, hidden = 32 }"
    )
    return f"""moe 1
hardware pool {{
  gpus = {gpus}, per_node = 8
  compute = 400 TFLOP/s, mfu = 60%, memory = 64 GB, hbm = 1.8 TB/s, mbu = 80%
  link node {{ bandwidth = 450 GB/s, latency = 2 us }}
  link cluster {{ bandwidth = 50 GB/s, latency = 6 us }}
}}
model small {{
{model}
}}
workload {{ {workload} }}
phase {kind} {{
{phase}
}}
{extra}
"""


@cache
def compiled(name: str) -> Plan:
    return dagc.compile(ROOT / "examples" / f"{name}.moe")


@pytest.fixture(params=[p.stem for p in EXAMPLES])
def example(request: pytest.FixtureRequest) -> Plan:
    return compiled(request.param)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write what goldens expect anew")
