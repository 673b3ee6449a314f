"""Memory of GPUs that phases share, against an account of every GPU made of what each rank holds, and what may be required of it."""

from __future__ import annotations

import re
from itertools import product

import pytest
from conftest import examples, spec_text
from hypothesis import given, settings
from hypothesis import strategies as st

import dagc
from dagc.cures import partition
from dagc.ir.graph import DTYPE_BYTES
from dagc.ir.result import PhaseResult
from dagc.lang.units import BYTES, show
from dagc.plan import Plan

Piece = tuple[int, str, str, tuple[tuple[str, int, int], ...]]
"""Layer (-1: one tensor for several), weight, dtype, and (dim, first, last + 1) in the order of names."""

MODEL = (
    "layers = 4, hidden = 64, vocab = 512, dtype = fp32{}\nattention {{ kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }}\n"
    "experts {{ count = 8, top_k = 2, hidden = 32 }}"
)
STRATEGIES = {
    2: ["tp = 2", "ep = 2", "pp = 2", "dp = 2", "sp = 2"],
    4: [
        "pp = 2, tp = 2",
        "pp = 2, layers_per_stage = [1, 3], ep = 2",
        "ep = 4",
        "dp = 2, tp = 2",
        "tp = 4",
        "attention { dp = 2, tp = 2 }\nexperts { ep = 4 }",
        "attention { tp = 2, dp = 2 }\nexperts { ep = 2, tp = 2 }",
        "ep = 2, tp = 2\norder = [pp, dp, tp, sp, ep]",
        "ep = 2, tp = 2\nplace gpu = {low} + tp * 2 + ep",
        "pp = 4",
    ],
}


def pieces(result: PhaseResult) -> dict[int, set[Piece]]:
    """GPU -> every block of every weight that its rank holds, from the layouts alone."""
    graph, mesh = result.graph, result.graph.the_mesh
    tables = {w.tied for s in graph.segments for w in s.weights if w.tied}
    held: dict[int, set[Piece]] = {}
    layer = -1
    for stage in graph.stages:
        for name in (n for n, count in stage.layers for _ in range(count)):
            segment = graph.segment(name)
            for gpu, at in zip(stage.gpus, product(*(range(n) for n in mesh.shape)), strict=True):
                rank = dict(zip(mesh.sizes, at, strict=True))
                for weight in segment.weights:
                    assert weight.sharding is not None
                    ranges = []
                    for dim, axes in zip(weight.dims, weight.sharding.dims, strict=True):
                        first, length = 0, int(segment.size(dim, weight.scope))
                        for axis in axes:
                            length //= mesh.sizes[axis]
                            first += rank[axis] * length
                        ranges.append((dim, first, first + length))
                    known = weight.tied or weight.name
                    place = -1 if known in tables else layer + 1
                    held.setdefault(gpu, set()).add((place, known, weight.dtype, tuple(sorted(ranges))))
            layer += 1
    return held


def bytes_of(held: set[Piece]) -> float:
    total = 0.0
    for _, _, dtype, ranges in held:
        size = DTYPE_BYTES[dtype]
        for _, first, last in ranges:
            size *= last - first
        total += size
    return total


def check(plan: Plan) -> None:
    """Every pool against the sums of its GPUs."""
    held = {name: pieces(result) for name, result in plan.phases.items()}
    gpus = sorted({gpu for found in held.values() for gpu in found})
    peak: dict[int, float] = {}
    users: dict[int, tuple[str, ...]] = {}
    for gpu in gpus:
        users[gpu] = tuple(name for name in held if gpu in held[name])
        needs = []
        for name in users[gpu]:
            stage = next(s.index for s in plan.phases[name].graph.stages if gpu in s.gpus)
            needs.append(plan.phases[name].memory.stages[stage])
            assert bytes_of(held[name][gpu]) == pytest.approx(needs[-1].weights_B, rel=1e-12)
        weights = bytes_of(set.union(*(held[name][gpu] for name in users[gpu])))
        cache = max(n.kv_cache_B for n in needs)
        work = max(n.activations_B + n.buffers_B for n in needs)
        peak[gpu] = weights + cache + work + max(n.reserve_B for n in needs)
    assert sorted(g for pool in plan.pools for g in pool.gpus) == gpus
    for pool in plan.pools:
        assert {users[gpu] for gpu in pool.gpus} == {pool.phases}
        assert pool.peak_B == pytest.approx(max(peak[gpu] for gpu in pool.gpus), rel=1e-12)
        assert peak[pool.fullest] == pytest.approx(pool.peak_B, rel=1e-12)
    assert len({pool.phases for pool in plan.pools}) == len(plan.pools)


@st.composite
def plans(draw: st.DrawFn) -> str:
    """Two to four phases of both kinds on GPUs that overlap wholly, partly or not at all."""
    phases = []
    for k in range(draw(st.integers(2, 4))):
        count = draw(st.sampled_from([2, 4]))
        low = draw(st.integers(0, 3))
        strategy = draw(st.sampled_from(STRATEGIES[count])).replace("{low}", str(low))
        kind = draw(st.sampled_from(["prefill", "decode"]))
        phases.append(f"phase p{k} {{ kind = {kind}, gpus = {low}..{low + count - 1}\n{strategy}\n}}")
    tied = draw(st.sampled_from(["", ", tied = true"]))
    first, *rest = phases
    head = first.index("{")
    return spec_text(kind="p0", phase=first[head + 1 : -1], model=MODEL.format(tied), extra="\n".join(rest))


@settings(max_examples=examples(60), deadline=None)
@given(plans())
def test_every_gpu_holds_what_its_ranks_hold(text: str) -> None:
    check(dagc.compile_text(text))


# -- a plan that does not fit ----------------------------------------------------------------------------

LARGE = (
    "layers = 5, hidden = 64, vocab = 4096, dtype = fp32\nattention { kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }\n"
    "experts { count = 8, top_k = 2, hidden = 64 }"
)
OVERFLOWS = {
    "stages": (
        "pp = 2, layers_per_stage = [1, 4]",
        "2.3 MB",
        "decode",
        "sequences = 2, prompt = 8 tok, output = 8 tok",
    ),
    "stages unsaid": ("pp = 5", "1.2 MB", "decode", "sequences = 2, prompt = 8 tok, output = 8 tok"),
    "degrees": ("dp = 4", "3 MB", "decode", "sequences = 4, prompt = 8 tok, output = 8 tok"),
    "folded": (
        "attention { dp = 4, tp = 1 }\nexperts { ep = 1 }",
        "4 MB",
        "decode",
        "sequences = 4, prompt = 8 tok, output = 8 tok",
    ),
    "cache": ("tp = 4", "20 MB", "decode", "sequences = 256, prompt = 256 tok, output = 8 tok"),
    "work": ("tp = 2", "16 MB", "prefill", "sequences = 64, prompt = 256 tok, output = 8 tok"),
}


def overflowing(name: str, more: str = "") -> str:
    """A spec of one phase whose GPUs are too small, its degrees or what replaces them last."""
    strategy, memory, kind, workload = OVERFLOWS[name]
    counts = {"pp = 5": 5, "tp = 2": 2}
    gpus = 2 if "layers_per_stage" in strategy else counts.get(strategy, 4)
    body = more or strategy
    text = spec_text(
        kind=kind,
        phase=body if "gpus" in body else f"gpus = 0..{gpus - 1}\n{body}",
        gpus=64,
        model=LARGE,
        workload=workload,
    )
    return text.replace("memory = 64 GB", f"memory = {memory}")


def written(strategy: str, words: str) -> str:
    """The body of a phase with what a cure says."""
    own = dict(re.findall(r"(\w+) = (\[[^\]]*\]|[\w.]+)", strategy))
    folds = dict(re.findall(r"(\w+) (\{[^}]*\})", strategy))
    if folds:
        own = {}
    new_folds = dict(re.findall(r"(\w+) (\{[^}]*\})", words))
    new = {} if new_folds else dict(re.findall(r"(\w+) = (\[[^\]]*\]|[\w.]+)", words))
    if "pp" in new:
        own.pop("layers_per_stage", None)
    lines = [f"{k} = {v}" for k, v in (own | new).items()] + [f"{k} {v}" for k, v in (folds | new_folds).items()]
    return "\n".join(lines)


@pytest.mark.parametrize("name", OVERFLOWS)
def test_every_cure_that_is_named_fits(name: str) -> None:
    plan = dagc.compile_text(overflowing(name))
    assert not plan.fits and not plan.passed
    error = plan.diagnostics[0]
    assert error.code == "E04" and error.help
    for words in error.help:
        assert " fits: " in words
        cure, _, size = words.partition(" fits: ")
        mended = dagc.compile_text(overflowing(name, written(OVERFLOWS[name][0], cure)))
        assert mended.fits, words
        assert size == f"{show(max(p.peak_B for p in mended.pools), BYTES)} on the fullest GPU"


def test_where_nothing_fits_that_is_said() -> None:
    text = spec_text(gpus=8).replace("memory = 64 GB", "memory = 1 kB")
    (error,) = (d for d in dagc.compile_text(text).diagnostics if d.code == "E04")
    assert len(error.help) == 1 and "that were tried fits" in error.help[0]


@pytest.mark.parametrize(
    "sizes, fixed", [([1, 1, 1, 5], [0, 0]), ([3, 1, 4, 1, 5, 9, 2, 6], [2, 0, 7]), ([1] * 7, [0] * 7)]
)
def test_layers_are_parted_as_evenly_as_can_be(sizes: list[float], fixed: list[float]) -> None:
    """Against every way to part them."""

    def largest(cut: tuple[int, ...]) -> float:
        ends = [sum(cut[:k]) for k in range(len(cut) + 1)]
        return max(f + sum(sizes[a:b]) for f, a, b in zip(fixed, ends, ends[1:], strict=False))

    every = [c for c in product(range(1, len(sizes) + 1), repeat=len(fixed)) if sum(c) == len(sizes)]
    assert largest(tuple(partition(sizes, fixed))) == pytest.approx(min(map(largest, every)))
