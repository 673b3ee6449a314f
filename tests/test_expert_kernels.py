"""Kernels of routed experts: the draws of their tables, the fit made again, which of them an engine runs, and their prices."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
from conftest import ROOT
from tiers import all_tests, in_turn, spread

from dagc.base import dtypes
from dagc.calib import available, load, moe
from dagc.calib.constants import Device
from dagc.calib.family import COMMON, ENGINES, US, WEIGHT_B, column
from dagc.calib.fitting import tables
from dagc.calib.fitting.draws import busiest_rank
from dagc.calib.fitting.fit import Part, fit_part
from dagc.cost.expert_kernels import CHOICES, VARIANTS, ExpertRun, variants
from dagc.cost.expert_load import rank_work
from dagc.cost.local_shapes import ExpertShape
from dagc.spec.workload import Routing

DATA = ROOT / "tests" / "data" / "experts"
FITTED = [("sglang", "int4_wo"), ("vllm", "fp8_block"), ("vllm", "fp8_block-cutlass"), ("trtllm", "fp8_block-deepep")]
LAWS = ("balanced", "power_law_1.01", "power_law_1.2", "power_law_1.2_eplb")


# -- draws ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("law", "tokens", "sizes"),
    in_turn(LAWS, [1, 2, 3, 16, 100, 4096], [(8, 2, 1), (128, 8, 4), (8, 2, 8), (512, 22, 64)]),
)
def test_draws_are_rows_of_that_many_tokens(law: str, tokens: int, sizes: tuple[int, int, int]) -> None:
    experts, top_k, ranks = sizes
    drawn = busiest_rank(law, tokens, experts, top_k, ranks)
    rows = drawn.rows.sum(axis=1)
    assert drawn.rows.shape[1] == experts // ranks
    assert drawn.rows.min() >= 0 and drawn.rows.max() <= tokens
    assert (drawn.tokens <= np.minimum(tokens, rows)).all() and (rows <= drawn.tokens * top_k).all()
    if ranks == 1:
        assert (rows == tokens * top_k).all()
    if law.startswith("power_law"):
        # Rounding the rows of a slot for its copies moves each by less than one.
        assert (rows >= tokens * top_k / ranks - drawn.rows.shape[1]).all()


def test_one_token_chooses_different_experts() -> None:
    drawn = busiest_rank("power_law_1.2", 1, 256, 8, 8)
    assert (drawn.rows.sum(axis=1) <= 8).all() and drawn.rows.max() == 1
    assert drawn.rows.sum(axis=1).mean() < 8  # they are not all on one rank


def test_the_law_is_the_one_that_the_tables_count_tokens_by() -> None:
    """Tokens that reach the timed rank, which a table states, against those of our draws: without bias, and as near as two
    draws of one skewed law are."""
    ratios = []
    every = 1 if all_tests() else 3
    for row in tables.read(DATA / "wideep_moe_trtllm.csv")[::every]:
        sizes = [int(row[name]) for name in ("num_tokens", "num_experts")]
        drawn = busiest_rank(row["distribution"], *sizes, 8, int(row["moe_ep_size"]), int(row["num_slots"]))
        if int(row["rank0_num_tokens"]) >= 16:
            ratios.append(drawn.tokens.mean() / float(row["rank0_num_tokens"]))
    assert len(ratios) > 80 / every
    assert np.median(ratios) == pytest.approx(1.0, abs=0.03)
    assert np.quantile(np.abs(np.log(ratios)), 0.9) < np.log(1.35)


def test_spare_copies_even_ranks_out() -> None:
    plain = busiest_rank("power_law_1.2", 4096, 256, 8, 32).rows.sum(axis=1).mean()
    placed = busiest_rank("power_law_1.2_eplb", 4096, 256, 8, 32).rows.sum(axis=1).mean()
    spare = busiest_rank("power_law_1.2_eplb", 4096, 256, 8, 32, 288).rows.sum(axis=1).mean()
    assert 1024 - 9 <= spare <= placed < plain / 1.5


# -- the fit -------------------------------------------------------------------------------------


@cache
def refitted(engine: str, variant: str) -> Part:
    pytest.importorskip("scipy")
    parts, _ = tables.groups(moe.FAMILY, [DATA])
    key = tables.Key("h100_sxm", engine, moe.FAMILY.name, variant)
    devices = json.loads((ROOT / "tools" / "devices.json").read_text())
    return fit_part(key, parts[key], Device(**devices["h100_sxm"]))


@pytest.mark.parametrize(("engine", "variant"), spread(FITTED))
def test_the_fit_made_again_has_the_errors_that_the_library_states(engine: str, variant: str) -> None:
    part = refitted(engine, variant)
    stated = load("h100_sxm").of(moe.FAMILY, engine)[variant].error
    error = np.abs(part.by_row / part.measured_s - 1)
    unseen = np.abs(part.by_shape / part.measured_s - 1)
    assert stated.rows == len(part.rows)
    assert np.median(error) == pytest.approx(stated.median, abs=0.01)
    assert np.quantile(error, 0.9) == pytest.approx(stated.p90, abs=0.03)
    assert stated.unseen is not None and np.median(unseen) == pytest.approx(stated.unseen, abs=0.01)


def test_remote_copies_are_fitted_as_timed_and_not_priced() -> None:
    """SGLang's rows with several ranks are explained by the copies that the benchmark kept; a server has its own alone."""
    part = refitted("sglang", "int4_wo")
    shared = [number for number, row in enumerate(part.rows) if int(row["moe_ep_size"]) > 1]
    without, _ = tables.groups(moe.FAMILY, [DATA])
    served = [{**row, "remote": ""} for row in without[part.key]]
    assert len(shared) > 50 and part.entry is not None
    measured = column(list(part.rows), "latency_us")[shared] * US
    as_timed = moe.FAMILY.estimate_s(part.entry, *moe.FAMILY.arguments(list(part.rows)))[shared]
    as_served = moe.FAMILY.estimate_s(part.entry, *moe.FAMILY.arguments(served))[shared]
    assert np.median(np.abs(as_timed / measured - 1)) < 0.1
    assert np.median(as_served / measured) < 0.8


# -- the library ---------------------------------------------------------------------------------


def test_every_dtype_of_the_language_has_experts_or_is_said_to_have_none() -> None:
    none = {"fp64", "fp32", "tf32", "int8", "fp4"}
    assert set(dtypes.NAMED) == set(VARIANTS) | none


MEASURED = {
    ("a100_sxm", "sglang"): "bf16 int4_wo",
    ("a100_sxm", "trtllm"): "bf16",
    ("a100_sxm", "vllm"): "bf16",
    ("b200_sxm", "sglang"): "bf16 fp8_block nvfp4 w4a16_mxfp4 w4a8_mxfp4_mxfp8",
    ("b200_sxm", "trtllm"): "bf16 fp8 fp8_block nvfp4 w4a16_mxfp4 w4a8_mxfp4_mxfp8",
    ("b200_sxm", "vllm"): "bf16 fp8 fp8_block int4_wo nvfp4 w4a16_mxfp4 w4a8_mxfp4_mxfp8",
    ("b300_sxm", "sglang"): "bf16 fp8_block nvfp4 w4a16_mxfp4 w4a8_mxfp4_mxfp8",
    ("b300_sxm", "trtllm"): "bf16 fp8 fp8_block nvfp4 w4a8_mxfp4_mxfp8",
    ("b300_sxm", "vllm"): "bf16 fp8 fp8_block nvfp4 w4a16_mxfp4",
    ("b60", "vllm"): "bf16 fp8 w4a16_mxfp4",
    ("gb200", "sglang"): "bf16 fp8_block nvfp4 w4a16_mxfp4 w4a8_mxfp4_mxfp8",
    ("gb200", "trtllm"): "bf16 fp8 fp8_block nvfp4 w4a16_mxfp4 w4a8_mxfp4_mxfp8",
    ("gb200", "vllm"): "bf16 fp8 fp8_block nvfp4 w4a16_mxfp4 w4a8_mxfp4_mxfp8",
    ("gb300", "sglang"): "bf16 fp8_block nvfp4 w4a16_mxfp4 w4a8_mxfp4_mxfp8",
    ("gb300", "trtllm"): "bf16 fp8 fp8_block nvfp4 w4a16_mxfp4 w4a8_mxfp4_mxfp8",
    ("gb300", "vllm"): "bf16 fp8 fp8_block nvfp4 w4a16_mxfp4 w4a8_mxfp4_mxfp8",
    ("h100_sxm", "sglang"): "bf16 fp8_block int4_wo w4a16_mxfp4",
    ("h100_sxm", "trtllm"): "bf16 fp8 fp8_block w4a16_mxfp4",
    ("h100_sxm", "vllm"): "bf16 fp8 fp8_block w4a16_mxfp4",
    ("h200_sxm", "sglang"): "bf16 fp8_block int4_wo w4a16_mxfp4",
    ("h200_sxm", "trtllm"): "bf16 fp8 fp8_block w4a16_mxfp4",
    ("h200_sxm", "vllm"): "bf16 fp8 fp8_block int4_wo w4a16_mxfp4",
    ("l40s", "sglang"): "bf16 w4a16_mxfp4",
    ("l40s", "trtllm"): "bf16 fp8 w4afp8",
    ("l40s", "vllm"): "bf16 fp8 fp8_block w4a16_mxfp4",
    ("rtx_pro_6000_server", "sglang"): "bf16 fp8_block nvfp4 w4a16_mxfp4",
    ("rtx_pro_6000_server", "trtllm"): "bf16 fp8 fp8_block nvfp4 w4a8_mxfp4_mxfp8",
    ("rtx_pro_6000_server", "vllm"): "bf16 fp8 nvfp4 w4a16_mxfp4",
}


@pytest.mark.parametrize(("gpu", "engine"), MEASURED)
def test_the_library_has_every_dtype_that_the_tables_have(gpu: str, engine: str) -> None:
    found = {moe.dtype_of(variant) for variant in load(gpu).of(moe.FAMILY, engine)}
    wanted = set(MEASURED[gpu, engine].split())
    assert wanted <= set(WEIGHT_B)
    assert not wanted - found, f"no experts of {', '.join(sorted(wanted - found))} for {engine} on {gpu}"


def test_no_gpu_or_engine_of_the_library_is_left_out_above() -> None:
    there = {(gpu, e) for gpu in available() for e in ENGINES if set(load(gpu).of(moe.FAMILY, e))}
    assert there == set(MEASURED) and COMMON not in {engine for _, engine in MEASURED}


@pytest.mark.parametrize(("gpu", "engine"), MEASURED)
def test_more_tokens_are_not_faster_but_for_noise(gpu: str, engine: str) -> None:
    tokens = 2.0 ** np.arange(0, 14.1, 0.5)
    work = moe.expected_rows(np.multiply.outer(tokens, np.full(32, 8 / 256)))
    for variant, entry in load(gpu).of(moe.FAMILY, engine).items():
        time_s = moe.FAMILY.estimate_s(entry, work, tokens, 8, 7168, 2048)
        slower = np.maximum.accumulate(time_s)
        assert (time_s >= slower * (1 - max(0.02, entry.error.p90 / 2))).all(), variant
        assert time_s[-1] > 2 * time_s[0], variant


# -- choices -------------------------------------------------------------------------------------


def run(**changes: object) -> ExpertRun:
    known = {
        "ranks": 1,
        "decodes": True,
        "products": 3,
        "top_k": 8.0,
        "exchanged": False,
        "inter": 2048.0,
        "experts": 256.0,
    }
    found = known | changes
    shape = ExpertShape(
        None, (None,) * found["products"], (), "bf16", 64.0, found["top_k"], 7168.0, found["inter"], found["exchanged"],
        found["inter"], found["experts"],
    )  # type: ignore[arg-type]  # fmt: skip
    return ExpertRun(shape, found["ranks"], found["decodes"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("engine", "dtype", "changes", "first"),
    [
        ("trtllm", "bf16", {}, "bf16"),
        ("trtllm", "bf16", {"products": 2}, "bf16-ungated"),
        ("trtllm", "nvfp4", {}, "nvfp4"),
        ("trtllm", "nvfp4", {"top_k": 10.0}, "nvfp4-cutlass"),
        ("trtllm", "nvfp4", {"exchanged": True, "ranks": 32}, "nvfp4-deepep"),
        ("trtllm", "nvfp4", {"exchanged": True, "ranks": 8}, "nvfp4"),
        ("trtllm", "mxfp4", {}, "w4a8_mxfp4_mxfp8"),
        ("vllm", "mxfp4", {}, "w4a16_mxfp4"),
        ("vllm", "fp8_block", {}, "fp8_block"),
        ("vllm", "fp8_block", {"ranks": 8}, "fp8_block-cutlass"),
        ("vllm", "int4_g32", {}, "int4_wo"),
        ("sglang", "bf16", {"inter": 1536.0}, "bf16-trtllm"),
        ("sglang", "bf16", {"inter": 2048.0}, "bf16"),
        ("sglang", "fp8_block", {}, "fp8_block-trtllm"),
        ("sglang", "fp8_block", {"experts": 8.0, "top_k": 2.0}, "fp8_block"),
        ("sglang", "fp8_block", {"exchanged": True, "ranks": 32}, "fp8_block-deepep_ll"),
        ("sglang", "fp8_block", {"exchanged": True, "ranks": 32, "decodes": False}, "fp8_block-deepep"),
    ],
)
def test_an_engine_runs_its_own_kernel(engine: str, dtype: str, changes: dict[str, object], first: str) -> None:
    assert variants(engine, dtype, run(**changes))[0] == first


def test_a_phase_says_what_kernels_of_mxfp4_experts_compute_with() -> None:
    for engine in ENGINES:
        for activations, first in (("mxfp8", "w4a8_mxfp4_mxfp8"), ("bf16", "w4a16_mxfp4")):
            asked = variants(engine, "mxfp4", run(), activations)
            assert moe.dtype_of(asked[0]) == first
            assert sorted(asked) == sorted(variants(engine, "mxfp4", run()))  # the others may take its place
        assert variants(engine, "nvfp4", run(), "bf16") == variants(engine, "nvfp4", run())


def test_no_choice_names_what_nobody_measured() -> None:
    there = {v for gpu, e in MEASURED for v in load(gpu).of(moe.FAMILY, e)}
    kernels = {variant.partition("-")[2] for variant in there}
    assert {kernel for choice in CHOICES for kernel in choice.kernels} <= kernels
    assert {dtype for named in VARIANTS.values() for dtype in named} <= {moe.dtype_of(variant) for variant in there}


def test_kernels_that_no_engine_serves_with_are_never_asked_for() -> None:
    left = {moe.OLDER, moe.UNTUNED}
    for engine in ENGINES:
        for dtype in VARIANTS:
            for ranks in (1, 8, 64):
                asked = variants(engine, dtype, run(ranks=ranks))
                assert asked and not left & {variant.partition("-")[2] for variant in asked}


@pytest.mark.parametrize("dtype", ["fp32", "int8", "fp4"])
def test_a_dtype_without_measured_experts_has_no_variant(dtype: str) -> None:
    assert variants("vllm", dtype, run()) == ()


def price_s(
    gpu: str, engine: str, dtype: str, tokens: int, tp: int, ep: int, sizes: tuple[int, int, int, int]
) -> float:
    """Of the busiest rank, as a phase has it."""
    hidden, inter, top_k, experts = sizes
    asked = variants(engine, dtype, run(ranks=ep, inter=float(inter), top_k=float(top_k), experts=float(experts)))
    entry = load(gpu).find(moe.FAMILY, asked, engine)
    assert entry is not None
    work = rank_work(Routing("uniform"), experts, top_k, ep, 0, tokens).kernel
    return float(moe.FAMILY.estimate_s(entry, work, np.full(ep, tokens), top_k, hidden, inter / tp).max())


def test_engines_differ_where_servings_do() -> None:
    """Decode batches: what servings ask for beside TensorRT-LLM's kernels, by direction and rough size."""
    gpt_oss, qwen, kimi = (2880, 2880, 4, 128), (4096, 1024, 10, 512), (7168, 2048, 8, 384)
    for gpu in ("h100_sxm", "h200_sxm"):  # MXFP4 in vLLM: 0.65 to 0.7
        ratio = [
            price_s(gpu, "vllm", "mxfp4", n, 8, 1, gpt_oss) / price_s(gpu, "trtllm", "mxfp4", n, 8, 1, gpt_oss)
            for n in (16, 64, 256)
        ]
        assert 0.5 < np.mean(ratio) < 0.9
    split, shared = (
        [
            price_s("b200_sxm", "sglang", "fp8_block", n, *degrees, qwen)
            / price_s("b200_sxm", "trtllm", "fp8_block", n, *degrees, qwen)
            for n in (16, 64, 256)
        ]
        for degrees in ((4, 1), (1, 4))
    )
    assert np.mean(split) < 0.7 and np.mean(split) < np.mean(shared) - 0.2  # block FP8 in SGLang: 0.55 under expert-TP
    for n in (64, 256):  # int4: 1.75 to 2.5 times the time to read the weights at 0.75 of the bandwidth
        read_s = 3 * 7168 * 2048 / 8 * 384 * (1 - (1 - 8 / 384) ** n) * 0.53 / (0.75 * 4.8e12)
        assert 1.2 < price_s("h200_sxm", "vllm", "int4", n, 8, 1, kimi) / read_s < 2.6
