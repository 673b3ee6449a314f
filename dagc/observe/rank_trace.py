"""What a profiler saw of one rank, in columns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..base.arrays import NDArray
from ..base.frozen import field, record
from .kernel_classes import KernelClass

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]


@record
class Call:
    """What metadata say of a collective. `kind`: as in dagc/base/collectives.py, or another of NCCL's (`broadcast`, `send_recv`).
    `in_B`, `out_B`: buffers of this rank, of one call; NaN where nothing says so. `ranks`: of the group, as far as they are listed; `size`:
    how many they are (0: unknown). `group`: its name in the framework. `elements`: of this rank's input, of a receive its output (-1: unknown)."""

    kind: str
    in_B: float
    out_B: float
    dtype: str
    size: int
    ranks: tuple[int, ...]
    group: str
    elements: int = -1


@record
class Product:
    """y[m, n] = x[m, k] @ W[k, n]."""

    dtype: str
    m: int
    n: int
    k: int


@record(slots=False)
class Kernels:
    """What a GPU did, in the order in which it began. `start_s`: since the origin of the trace. `launched_s`: when the host launched it
    (NaN: unknown). `stream`, `device`: its numbers. `name`: an index of `RankTrace.names`; `op`: the op of the framework that launched it,
    likewise, or -1. `of`: an index of `RankTrace.classes`. `call`: an index of `RankTrace.calls`, or -1."""

    start_s: Floats
    time_s: Floats
    launched_s: Floats
    stream: NDArray[np.int64]
    device: Ints
    name: Ints
    op: Ints
    of: Ints
    call: Ints

    def __len__(self) -> int:
        return len(self.start_s)

    @property
    def end_s(self) -> Floats:
        found: Floats = self.start_s + self.time_s
        return found


@record(slots=False)
class Marks:
    """Named parts of a run, in the order in which they began: what programs mark with `record_function`, `ProfilerStep#3` among them.
    `name`: an index of `RankTrace.names`. `on_gpu`: it is the time in which the GPU did what was launched there."""

    start_s: Floats
    time_s: Floats
    name: Ints
    on_gpu: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.start_s)


@record(slots=False)
class HostCalls:
    """Collectives as the host called them, in that order; `call`: an index of `RankTrace.calls`."""

    start_s: Floats
    time_s: Floats
    call: Ints

    def __len__(self) -> int:
        return len(self.start_s)


@record(slots=False)
class Products:
    """Matrix products whose sizes the trace has. `of`: each an index of `sizes`; `time_s`: of all its kernels."""

    sizes: tuple[Product, ...]
    of: Ints
    time_s: Floats


NO_PRODUCTS = Products((), np.zeros(0, np.int32), np.zeros(0))


@record(slots=False)
class RankTrace:
    """`rank`: None where neither the trace nor its name says it. `origin_ns`: of all times, on the clock of the rank's host. `devices`: names
    of the GPUs that the profiler lists. `events`: how many the file has. `notes`: what else to say of it.
    `about`: what a trace of `dagc run` says of itself (dagc/execute/marks.py)."""

    path: Path
    rank: int | None
    world: int
    origin_ns: int
    devices: tuple[str, ...]
    events: int
    names: tuple[str, ...]
    classes: tuple[KernelClass, ...]
    calls: tuple[Call, ...]
    kernels: Kernels
    marks: Marks
    host_calls: HostCalls
    notes: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    products: Products = NO_PRODUCTS
