"""The device that kernels are timed on, through PyTorch: memory, versions and clocks."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

from .timing import Effort, Timing

Call = Callable[[], object]
CALLS = 8
"""Least calls between two CUDA events: their own cost is shared among them."""
MOST_COPIES = 16
"""Most copies of a kernel's operands."""
CACHE_B = 64 << 20
"""Cache of a device that does not tell its own."""


class TorchMissing(ImportError):
    """PyTorch is not installed."""


class NoDevice(RuntimeError):
    """PyTorch is there, the device is not."""


class TorchDevice:
    """`cuda` (the current GPU) or `cpu`."""

    def __init__(self, kind: str) -> None:
        try:
            import torch
        except ImportError:
            raise TorchMissing("PyTorch is not installed") from None
        self.torch: Any = torch
        self.kind = kind
        if kind == "cuda" and not torch.cuda.is_available():
            raise NoDevice("PyTorch finds no CUDA device")

    @property
    def _properties(self) -> Any:
        return self.torch.cuda.get_device_properties(self.torch.cuda.current_device())

    @property
    def name(self) -> str:
        """As the driver gives it."""
        return str(self._properties.name) if self.kind == "cuda" else "CPU"

    @property
    def slug(self) -> str:
        """The name as a file name: `nvidia_h100_80gb_hbm3`."""
        return re.sub(r"[^a-z0-9]+", "_", self.name.lower()).strip("_")

    @property
    def processors(self) -> int:
        """Streaming multiprocessors; on a CPU the threads of PyTorch."""
        return int(self._properties.multi_processor_count if self.kind == "cuda" else self.torch.get_num_threads())

    @property
    def versions(self) -> dict[str, str]:
        """Libraries that the times depend on."""
        cuda = self.torch.version.cuda if self.kind == "cuda" else ""
        return {"torch": str(self.torch.__version__), "cuda": str(cuda or "")}

    def free_B(self) -> float:
        """Memory that tensors can take."""
        if self.kind == "cuda":
            self.torch.cuda.empty_cache()
            return float(self.torch.cuda.mem_get_info()[0])
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))

    def copies(self, operands_B: float) -> int:
        """Copies of the operands to go round, so that no call finds its own in the cache. One on a CPU."""
        if self.kind != "cuda":
            return 1
        cache_B = float(getattr(self._properties, "L2_cache_size", 0) or CACHE_B)
        fitting = 0.8 * self.free_B() // max(operands_B, 1.0)
        return int(max(1, min(MOST_COPIES, 1 + 2 * cache_B // max(operands_B, 1.0), fitting)))

    def time(self, calls: Sequence[Call], effort: Effort) -> Timing:
        """Time of one call; `calls` do the same on copies of their operands."""
        for index in range(max(effort.warm_up, len(calls))):
            calls[index % len(calls)]()
        return self._time_cuda(calls, effort) if self.kind == "cuda" else self._time_cpu(calls, effort)

    def _time_cpu(self, calls: Sequence[Call], effort: Effort) -> Timing:
        samples: list[float] = []
        end = time.perf_counter() + effort.limit_s
        while len(samples) < effort.samples and (not samples or time.perf_counter() < end):
            call = calls[len(samples) % len(calls)]
            start = time.perf_counter()
            call()
            samples.append(time.perf_counter() - start)
        return Timing.of(samples, "perf_counter")

    def _time_cuda(self, calls: Sequence[Call], effort: Effort) -> Timing:
        """A CUDA graph of many calls between two events; the calls themselves where they cannot be captured."""
        rounds = [calls[index % len(calls)] for index in range(max(CALLS, len(calls)))]
        run, clock = self._captured(rounds)
        cuda = self.torch.cuda
        cuda.synchronize()
        samples: list[float] = []
        end = time.perf_counter() + effort.limit_s
        while len(samples) < effort.samples and (not samples or time.perf_counter() < end):
            start, stop = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
            start.record()
            run()
            stop.record()
            stop.synchronize()
            samples.append(start.elapsed_time(stop) * 1e-3 / len(rounds))
        return Timing.of(samples, clock)

    def _captured(self, rounds: Sequence[Call]) -> tuple[Call, str]:
        def each() -> None:
            for call in rounds:
                call()

        cuda = self.torch.cuda
        try:
            side = cuda.Stream()
            side.wait_stream(cuda.current_stream())
            with cuda.stream(side):
                each()
            cuda.current_stream().wait_stream(side)
            graph = cuda.CUDAGraph()
            with cuda.graph(graph):
                each()
            graph.replay()
        except RuntimeError:
            cuda.synchronize()
            return each, "cuda_events"
        return graph.replay, "cuda_graph"
