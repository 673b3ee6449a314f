"""What a process of this machine reaches without a GPU: rates of products and copies, the time of a call, gloo between two processes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from ..base.frozen import record
from .collectives import Ranks
from .jobs import Exchange
from .timing import Effort
from .torch_device import TorchDevice
from .torch_kernels import TORCH_DTYPE

SIDE = 512
"""Of the square products."""
COPIED_B = 64 << 20
SMALL_B, LARGE_B = 64, 8 << 20
"""Of the all-reduces of two ranks."""
DTYPES = ("fp64", "fp32", "bf16")
CALLS = 100
"""Small calls of one sample."""


@record
class Machine:
    """Of one process with so many `threads`: FLOP/s by dtype, bytes per second read and written, seconds of a call that does next to
    nothing; between two processes the latency of a message and bytes per second. `cores`, `memory_B`: of the whole machine."""

    flops: Mapping[str, float]
    copy_Bps: float
    call_s: float
    latency_s: float
    link_Bps: float
    cores: int
    memory_B: float
    threads: int


def machine(ranks: Ranks) -> Machine | None:
    """Both of two processes call this; the second, which gets None, waits while the first measures by itself. The all-reduce of two ranks
    is two messages of half of the buffer, one after the other."""
    device, effort = ranks.device, Effort(10, 2, 0.5)
    alone = _alone(device, effort) if ranks.rank == 0 else None
    found = ranks.measure([Exchange("all_reduce", 2, size) for size in (SMALL_B, LARGE_B)], effort)
    if alone is None:
        return None
    small, large = (one.timing.median_s if one.timing is not None else float("nan") for one in found)
    memory_B = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    cores = len(os.sched_getaffinity(0))
    return Machine(*alone, small / 2, LARGE_B / max(large - small, 1e-9), cores, memory_B, device.processors)


def _alone(device: TorchDevice, effort: Effort) -> tuple[dict[str, float], float, float]:
    torch = device.torch
    flops = {}
    with torch.inference_mode():
        for dtype in DTYPES:
            x, w = (_square(device, dtype) for _ in range(2))
            out = torch.empty_like(x)
            took = device.time([partial(torch.mm, x, w, out=out)], effort)
            flops[dtype] = 2 * SIDE**3 / took.median_s
        source, target = (torch.zeros(COPIED_B, dtype=torch.uint8) for _ in range(2))
        copied = device.time([lambda: target.copy_(source)], effort)
        few = torch.ones(8)

        def calls() -> None:
            for _ in range(CALLS):
                torch.add(few, few)

        called = device.time([calls], effort)
    return flops, 2 * COPIED_B / copied.median_s, called.median_s / CALLS


def _square(device: TorchDevice, dtype: str) -> Any:
    torch = device.torch
    return torch.randn(SIDE, SIDE).to(getattr(torch, TORCH_DTYPE.get(dtype, "float64")))


def section(found: Machine, versions: Mapping[str, str]) -> str:
    """A file for `hardware NAME from "FILE.moe"`: a process a core. What it says is reached, so that its shares are 100 %."""
    compute = ", ".join(f"{dtype} = {rate / 1e9:.4g} GFLOP/s" for dtype, rate in found.flops.items())
    link = f"bandwidth = {found.link_Bps / 1e9:.4g} GB/s, latency = {found.latency_s * 1e6:.4g} us"
    torch = versions.get("torch", "")
    return f"""# Measured by `dagc measure --machine`: PyTorch {torch} on this CPU, processes with {found.threads} threads each, gloo.
# Products of {SIDE} x {SIDE}, copies of {COPIED_B >> 20} MiB, one process at work; several at once share memory, and get less of it.
moe 1

hardware cpu {{
  kind = cpu, gpus = {found.cores}, per_node = {found.cores}
  compute {{ {compute} }}
  mfu = 100%, memory = {found.memory_B / found.cores / 1e9:.4g} GB
  hbm = {found.copy_Bps / 1e9:.4g} GB/s, mbu = 100%
  launch = {found.call_s * 1e6:.4g} us
  link node {{ {link} }}
  link cluster {{ {link} }}
}}
"""
