"""Memory of GPUs that phases share, against an account of every GPU made of what each rank holds, and what may be required of it."""

from __future__ import annotations

from itertools import product

import pytest
from conftest import examples, spec_text
from hypothesis import given, settings
from hypothesis import strategies as st
from tiers import spread

import dagc
from dagc.api import Plan
from dagc.base.dtypes import DTYPE_BYTES
from dagc.execute.prove import prove
from dagc.plan.plan import cached_tokens
from dagc.plan.result import PhaseResult
from dagc.plan.subject import all_metrics

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
        work = max(n.activations_B + n.buffers_B + n.engine_B for n in needs)
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


@settings(max_examples=examples(30, 5), deadline=None)
@given(plans())
def test_every_gpu_holds_what_its_ranks_hold(text: str) -> None:
    check(dagc.compile_text(text))


# -- what requirements may ask -----------------------------------------------------------------------------


def judged(require: str, *, phases: list[str] | None = None, memory: str = "64 GB") -> Plan:
    text = spec_text(
        kind="prefill",
        phase="gpus = 0..7, ep = 4, tp = 2",
        extra=f"phase decode {{ gpus = 0..7, ep = 4, tp = 2 }}\nrequire {require}",
    )
    return dagc.compile_text(text.replace("memory = 64 GB", f"memory = {memory}"), phases=phases)


def test_peak_of_a_phase_counts_what_shares_its_gpus() -> None:
    plan = judged("decode.memory.peak <= 4 MB")
    own, (pool,) = plan.phases["decode"].memory.worst.peak_B, plan.pools
    assert own < 4e6 < pool.peak_B
    assert plan.requirements[0].value == pool.peak_B and not plan.passed
    (failed,) = (d for d in plan.diagnostics if d.code == "R07")
    assert "prefill and decode on 8 GPUs" in failed.because[0] and "(once)" in failed.because[0]
    assert judged("decode.memory.own <= 4 MB").passed
    for metric in ("hardware.memory.peak", "prefill.memory.peak"):
        assert judged(f"{metric} <= 4 MB").requirements[0].value == pool.peak_B
    assert judged("hardware.memory.fraction <= 0.1%").requirements[0].value == pool.fraction


def test_no_requirement_on_memory_passes_while_gpus_overflow() -> None:
    """Each phase alone fits, both together do not."""
    free = judged("prefill.memory.peak <= hardware.memory")
    alone = max(r.memory.worst.peak_B for r in free.phases.values())
    (pool,) = free.pools
    assert alone < pool.peak_B
    between = f"{(alone + pool.peak_B) / 2:.0f} B"
    for metric in ("prefill.memory.peak", "decode.memory.peak", "hardware.memory.peak"):
        plan = judged(f"{metric} <= hardware.memory", memory=between)
        assert not plan.fits and not plan.requirements[0].passed
        assert [d.code for d in plan.diagnostics].count("E04") == 1
    assert judged("decode.memory.fraction <= 100%", memory=between).requirements[0].passed is False


def test_a_phase_that_is_left_out_is_named() -> None:
    plan = judged("decode.memory.peak <= 1 GB", phases=["decode"])
    (warning,) = (d for d in plan.diagnostics if d.code == "W06" and "judged without" in d.message)
    assert "`prefill`" in warning.message
    assert not [d for d in judged("decode.tpot <= 1 s", phases=["decode"]).diagnostics if "judged without" in d.message]


@given(st.sampled_from(["prefill", "decode"]), st.sampled_from(["ep = 4, tp = 2", "pp = 2, dp = 2, tp = 2", "dp = 8"]))
@settings(max_examples=6, deadline=None)
def test_room_for_tokens_is_what_still_fits(kind: str, strategy: str) -> None:
    """Of sequences like the phase's: as many as the room says fit in addition to the rest, a step more do not."""
    workload = "sequences = {}, prompt = 250 tok, output = 6 tok"

    def compiled(sequences: int) -> Plan:
        text = spec_text(
            kind=kind, phase=f"gpus = 0..7, {strategy}", workload=workload.format(sequences), extra="require 1 == 1"
        )
        return dagc.compile_text(text.replace("memory = 64 GB", "memory = 100 MB"))

    plan = compiled(64)
    (result,) = plan.phases.values()
    context = plan.spec.phases[0].context
    room = plan.kv_tokens(kind)
    assert len(room) == len(result.memory.stages)
    for stage, tokens in zip(result.memory.stages, room, strict=True):
        per_token_B = stage.kv_cache_B / (64 * context)
        free_B = result.memory.capacity_B - (stage.peak_B - stage.kv_cache_B)
        assert tokens * per_token_B <= free_B < (tokens + 1) * per_token_B
    whole = compiled(128).phases[kind].memory
    assert whole.worst.kv_cache_B == pytest.approx(2 * result.memory.worst.kv_cache_B)
    metrics = all_metrics(plan.subject())
    assert metrics[f"{kind}.memory.kv_tokens"].value == min(room)
    assert metrics[f"{kind}.memory.kv_tokens_free"].value == min(room) - 64 * context


ENGINES = ["vllm", "sglang", "trtllm"]


@pytest.mark.parametrize("first", ENGINES)
@pytest.mark.parametrize("second", ENGINES)
def test_an_engines_share_bounds_what_phases_hold_together(first: str, second: str) -> None:
    """The least that any of their engines allows, of what the pool holds: not of what one phase holds alone."""
    text = spec_text(
        kind="prefill",
        phase=f"gpus = 0..3, tp = 4, engine = {first}",
        extra=f"phase decode {{ gpus = 0..3, tp = 4, engine = {second} }}",
    )
    plan = dagc.compile_text(text)
    (pool,) = plan.pools
    limits = []
    for phase in plan.spec.phases:
        memory = phase.memory
        share_B = memory.fraction * plan.spec.hardware.memory_B
        other_B = pool.work_B + pool.reserve_B
        outside = {"all": 0.0, "static": other_B, "free": (1 - memory.fraction) * (pool.weights_B + other_B)}
        limits.append(min(plan.spec.hardware.memory_B, share_B + outside[memory.of]))
    assert pool.capacity_B == pytest.approx(min(limits))
    for name, result in plan.phases.items():
        room = pool.capacity_B - (pool.peak_B - pool.kv_cache_B)
        per_token_B = result.memory.worst.kv_cache_B / cached_tokens(plan.units[name].phase)
        assert plan.kv_tokens(name)[0] == pytest.approx(room / per_token_B, abs=1)


def test_many_phases_on_gpus_that_overlap() -> None:
    """Sixty-six phases, five layouts, eight offsets."""
    degrees = ["tp = 4", "ep = 4", "dp = 2, tp = 2", "ep = 2, tp = 2", "pp = 2, ep = 2"]
    kinds = ["decode", "prefill"]
    phases = "\n".join(
        f"phase p{i} {{ kind = {kinds[i % 2]}, gpus = {i % 8}..{i % 8 + 3}\n{degrees[i % 5]} }}" for i in range(1, 66)
    )
    check(dagc.compile_text(spec_text(kind="p0", phase="kind = decode, gpus = 0..3, tp = 4", extra=phases)))


EXPERTS_OF_8 = {
    "folded": "attention { dp = 4, tp = 2 }\nexperts { ep = 8 }",
    "wider": "attention { dp = 2, tp = 4 }\nexperts { ep = 8 }",
    "flat": "ep = 8",
    "one of each": "attention { dp = 8 }\nexperts { ep = 8 }",
    "sequence": "attention { dp = 2, sp = 2, tp = 2 }\nexperts { ep = 8 }",
    "tensor": "attention { tp = 8 }\nexperts { ep = 8 }",
}


TWO_OF_8 = [(first, [*EXPERTS_OF_8][(i + step) % 6]) for i, first in enumerate(EXPERTS_OF_8) for step in (1, 2, 3)]
"""Two of them, of which either is behind the other or the other behind it."""


@pytest.mark.parametrize(("first", "second"), spread(TWO_OF_8, TWO_OF_8[::6]))
def test_experts_of_as_many_ranks_are_held_once(first: str, second: str) -> None:
    """Whatever attention does with the same GPUs: each exchanges its tokens so that one layout of the experts serves both,
    and is proved to."""
    model = (
        "layers = 2, hidden = 32, vocab = 64, dtype = fp32\nattention { heads = 8, kv_heads = 4, head_dim = 8 }\n"
        "experts { count = 16, top_k = 2, hidden = 16 }"
    )
    text = spec_text(
        kind="prefill",
        phase=f"gpus = 0..7\n{EXPERTS_OF_8[first]}",
        model=model,
        workload="sequences = 16, prompt = 16 tok, output = 16 tok",
        extra=f"phase decode {{ gpus = 0..7\n{EXPERTS_OF_8[second]}\n}}",
    )
    plan = dagc.compile_text(text)
    check(plan)
    experts = [
        {gpu: {p for p in found if p[3][0][0] == "expert"} for gpu, found in pieces(result).items()}
        for result in plan.phases.values()
    ]
    assert experts[0] == experts[1] and all(experts[0].values())
    for name in plan.phases:
        assert prove(plan, name).holds
