"""One more pass under PyTorch's profiler: a trace of each rank, in which ops of the plan have their names."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile, record_function

from ...base.diagnostics import Diagnostic, SpecError
from ..marks import METADATA, Mark, trace_name
from .rank import Rank


def traced(rank: Rank, folder: Path, about: Mapping[str, object]) -> None:
    """Writes `PHASE.rankN.json.gz`. Raises SpecError with E05 where it cannot be written."""
    phase = rank.shards.graph.phase
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if rank.device.type == "cuda" else [])]
    rank.marks = True
    try:
        with profile(activities=kinds, record_shapes=True) as found:
            found.add_metadata_json(METADATA, json.dumps(about))
            dist.barrier()  # a profiler takes hundreds of milliseconds to start, which the first op would wait for
            rank.wait()
            with record_function(Mark(phase).text):
                rank.run()
    finally:
        rank.marks = False
    target = folder / trace_name(phase, f"{rank.ranks.rank}.json.gz")
    name = ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=f".{target.name}.", suffix=".json.gz")
        os.close(handle)
        found.export_chrome_trace(name)
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(target)
    except OSError as error:
        with suppress(OSError):
            Path(name).unlink()
        raise SpecError([Diagnostic("E05", f"cannot write {target}: {error.strerror or error}")]) from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
