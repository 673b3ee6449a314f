"""dagc compare: a trace beside a plan, its figures against sums made another way, ranks that are late, drift."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from conftest import ROOT, spec_text
from hypothesis import given
from hypothesis import strategies as st
from test_kineto import ALL_REDUCE, kernel, written

from dagc.api import compile_text
from dagc.cli import main
from dagc.ir.ops.op_set import OPS
from dagc.observe.against_plan import compared
from dagc.observe.busy import activity, length_s
from dagc.observe.compared_text import plain, sorted_share, text
from dagc.observe.kernel_classes import classes
from dagc.observe.kineto import read
from dagc.observe.matching.deviations import Beside
from dagc.observe.matching.planned_calls import PlannedCall, PlannedCalls
from dagc.observe.measured_rank import MeasuredRank, summed
from dagc.observe.pass_marks import STEPS, whole
from dagc.observe.planned_rank import OTHER, ROWS, members, planned
from dagc.observe.product_shapes import expert_products
from dagc.observe.traces_of import files_of, ranks_of
from dagc.plan.result import PhaseResult

SAMPLES = sorted((ROOT / "tests/data/traces").glob("*.json.gz"))
SPEC = spec_text(
    phase="gpus = 0..3, tp = 4", kind="decode",
    model="layers = 4, hidden = 64, vocab = 512, dtype = bf16\n"
    "attention { kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }\nexperts { count = 8, top_k = 2, hidden = 32 }",
)  # fmt: skip


@pytest.fixture(scope="module")
def result() -> PhaseResult:
    (found,) = compile_text(SPEC).phases.values()
    return found


# -- real traces ---------------------------------------------------------------------------------


def swept(events: list[dict[str, Any]]) -> dict[str, float]:
    """Microseconds in which something ran, by what ran: from beginning to end of all events, moment by moment."""
    zero = min(e["ts"] for e in events)
    moments = sorted(
        (at, step, sort, f"stream {e['tid']}")
        for e in events
        for sort in ["copy" if e["cat"] != "kernel" else "exchange" if "nccl" in e["name"] else "compute"]
        for at, step in ((e["ts"] - zero, 1), (e["ts"] - zero + e["dur"], -1))
    )
    going: dict[str, int] = defaultdict(int)
    since: dict[str, float] = {}
    found: dict[str, float] = defaultdict(float)
    for at, step, *keys in moments:
        both_before = going["compute"] > 0 and going["exchange"] > 0
        for key in (*keys, "busy"):
            going[key] += step
            if step > 0 and going[key] == 1:
                since[key] = at
            elif going[key] == 0:
                found[key] += at - since[key]
        both = going["compute"] > 0 and going["exchange"] > 0
        if both and not both_before:
            since["overlap"] = at
        elif both_before and not both:
            found["overlap"] += at - since["overlap"]
    found["span"] = moments[-1][0] - moments[0][0]
    return found


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_figures_of_real_traces_are_their_own(path: Path) -> None:
    events = [
        e
        for e in json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
        if e["cat"] in ("kernel", "gpu_memcpy", "gpu_memset")
    ]
    expected = swept(events)
    trace = read(path)
    found = summed(trace, whole(trace, 1, ""))
    assert found.kernels == len(events) > 90
    mine = found.whole
    pairs = {
        "span": mine.span_s,
        "busy": mine.busy_s,
        "compute": mine.compute_s,
        "copy": mine.copy_s,
        "overlap": mine.overlap_s,
    }
    for name, value in {**pairs, "exchange": mine.exchange_s}.items():
        assert value * 1e6 == pytest.approx(expected[name], rel=1e-6, abs=1e-3), name
    streams = {f"stream {s.stream}": s.busy_s * 1e6 for s in found.streams}
    assert streams == pytest.approx({k: v for k, v in expected.items() if k.startswith("stream")}, rel=1e-6)
    assert mine.idle_s * 1e6 == pytest.approx(expected["span"] - expected["busy"], rel=1e-6)


ORACLE = {
    "a100_128_ranks_rank0.json.gz": (675191.0, 210320.0, 337336.0, 1222847.0, 14.95),
    "alexnet_rank0.json.gz": (12854103.0, 10630.0, 55511.0, 12920244.0, None),
    "nccl_metadata_rank0.json.gz": (166330.503, 38506.406, 10932.515, 215769.424, 15.22),
}
"""Microseconds idle, of compute, of all else and in all, and the percentage of exchange under which something is computed: what
HolisticTraceAnalysis 0.5.0 prints of the samples, without its rounding (HTA_DISABLE_NS_ROUNDING=1)."""


@pytest.mark.parametrize("name", ORACLE)
def test_figures_are_those_of_another_tool(name: str) -> None:
    trace = read(ROOT / "tests/data/traces" / name)
    found = summed(trace, whole(trace, 1, "")).whole
    *times, share = ORACLE[name]
    mine = (found.idle_s, found.compute_s, found.busy_s - found.compute_s, found.span_s)
    assert [1e6 * one for one in mine] == pytest.approx(times, rel=1e-7)
    if share is None:
        assert found.exchange_s == 0
    else:
        assert 100 * found.overlap_s / found.exchange_s == pytest.approx(share, abs=0.005)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_gpu_time_of_real_traces_is_sorted(path: Path) -> None:
    trace = read(path)
    assert sorted_share(summed(trace, whole(trace, 1, ""))) >= 0.95


def test_metadata_of_a_real_trace(result: PhaseResult) -> None:
    trace = read(ROOT / "tests/data/traces/nccl_metadata_rank0.json.gz")
    calls = [trace.calls[c] for c in trace.kernels.call if c >= 0]
    assert len(calls) == 7 and {c.kind for c in calls} == {"all_reduce", "broadcast"}
    assert all(c.ranks == (0, 1) and c.in_B > 0 for c in calls)
    (one,) = ranks_of([trace.path], result, None, "")
    assert one.passes == 1 and "ProfilerStep" in one.said


# -- unions --------------------------------------------------------------------------------------

SPANS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 20), st.sampled_from(("compute", "copy", "exchange"))), max_size=12
)


@given(SPANS)
def test_activity_counts_moments(spans: list[tuple[int, int, str]]) -> None:
    start, time = (np.array([s[k] for s in spans], float) for k in (0, 1))
    part = np.array([s[2] for s in spans], dtype=np.str_)
    found = activity(start, start + time, part)
    moments = {
        name: {t for s, d, p in spans if p == name for t in range(s, s + d)} for name in ("compute", "copy", "exchange")
    }
    assert found.compute_s == len(moments["compute"]) and found.copy_s == len(moments["copy"])
    assert found.overlap_s == len(moments["compute"] & moments["exchange"])
    assert found.busy_s == len(set().union(*moments.values())) == length_s(start, start + time)


# -- classes -------------------------------------------------------------------------------------

KERNELS = {
    "gemm": (
        "nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_NTT", "ampere_sgemm_128x64_nn", "void deep_gemm::sm90_fp8_gemm_1d2d_impl<2112u, 7168u>",
        "_w8a8_block_fp8_matmul", "void cutlass::Kernel<cutlass_80_tensorop_s1688gemm_128x64_32x6_nt_align1>",
        "Cijk_Ailk_Bljk_BBS_BH_MT128x128x32", "void cublasLt::splitKreduce_kernel<32, 16, int, float>",
        "_ZN7cutlass13device_kernelINS_4gemm6kernel13GemmUniversalIN4cute5tupleIJiiiiEEE",
    ),
    "experts": (
        "mfma_moe1_silu_mul_afp8_wfp4_fp8_t32x128x256_pm1_fp8q_sort_async_gui_xcd4_situv2",
        "void deep_gemm::sm100_fp8_gemm_1d1d_impl<(cute::UMMA::Major)0, 128u, (deep_gemm::GemmType)2, false>",
        "fused_moe_kernel", "bmm_E4m3_E4m3E4m3_Fp32_t128x64x128u2_s6_et64x64", "void moe::dev::finalize::finalizeKernelVecLoad<T>",
        "_ZN7cutlass13device_kernelINS_4gemm6kernel13GemmUniversalINS1_17GroupProblemShapeIN4cute5tupleIJiiiEEEEE",
        "_matmul_ogs_NNT_bf16xbf16xmxfp4_16x256x128x1_swiglu", "void marlin_moe_wna16::Marlin<half>", "_ep_scatter",
        "void ck::kernel_moe_gemm<ck::GridwiseMoeGemm>",
    ),
    "routing": (
        "void vllm::moe::moe_align_block_size_kernel<int>", "void vllm::moe::topkGatingSoftmax<8, 128, 4, 16>",
        "void moe::dev::routing::routingCustom::routingIndicesBlockKernel<P>", "void moe_fused_gate_kernel<bfloat16>",
        "void ck_tile::kentry<ck_tile::MoeSortingKernel>",
    ),
    "attention": (
        "void paged_attention_ll4mi_QKV_mfma16_kernel<0, __hip_bfloat16, (vllm::Fp8KVCacheDataType)0, 1>",
        "_ZN5aiter45mla_a8w8_qh32_qseqlen4_gqaratio32_lse_cprr_psE.kd",
        "kernel_cutlass_kernel_flash_attncuteflash_fwd_sm100FlashAttentionForwardSm100_object",
        "void cutlass::device_kernel<flash::enable_sm90_or_later<flash::FlashAttnFwdSm90<X>>>", "kernel_unified_attention_2d",
        "fmhaSm100fKernel_QkvBfloat16OBfloat16HQk576HV512PagedKvDense", "_fwd_grouped_kernel_stage1", "_fwd_kernel",
        "void flashinfer::BatchPrefillWithPagedKVCacheKernel<P>", "void flash_fwd_splitkv_mla_kernel<T>", "mla_a8w8_qh16_qseqlen1",
        "void vllm::merge_attn_states_kernel<float>", "void deep_gemm::sm90_fp8_paged_mqa_logits<x>",
    ),
    "kv_cache": ("void vllm::reshape_and_cache_flash_kernel<bf16>", "void vllm::concat_and_cache_mla_kernel<bf16>", "set_mla_kv_buffer_kernel"),
    "rope": ("void vllm::rotary_embedding_kernel<c10::BFloat16, true>", "void flashinfer::BatchQKApplyRotaryPosIdsCosSinCacheKernel<>"),
    "linear_attention": ("chunk_gated_delta_rule_fwd_kernel_h_blockdim64", "_causal_conv1d_update_kernel", "_selective_scan_update_kernel"),
    "norm": (
        "void vllm::fused_add_rms_norm_kernel<c10::BFloat16, 8>", "void flashinfer::norm::FusedAddRMSNormKernel<8>",
        "void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<float>", "triton_red_fused__to_copy_add_rms_norm_0",
    ),
    "activation": ("void vllm::act_and_mul_kernel<c10::BFloat16, silu_kernel>", "void flashinfer::activation::act_and_mul_kernel<bf16>"),
    "quantise": ("_per_token_group_quant_8bit", "void vllm::cvt_fp16_to_fp4<bf16>", "void vllm::scaled_fp8_quant_kernel<x>"),
    "sampling": (
        "void flashinfer::sampling::TopKTopPSamplingFromProbKernel<1024>", "void at::native::sbtopk::gatherTopK<float, unsigned int, 2>",
        "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, at::native::ArgMaxOps<float>>>",
    ),
    "all_reduce": (
        "ar_fusion::moe::moefinalize_allreduce_fusion_kernel_oneshot_lamport",
        "mscclKernel_Sum_hip_bfloat16_Simple_false(ncclDevComm*, mscclAlgo*, mscclWork*)",
        "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)", "ncclSymkDevKernel_AllReduce_RSxLDMC_AGxSTMC_sum_bf16",
        "void vllm::cross_device_reduce_1stage<__nv_bfloat16, 8>", "void flashinfer::trtllm_allreduce_fusion::allreduce_fusion_kernel_oneshot_lamport<>",
        "ncclKernel_AllReduce_RING_LL_Sum_float(ncclDevComm*, unsigned long, ncclWork*)", "two_shot_all_reduce_kernel",
    ),
    "all_gather": ("ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgsStorage<4096ul>)",),
    "reduce_scatter": ("ncclDevKernel_ReduceScatter_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)",),
    "all_to_all": (
        "void deep_ep::internode_ll::dispatch<true, 7168>", "void deep_ep::intranode::combine<__nv_bfloat16, 8, 768>",
        "void tensorrt_llm::kernels::mnnvl_throughput::moeA2ADispatchKernel<8>",
    ),
    "send_recv": ("ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)",),
    "exchange": ("ncclDevKernel_Generic_4(ncclDevKernelArgsStorage<4096ul>)",),
    "copy": ("Memcpy DtoD (Device -> Device)", "Memset (Device)", "CopyDeviceToDevice"),
    "elementwise": ("void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<c10::BFloat16>>",),
    "layout": ("void at::native::(anonymous namespace)::CatArrayBatchedCopy<float, unsigned int, 1, 128, 1>",),
    "fused": ("triton_poi_fused_mul_7",),
    "unknown": ("void compute_cuda_kernel<long>(long*)", ""),
}  # fmt: skip


@pytest.mark.parametrize("name,of", [(name, of) for of, names in KERNELS.items() for name in names])
def test_kernels_of_engines_have_their_class(name: str, of: str) -> None:
    assert classes().of(name).name == of


def test_what_is_between_products_of_experts_is_theirs(tmp_path: Path) -> None:
    """On their stream, and with nothing else between."""
    names = [
        "fused_moe_kernel",
        "act_and_mul_kernel",
        "quant",
        "fused_moe_kernel",
        "act_and_mul_kernel",
        "rms_norm",
        "fused_moe_kernel",
    ]
    events = [kernel(name, 10 * k, 5) for k, name in enumerate(names)] + [kernel("act_and_mul_kernel", 5, 5, stream=9)]
    trace = read(written(tmp_path / "t.json", events))
    found = [trace.classes[of].name for of in trace.kernels.of]
    expected = ["experts", "activation", "experts", "experts", "experts", "activation", "norm", "experts"]
    assert found == expected


def test_a_stream_of_exchanges_tells_what_names_do_not(tmp_path: Path) -> None:
    events = [kernel("ncclDevKernel_AllGather_x", 1, 5, 9), kernel("mine", 7, 5, 9), kernel("Memcpy DtoD", 13, 1, 9)]
    events += [kernel("mine", 1, 5, 7), kernel("nvjet", 7, 5, 7), kernel("mine", 1, 5, 8), kernel("mine", 2, 1, 5)]
    events += [kernel("ncclDevKernel_AllGather_x", 9, 5, 5), kernel("nvjet", 20, 5, 5)]
    trace = read(written(tmp_path / "t.json", events))
    found = {(int(s), trace.classes[of].name) for s, of in zip(trace.kernels.stream, trace.kernels.of, strict=True)}
    assert {name for stream, name in found if stream == 9} == {"all_gather", "exchange", "copy"}
    assert all((stream, "unknown") in found for stream in (5, 7, 8))


def test_shapes_tell_experts_from_dense_products(tmp_path: Path) -> None:
    """The plan's experts are [64, 48], a quarter of it on each rank; no dense product is."""
    plan = compile_text(SPEC.replace("hidden = 32", "hidden = 48"))
    (result,), (unit,) = plan.phases.values(), plan.units.values()
    experts = expert_products(result, unit)
    assert experts == {(12, 64), (24, 64)}
    shapes = {"gate": [64, 12], "fused": [24, 64], "router": [64, 8], "stacked": [2, 64, 12]}
    events: list[dict[str, Any]] = []
    for k, dims in enumerate(shapes.values(), 1):
        op = {
            "ph": "X",
            "cat": "cpu_op",
            "name": "aten::mm",
            "ts": k,
            "dur": 1,
            "args": {"External id": k, "Input Dims": [[4, 64], dims]},
        }
        events += [op, kernel("nvjet", 10 * k, 5, **{"External id": k})]
    path = written(tmp_path / "t.json", events)
    (one,) = ranks_of([path], result, None, "", experts=experts)
    assert {row.name: row.calls for row in one.classes} == {"experts": 3, "gemm": 1}
    (one,) = ranks_of([path], result, None, "")
    assert {row.name: row.calls for row in one.classes} == {"gemm": 4}


def test_metadata_and_ops_know_what_a_name_does_not() -> None:
    table = classes()
    assert table.of("ncclDevKernel_SendRecv(x)", call="all_to_all").name == "all_to_all"
    assert table.of("void k()", op="aten::mm").name == "gemm" and table.of("void k()", op="mine::k").name == "unknown"


def test_every_pattern_names_a_class_and_its_source() -> None:
    table = classes()
    for one in (*table.kernels, *table.ops):
        assert one.of in table.by_name and one.source
    assert {one.part for one in table.by_name.values()} == {"compute", "copy", "exchange"}


def test_every_row_of_a_plan_is_one_of_kernels() -> None:
    rows = {one.row for one in classes().by_name.values()}
    for name, kind in OPS.items():
        assert ROWS.get(name, name if kind.is_collective else OTHER) in rows, name


# -- against a plan ------------------------------------------------------------------------------


def all_reduce(call: PlannedCall) -> dict[str, Any]:
    elements = round(call.elements)
    dtype = {2.0: "BFloat16", 8.0: "Long"}[call.each_B]
    return ALL_REDUCE | {"In msg nelems": elements, "Out msg nelems": elements, "dtype": dtype}


@pytest.mark.parametrize(
    "kind,phase",
    [
        ("prefill", "gpus = 0..7, pp = 2, tp = 4, microbatches = 4"),
        ("prefill", "gpus = 0..3, ep = 4, chunk = 100 tok"),
        ("decode", "gpus = 0..7, pp = 2, dp = 4, draft = 2, drafter = mtp, acceptance = 0.5"),
        ("decode", "gpus = 0..7, dp = 8, overlap = two_batch\nattention { dp = 8 }\nexperts { ep = 8 }"),
        ("mixed", "gpus = 0..3, tp = 4, kind = mixed, decode = 32, prompt_tokens = 64 tok"),
    ],
)
def test_what_a_rank_does_in_a_pass_is_the_phase(kind: str, phase: str) -> None:
    """Its passes take the phase's time; what its streams do is within them, and no rank of a stage is left out."""
    model = "layers = 4, hidden = 64, vocab = 512, dtype = bf16, mtp_layers = 1\nattention { heads = 8, kv_heads = 4, head_dim = 8 }"
    text = spec_text(phase=phase, kind=kind, model=model + "\nexperts { count = 8, top_k = 2, hidden = 32 }")
    (found,) = compile_text(text).phases.values()
    passes = found.passes if kind == "prefill" else 1
    every = members(found)
    assert [member.gpu for member in every] == sorted(found.gpus)
    for member in every:
        one = planned(found, member)
        assert one.period_s == pytest.approx(found.time_s * found.tokens_per_step / passes)
        together = one.activity
        assert together.busy_s <= together.span_s * (1 + 1e-9) and together.busy_s > 0
        assert together.busy_s <= sum(row.time_s for row in one.rows.values()) * (1 + 1e-9)
        assert together.overlap_s <= min(together.compute_s, together.exchange_s) * (1 + 1e-9)
    drafts = found.drafter.count if found.drafter is not None else 0
    attends = [planned(found, m).rows["attention"].calls for m in (every[0], every[-1])]
    assert attends[1] - attends[0] == drafts * (
        attends[0] / 2 if drafts else 0
    )  # a layer more for each, on the last stage


def made(result: PhaseResult, rank: int, passes: int = 3, slow: float = 1.0, late: float = 0.0) -> list[dict[str, Any]]:
    """A run of exactly what the plan says of a rank: kernels of its rows, one after the other."""
    names = {
        "gemm": "nvjet",
        "experts": "fused_moe_kernel",
        "attention": "flash_fwd",
        "norm": "rms_norm_kernel",
        "elementwise": "elementwise_kernel",
    }
    names |= {
        "embedding": "embedding_kernel",
        "sampling": "argmax",
        "all_reduce": "ncclDevKernel_AllReduce_Sum_bf16_RING_LL",
    }
    plan = planned(result, members(result)[rank])
    at, events = 1000.0, []
    for _ in range(passes):
        calls = iter(PlannedCalls(result).of(rank))
        for row, found in plan.rows.items():
            count = round(found.calls)
            each = found.time_s / count * 1e6 * (slow if row == "gemm" else 1.0)
            for _ in range(count):
                args = all_reduce(next(calls)) if row == "all_reduce" else {}
                events.append(kernel(names[row], at, each + (late if args and rank != 2 else 0), 7, **args))
                at += events[-1]["dur"]
    return events


def test_a_run_of_the_plan_is_the_plan(result: PhaseResult, tmp_path: Path) -> None:
    for rank in range(4):
        written(tmp_path / f"rank{rank}.json", made(result, rank), distributedInfo={"rank": rank, "world_size": 4})
    ranks = ranks_of(files_of([str(tmp_path)]), result, None, "")
    assert [one.rank for one in ranks] == [0, 1, 2, 3] and {one.passes for one in ranks} == {3}
    found = compared(result, ranks, 0.01)
    assert {row.name for row in found.rows} >= {"gemm", "experts", "attention", "all_reduce", "elementwise"}
    for row in found.rows:
        assert row.ratio == pytest.approx(1, rel=1e-6) and row.calls == row.planned_calls, row
    assert found.in_plan == pytest.approx(1)
    assert found.measured.overlap_s < 1e-15 and found.measured.exchange_s == pytest.approx(found.planned.exchange_s)
    assert not any(row.drifts for row in found.rows)
    jsonschema.validate(
        plain(found, Beside(None, "not asked")), json.loads((ROOT / "dagc/observe/compare.schema.json").read_text())
    )


def test_exchanges_of_unknown_kind_are_the_only_one_of_the_plan(result: PhaseResult, tmp_path: Path) -> None:
    """RCCL has one kernel for every collective."""
    path = tmp_path / "rank0.json"
    written(
        path, [{**e, "name": e["name"].replace("AllReduce_Sum_bf16_RING_LL", "Generic_1")} for e in made(result, 0)]
    )
    text_ = path.read_text().replace('"Collective name": "allreduce"', '"Collective": "x"')
    path.write_text(text_)
    (one,) = ranks_of([path], result, 3, "")
    assert "exchange" in {row.name for row in one.classes}
    row = next(row for row in compared(result, [one], 0.2).rows if row.name == "all_reduce")
    assert row.of == ("exchange",) and row.ratio == pytest.approx(1, rel=1e-6)


def test_a_slow_class_drifts(result: PhaseResult, tmp_path: Path) -> None:
    paths = [written(tmp_path / f"rank{rank}.json", made(result, rank, slow=1.5)) for rank in range(4)]
    found = compared(result, ranks_of(paths, result, None, ""), 0.2)
    assert [row.name for row in found.rows if row.drifts] == ["gemm"] and found.drifts
    assert "gemm 1.50" in text(found, "x.moe").splitlines()[-1]
    assert not any(row.drifts for row in compared(result, found.ranks, 0.6).rows)


def test_a_rank_that_computes_longer_is_slow(result: PhaseResult, tmp_path: Path) -> None:
    paths = [written(tmp_path / f"rank{r}.json", made(result, r, slow=2.0 if r == 3 else 1.0)) for r in range(4)]
    found = compared(result, ranks_of(paths, result, None, ""), 0.2)
    assert [one.rank for one in found.by_rank if one.slow] == [3] and found.by_rank[0].rank == 3
    assert "slow: rank 3 computes over 10% longer" in text(found, "x.moe")
    for path in paths:  # ranks that are not known
        path.rename(path.with_stem(path.stem.replace("rank", "trace ")))
    unnamed = compared(result, ranks_of(files_of([str(tmp_path)]), result, None, ""), 0.2)
    assert [one.slow for one in unnamed.by_rank] == [True, False, False, False] and unnamed.by_rank[0].planned_s is None


def test_who_comes_last_is_the_straggler(result: PhaseResult, tmp_path: Path) -> None:
    paths = [written(tmp_path / f"rank{rank}.json", made(result, rank, late=50.0)) for rank in range(4)]
    waits = compared(result, ranks_of(paths, result, None, ""), 0.2).waits
    assert waits.straggler is not None and waits.straggler.rank == 2
    calls = waits.ranks[2].calls
    assert waits.ranks[2].wait_s == 0 and waits.ranks[0].wait_s == pytest.approx(calls * 50e-6, rel=1e-6)
    few = compared(result, ranks_of(paths[:2], result, None, ""), 0.2).waits
    assert few.matched == 0 and few.straggler is None  # ranks 2 and 3 are missing


def test_marks_choose_the_steps_of_the_phase(result: PhaseResult, tmp_path: Path) -> None:
    def step(name: str, ts: float) -> list[dict[str, Any]]:
        launch = {
            "ph": "X",
            "cat": "cuda_runtime",
            "name": "cudaGraphLaunch",
            "ts": ts + 1,
            "dur": 1,
            "args": {"correlation": int(ts)},
        }
        mark = {"ph": "X", "cat": "user_annotation", "name": name, "ts": ts, "dur": 10}
        return [mark, launch, kernel("nvjet", ts + 100, 30, correlation=int(ts))]

    events = step("execute_context_1(512)_generation_0(0)", 1000) + step("execute_context_0(0)_generation_64(64)", 2000)
    path = written(tmp_path / "t.json", events + step("execute_context_0(0)_generation_63(63)", 3000))
    (one,) = ranks_of([path], result, None, "")
    assert (
        one.passes == 2 and one.activity.busy_s == pytest.approx(60e-6) and one.activity.span_s == pytest.approx(60e-6)
    )
    assert "outside of the passes" in one.notes[0]
    (one,) = ranks_of([path], result, None, "context_1")
    assert one.passes == 1 and one.whole.span_s == pytest.approx(2030e-6)
    (one,) = ranks_of([path], result, 30, "")
    assert one.passes == 30 and one.activity.busy_s == pytest.approx(90e-6)


def test_marks_of_the_gpu_serve_where_launches_are_missing(result: PhaseResult, tmp_path: Path) -> None:
    """They are one per stream: those that overlap are one pass."""
    marks = [
        {"ph": "X", "cat": "gpu_user_annotation", "name": "step[DECODE bs=4]", "ts": ts, "dur": 10, "tid": tid}
        for ts, tid in ((100, 7), (103, 9), (200, 7), (208, 9))
    ]
    events = [kernel("nvjet", ts, 2) for ts in (101, 105, 112, 150, 201, 217)]
    (one,) = ranks_of([written(tmp_path / "t.json", marks + events)], result, None, "")
    assert one.passes == 2 and [row.calls for row in one.classes] == [5]
    assert one.between_s == pytest.approx(100e-6) and one.activity.span_s == pytest.approx((13 + 18) * 1e-6)


@pytest.mark.parametrize(
    "name,kind",
    [
        ("execute_context_0(0)_generation_16(96)", "decode"),
        ("execute_7_context_3(sq128sk256)_generation_0(sq0)", "prefill"),
        ("execute_context_1(512)_generation_4(4)", "mixed"),
        ("step[DECODE bs=4]", "decode"),
        ("step[EXTEND bs=1 toks=107]", "prefill"),
        ("step[MIXED bs=2]", "mixed"),
        ("[Executor] _forward_step 60: 0 ctx reqs, 0 ctx tokens, 32 gen reqs", "decode"),
        ("[Executor] _forward_step: 2 ctx reqs, 0 gen reqs", "prefill"),
        ("execute_context_0(0)_generation_0(0)", ""),
        ("step[IDLE bs=0]", ""),
    ],
)
def test_steps_of_engines_have_their_kind(name: str, kind: str) -> None:
    assert [k for k in ("prefill", "decode", "mixed") if any(step.is_of(name, k) for step in STEPS)] == [kind] * bool(
        kind
    )


def test_steps_of_another_batch_are_told(result: PhaseResult, tmp_path: Path) -> None:
    planned_here = result.graph.body[0].sizes["batch"]
    for count in (planned_here, planned_here + 7):
        mark = {"ph": "X", "cat": "user_annotation", "name": f"step[DECODE bs={count:g}]", "ts": 1, "dur": 10}
        launch = {"ph": "X", "cat": "cuda_runtime", "name": "k", "ts": 2, "dur": 1, "args": {"correlation": 9}}
        path = written(tmp_path / "t.json", [mark, launch, kernel("nvjet", 5, 5, correlation=9)])
        found = compared(result, ranks_of([path], result, None, ""), 0.2)
        assert any("sequences per rank" in note for note in found.notes) == (count != planned_here)


def run(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> tuple[int, str, str]:
    code = main(["compare", *map(str, argv)])
    return code, *capsys.readouterr()


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path, result: PhaseResult) -> None:
    spec = tmp_path / "plan.moe"
    spec.write_text(SPEC)
    paths = [written(tmp_path / f"rank{rank}.json", made(result, rank)) for rank in range(4)]
    code, out, _ = run(capsys, spec, "--tolerance", "500%", *paths)
    assert code == 0 and "within 500% of the plan" in out and "100.00% of GPU time sorted" in out
    code, out, _ = run(capsys, spec, *paths, "--json", "--tolerance", "0")
    assert code == 1 and json.loads(out)["traces"][3]["rank"] == 3
    mixtral = ROOT / "examples/mixtral_8xh100.moe"
    faults = {
        (spec,): "nothing to compare with",
        (spec, "--metrics", "m.txt", "--calibrate", "c.json"): "`--calibrate` is of traces",
        (spec, "--metrics", "m.txt", "--passes", "2"): "`--passes` is of traces",
        (mixtral, paths[0]): "has 2 phases, and a trace is of one",
        (spec, paths[0], paths[0]): "is of rank 0, as",
        (spec, tmp_path / "none.json"): "cannot be read",
        (spec, "--within", "nowhere", paths[0]): "has no mark with `nowhere`",
        (spec, written(tmp_path / "cpu.json", [{**kernel("a", 1, 1), "cat": "cpu_op"}])): "no GPU kernel among them",
        (spec, ROOT / "examples"): "has no trace in it",
    }
    for argv, words in faults.items():
        code, out, err = run(capsys, *argv)
        assert code == 2 and not out and words in err, (argv, err)


def test_names_of_kernels_steer_no_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    spec = tmp_path / "plan.moe"
    spec.write_text(SPEC)
    path = written(tmp_path / "t.json", [kernel("odd\x1b[2J\u202ekernel\n" * 40, 1, 1)])
    _, out, _ = run(capsys, spec, path)
    assert "\x1b" not in out and "\u202e" not in out and "unknown" in out


def test_memory_is_that_of_one_trace(tmp_path: Path, result: PhaseResult) -> None:
    """Of a rank that was summed, only its collectives are kept."""
    path = written(tmp_path / "t.json", made(result, 0, passes=5))
    (one,) = ranks_of([path], result, None, "")
    assert isinstance(one, MeasuredRank) and len(one.call) == len(one.call_s) < one.kernels / 2
