"""Collectives over the ranks of `torchrun`, timed as nccl-tests counts them: the slowest rank, one call."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .jobs import Exchange
from .timer import Result
from .timing import Effort, Timing
from .torch_device import TorchDevice

BACKENDS = {"cuda": "nccl", "cpu": "gloo"}
CALLS = 5
"""Calls of one sample."""


TIMED: Mapping[str, Callable[[Any, tuple[Any, Any, Any], Any], object]] = {
    "all_reduce": lambda dist, buffers, group: dist.all_reduce(buffers[0], group=group),
    "all_gather": lambda dist, buffers, group: dist.all_gather_into_tensor(buffers[0], buffers[1], group=group),
    "reduce_scatter": lambda dist, buffers, group: dist.reduce_scatter_tensor(buffers[1], buffers[0], group=group),
    "all_to_all": lambda dist, buffers, group: dist.all_to_all_single(buffers[2], buffers[0], group=group),
}
"""One call of each collective, by (torch.distributed, (whole buffer, a rank's part, another whole buffer), group)."""


class NotLaunched(RuntimeError):
    """The process is not one of several that torchrun started."""


class Ranks:
    """This process among the others."""

    def __init__(self, device: TorchDevice) -> None:
        if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "RANK" not in os.environ:
            raise NotLaunched("collectives need several ranks")
        import torch.distributed

        self.device = device
        self.dist: Any = torch.distributed
        if device.kind == "cuda":
            device.torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        self.dist.init_process_group(BACKENDS[device.kind])
        self.rank, self.count = int(self.dist.get_rank()), int(self.dist.get_world_size())

    def close(self) -> None:
        self.dist.destroy_process_group()

    def measure(self, jobs: Iterable[Exchange], effort: Effort) -> list[Result]:
        """Every rank calls this with the same jobs; the timings are the same on all."""
        jobs = list(jobs)
        groups = {n: self.dist.new_group(list(range(n))) for n in sorted({j.ranks for j in jobs}) if n <= self.count}
        found = []
        for job in jobs:
            if job.ranks not in groups:
                found.append(Result(job, None, f"{job.ranks} ranks, torchrun started {self.count}"))
            elif not self._fits(job):
                found.append(Result(job, None, "its buffers do not fit into memory"))
            else:
                found.append(self._one(job, groups[job.ranks], effort))
            self.dist.barrier()
        return found

    def _fits(self, job: Exchange) -> bool:
        """On every rank: they must agree. Ranks on a CPU share its memory."""
        share_B = self.device.free_B() / (1 if self.device.kind == "cuda" else self.count)
        short = self.device.torch.tensor([float(2 * job.memory_B() > share_B)], device=self.device.kind)
        self.dist.all_reduce(short)
        return not float(short)

    def _one(self, job: Exchange, group: Any, effort: Effort) -> Result:
        """Ranks outside of the group wait for its samples."""
        inside, torch = self.rank < job.ranks, self.device.torch
        samples = torch.zeros(effort.samples, dtype=torch.float64, device=self.device.kind)
        reason = torch.zeros(1, device=self.device.kind)
        if inside:
            try:
                call = self._call(job, group)
                for _ in range(effort.warm_up):
                    call()
                for index in range(effort.samples):
                    samples[index] = self._sample_s(call, group)
            except RuntimeError:  # the backend lacks this collective, on every rank
                reason += 1
        self.dist.all_reduce(reason)
        if float(reason):
            return Result(job, None, f"{BACKENDS[self.device.kind]} has no {job.op}")
        self.dist.all_reduce(samples, op=self.dist.ReduceOp.MAX)
        clock = "cuda_events" if self.device.kind == "cuda" else "perf_counter"
        return Result(job, Timing.of(samples.tolist(), clock))

    def _sample_s(self, call: Callable[[], object], group: Any) -> float:
        self.dist.barrier(group=group)
        if self.device.kind != "cuda":
            start_s = time.perf_counter()
            for _ in range(CALLS):
                call()
            return (time.perf_counter() - start_s) / CALLS
        cuda = self.device.torch.cuda
        cuda.synchronize()
        start, stop = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
        start.record()
        for _ in range(CALLS):
            call()
        stop.record()
        stop.synchronize()
        return float(start.elapsed_time(stop)) * 1e-3 / CALLS

    def _call(self, job: Exchange, group: Any) -> Callable[[], object]:
        """Buffers of 2-byte elements, at least one per rank."""
        torch, dist = self.device.torch, self.dist
        part = max(1, job.size_B // 2 // job.ranks)
        dtype = torch.bfloat16 if self.device.kind == "cuda" else torch.float16
        whole, own, other = (
            torch.zeros(n, dtype=dtype, device=self.device.kind) for n in (part * job.ranks, part, part * job.ranks)
        )
        call = TIMED[job.op]
        return lambda: call(dist, (whole, own, other), group)
