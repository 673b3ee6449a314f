"""Which kernels of a trace belong to a pass of the model: programs mark their steps, or collectives are counted."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from ..base.frozen import record, replace
from ..base.harmless import shortened
from .rank_trace import Ints, RankTrace

OF_KIND = {"prefill": (True, False), "decode": (False, True), "mixed": (True, True)}
"""Kind of phase -> whether its steps take in prompts, and whether they decode."""

LONGEST = 50
"""Characters of a mark's name that are shown."""


@record
class StepMark:
    """How a program marks a step. Groups `prompts` and `decodes` of `text`: how many sequences take in a prompt there, and how many decode."""

    text: re.Pattern[str]
    source: str

    def is_of(self, name: str, kind: str) -> bool:
        """Whether it marks a step of a kind of phase: prefill, decode or mixed; any, for another."""
        found = self.text.search(name)
        if found is None:
            return False
        counts = found.groupdict()
        if kind not in OF_KIND or "prompts" not in counts:
            return True
        both = int(counts.get("both") or 0)
        prompts, decodes = (int(counts[name] or 0) or both for name in ("prompts", "decodes"))
        return (bool(prompts), bool(decodes)) == OF_KIND[kind]

    def decodes(self, name: str) -> int | None:
        """Sequences that decode in a step, where its mark counts them."""
        found = self.text.search(name)
        counted = found.groupdict().get("decodes") if found is not None else None
        return int(counted) if counted else None


STEPS = (
    StepMark(
        re.compile(r"^execute_(?:\d+_)?context_(?P<prompts>\d+)\([^)]*\)_generation_(?P<decodes>\d+)\("),
        "vllm-project/vllm, vllm/v1/worker/gpu_worker.py",
    ),
    StepMark(
        re.compile(
            r"^step\[(?:EXTEND bs=(?P<prompts>\d+)|(?:DECODE|TARGET_VERIFY) bs=(?P<decodes>\d+)|MIXED bs=(?P<both>\d+))"
        ),
        "sgl-project/sglang, python/sglang/srt/managers/scheduler.py",
    ),
    StepMark(
        re.compile(r"^\[Executor\] _forward_step.*?: (?P<prompts>\d+) ctx reqs,(?:.*?,)? (?P<decodes>\d+) gen reqs"),
        "NVIDIA/TensorRT-LLM, tensorrt_llm/_torch/pyexecutor/py_executor.py",
    ),
    StepMark(re.compile(r"^dagc:[^:]+$"), "dagc run --trace"),
    StepMark(re.compile(r"^ProfilerStep#\d+"), "pytorch, torch/profiler/profiler.py"),
)
"""In the order in which they are looked for: the first that a trace has counts."""


@record(slots=False)
class Passes:
    """`of`: the pass of each kernel by number, -1 outside of them. `count`: passes; `said`: how they were found. `decodes`: sequences that
    decode in the mean pass of the rank, where marks count them."""

    of: Ints
    count: int
    said: str
    decodes: float | None = None


def whole(trace: RankTrace, count: int, said: str) -> Passes:
    """Every kernel, of `count` passes that cannot be told apart."""
    return Passes(np.zeros(len(trace.kernels), np.int32), count, said)


def marked(trace: RankTrace, kind: str, within: str = "") -> Passes | None:
    """Passes that marks show: those with `within` in their name, else those of a step of the phase's kind. None: there are no such marks."""
    if within:
        chosen = [at for at, name in enumerate(trace.names) if within in name]
        return _by(trace, chosen, f"marks with `{within}`")
    for step in STEPS:
        chosen = [at for at, name in enumerate(trace.names) if step.is_of(name, kind)]
        found = _by(trace, chosen, f"marks such as `{shortened(trace.names[chosen[0]], LONGEST)}`") if chosen else None
        if found is not None:
            return replace(found, decodes=_decodes(trace, step, chosen))
    return None


def _decodes(trace: RankTrace, step: StepMark, chosen: Sequence[int]) -> float | None:
    counts = {at: step.decodes(trace.names[at]) for at in chosen}
    taken = [counts.get(int(name)) for name in trace.marks.name[~trace.marks.on_gpu]]
    known = [count for count in taken if count is not None]
    return sum(known) / len(known) if known else None


def _by(trace: RankTrace, names: Sequence[int], said: str) -> Passes | None:
    """A kernel is of the mark in which the host launched it; where the trace has no launches, of the mark of the GPU in which it begins."""
    marks, kernels = trace.marks, trace.kernels
    named = np.isin(marks.name, np.asarray(names, np.int32))
    for on_gpu, at in ((False, kernels.launched_s), (True, kernels.start_s)):
        chosen = named & (marks.on_gpu == on_gpu)
        if not chosen.any() or not np.isfinite(at).any():
            continue
        start, end = marks.start_s[chosen], (marks.start_s + marks.time_s)[chosen]
        if on_gpu:  # one per stream: those that overlap are one pass
            order = np.argsort(start, kind="stable")
            start, end = start[order], np.maximum.accumulate(end[order])
            first = np.concatenate(([True], start[1:] >= end[:-1]))
            start, end = start[first], end[np.concatenate((first[1:], [True]))]
        found = np.searchsorted(start, np.nan_to_num(at, nan=-np.inf), side="right") - 1
        inside = (found >= 0) & (np.nan_to_num(at, nan=-np.inf) <= end[np.maximum(found, 0)])
        of = np.where(inside, found, -1).astype(np.int32)
        held, of[inside] = np.unique(of[inside], return_inverse=True)
        if len(held):
            return Passes(of, len(held), said)
    return None


def counted(measured: dict[str, int], planned: dict[str, float]) -> tuple[int, str] | None:
    """How often collectives of each kind were called, over how often one pass calls them; None where the plan has none, or none was called.
    The kind that is called most decides."""
    shared = [kind for kind, calls in planned.items() if calls >= 1 and measured.get(kind)]
    if not shared:
        return None
    kind = max(shared, key=lambda one: planned[one])
    count = max(1, round(measured[kind] / planned[kind]))
    exact = "" if measured[kind] == round(count * planned[kind]) else "; not a whole number of passes"
    return count, f"{measured[kind]:,} {kind} of {planned[kind]:,.0f} per pass{exact}"
