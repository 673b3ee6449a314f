"""A short exchange between the GPUs of this host: some collectives of the plan, and copies from each GPU to the next.

One process per GPU, started here and stopped when time is up; each is this module. The first prints what was timed.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from ...base.frozen import replace
from ..collectives import Ranks
from ..jobs import Exchange
from ..timing import Effort
from ..torch_device import TorchDevice
from .inventory import Misread, Timed, kept
from .probe import stop
from .wanted import Wanted, nccl_s

COPY_B = 1 << 28
"""Of a copy between two GPUs: large enough for its latency not to count."""
CPU_B = 1 << 20
"""The most that CPUs exchange for a plan of GPUs."""
EFFORT = Effort(samples=5, warm_up=2)
COPIED = "copy to the next rank"


class NotExchanged(RuntimeError):
    """Why nothing was timed."""


def exchanged(wanted: Wanted, ranks: int, device: str, limit_s: float) -> tuple[Timed, ...]:
    """Raises NotExchanged."""
    trial = device == "cpu" and wanted.hardware.kind == "gpu"
    jobs = [c.job for c in wanted.calls if c.job.ranks <= ranks]
    jobs = [replace(job, size_B=min(job.size_B, CPU_B)) for job in jobs] if trial else jobs
    level = wanted.inside[0].link if wanted.inside else None
    copy_B = CPU_B if trial else COPY_B
    asked = [{"op": job.op, "ranks": job.ranks, "size_B": job.size_B} for job in jobs]
    told = json.dumps({"device": device, "jobs": asked, "copy_B": copy_B if level is not None else 0})
    times = _run(told, ranks, limit_s)
    if not isinstance(times, list) or len(times) != len(jobs) + 1:
        raise NotExchanged("its processes did not print what they timed")
    out = [
        Timed(job.op, job.ranks, float(job.size_B), float(time_s), nccl_s(job, wanted.hardware))
        for job, time_s in zip(jobs, times, strict=False)
        if time_s is not None
    ]
    if level is not None and times[-1] is not None:
        copy_s = level.latency_s + copy_B / level.bandwidth_Bps
        out.append(Timed(COPIED, 2, float(copy_B), float(times[-1]), copy_s))
    return tuple(out)


def _run(told: str, ranks: int, limit_s: float) -> Any:
    """What the first of the processes prints. Raises NotExchanged."""
    end = time.monotonic() + limit_s
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as said:
        running: list[subprocess.Popen[bytes]] = []
        try:
            place = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
            for rank in range(ranks):
                environment = {**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)}
                running.append(
                    subprocess.Popen(
                        [sys.executable, "-m", __name__, told],
                        stdin=subprocess.DEVNULL,
                        env=environment,
                        stdout=out if rank == 0 else subprocess.DEVNULL,
                        stderr=said,
                        start_new_session=True,
                    )
                )
            _wait(running, end)
            failed = next((one.returncode for one in running if one.returncode), None)
            if failed is not None:
                said.seek(0)
                lines = said.read(100_000).decode("utf-8", "replace").strip().splitlines() or [""]
                raise NotExchanged(f"a process ended with code {failed}: {kept(lines[-1])}")
        except subprocess.TimeoutExpired:
            raise NotExchanged(f"not done within {limit_s:g} s") from None
        except OSError as error:
            raise NotExchanged(error.strerror or str(error)) from None
        finally:
            for one in running:
                stop(one)
        out.seek(0)
        try:
            # NCCL prints lines of its own where it is asked to.
            lines = out.read(1_000_000).decode("utf-8", "replace").splitlines()
            return json.loads(next(line for line in reversed(lines) if line.startswith("[")))
        except (ValueError, StopIteration):
            raise NotExchanged("its processes did not print what they timed") from None


def _wait(running: Sequence[subprocess.Popen[bytes]], end: float) -> None:
    """Until all have ended, or one of them failed: the others then wait for it. Raises TimeoutExpired."""
    while any(one.poll() is None for one in running) and not any(one.returncode for one in running):
        if time.monotonic() > end:
            raise subprocess.TimeoutExpired("exchange", 0)
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def main(argv: Sequence[str]) -> int:
    """One rank. Raises Misread."""
    told = json.loads(argv[0])
    if not isinstance(told, dict):
        raise Misread("no jobs")
    device = TorchDevice(told["device"])
    ranks = Ranks(device)
    try:
        jobs = [Exchange(**one) for one in told["jobs"]]
        results = ranks.measure(jobs, EFFORT)
        times: list[float | None] = [r.timing.median_s if r.timing is not None else None for r in results]
        times.append(_copies_s(ranks, int(told["copy_B"])) if told["copy_B"] else None)
        if ranks.rank == 0:
            print(json.dumps(times))
    finally:
        ranks.close()
    return 0


def _copies_s(ranks: Ranks, size_B: int) -> float:
    """The slowest copy from a rank to the next, one at a time."""
    torch, dist, count = ranks.device.torch, ranks.dist, ranks.count
    kind = ranks.device.kind
    buffer = torch.zeros(size_B, dtype=torch.uint8, device=kind)
    slowest = 0.0
    for source in range(count):
        target = (source + 1) % count
        samples = []
        for _ in range(EFFORT.warm_up + EFFORT.samples):
            dist.barrier()
            start = time.perf_counter()
            if ranks.rank == source:
                dist.send(buffer, target)
            elif ranks.rank == target:
                dist.recv(buffer, source)
            if kind == "cuda":
                torch.cuda.synchronize()
            samples.append(time.perf_counter() - start if ranks.rank in (source, target) else 0.0)
        own = torch.tensor([sorted(samples[EFFORT.warm_up :])[EFFORT.samples // 2]], dtype=torch.float64, device=kind)
        dist.all_reduce(own, op=dist.ReduceOp.MAX)
        slowest = max(slowest, float(own))
    return slowest


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
