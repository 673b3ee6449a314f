"""Times jobs one by one; a job that cannot run is reported, and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..base.frozen import record
from .jobs import Job
from .timing import Effort, Timing
from .torch_device import TorchDevice
from .torch_kernels import Untimed, build

SHARE_OF_MEMORY = 0.8


@record
class Result:
    """`timing` None: not timed, for `reason`."""

    job: Job
    timing: Timing | None
    reason: str = ""


def measure(
    device: TorchDevice, jobs: Iterable[Job], effort: Effort, done: Callable[[Result], None] = lambda result: None
) -> list[Result]:
    """Results in the order of the jobs; `done` is called after each."""
    found = []
    with device.torch.inference_mode():
        device.torch.manual_seed(0)
        for job in jobs:
            result = _one(device, job, effort)
            found.append(result)
            done(result)
    return found


def _one(device: TorchDevice, job: Job, effort: Effort) -> Result:
    need, free = job.memory_B(), device.free_B()
    if need > SHARE_OF_MEMORY * free:
        return Result(job, None, f"needs {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
    try:
        calls = [build(device, job) for _ in range(device.copies(need))]
        return Result(job, device.time(calls, effort))
    except Untimed as error:
        return Result(job, None, str(error))
    except (RuntimeError, NotImplementedError) as error:  # out of memory, or a kernel that PyTorch lacks here
        lines = str(error).splitlines()
        return Result(job, None, lines[0] if lines else type(error).__name__)
