"""Quantised weights that share scales in blocks: a split that cuts a block is refused, wherever the dtype applies."""

from __future__ import annotations

import pytest
from conftest import spec_text
from hypothesis import given
from hypothesis import strategies as st

import dagc
from dagc.api import Plan
from dagc.base.diagnostics import Diagnostic
from dagc.cost.scale_blocks import Side
from dagc.export.engines import ENGINES
from dagc.export.engines.launch import export
from dagc.ir.op import Weight

MODEL = """layers = 4, hidden = 512, vocab = 500, dtype = bf16, weight_dtype = {dtype}, dense_first = 1
attention {{ heads = {heads}, kv_heads = {heads}, head_dim = {width} }}
mlp {{ hidden = {mlp} }}
experts {{ count = 8, top_k = 2, hidden = {experts}, shared = 1, shared_hidden = {shared} }}
{weights}"""
WIDE = {"heads": 8, "width": 128, "mlp": 2048, "experts": 1024, "shared": 1024, "weights": ""}


def compiled(phase: str, dtype: str = "fp8_block", **sizes: object) -> Plan:
    model = MODEL.format(**WIDE | sizes, dtype=dtype)
    return dagc.compile_text(spec_text(kind="decode", model=model, phase=phase))


def refused(phase: str, dtype: str = "fp8_block", **sizes: object) -> Diagnostic:
    with pytest.raises(dagc.SpecError) as caught:
        compiled(phase, dtype, **sizes)
    (found,) = [d for d in caught.value.diagnostics if d.code.startswith("E")]
    assert found.code == "E03"
    return found


TP8 = "gpus = 0..7, tp = 8"


@given(blocks=st.integers(1, 12), block=st.sampled_from([16, 32, 128]), degree=st.integers(1, 16))
def test_whole_parts_are_those_in_which_no_block_has_two_owners(blocks: int, block: int, degree: int) -> None:
    """Entry by entry: which ranks have each entry of a block."""
    entries = blocks * block
    side = Side(Weight("@w", (), "fp8_block"), ("ffn",), entries, block, degree)
    if entries % degree:
        assert not side.whole(degree)
        return
    owners = [{entry // (entries // degree) for entry in range(b * block, (b + 1) * block)} for b in range(blocks)]
    assert side.whole(degree) == all(len(found) == 1 for found in owners)


def test_what_divides_into_whole_blocks_compiles() -> None:
    compiled(TP8)


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ({"mlp": 1536}, "ffn 1536 / 8 = 192 is not a multiple of 128 (mlp.Wg, mlp.Wu, mlp.Wd)"),
        ({"shared": 512}, "shared_ffn 512 / 8 = 64 is not a multiple of 128 (moe_shared.Wsg, moe_shared.Wsu, moe_shared.Wsd)"),
        ({"experts": 1536}, "ffn 1536 / 8 = 192 is not a multiple of 128 (moe_shared.Wg, moe_shared.Wu, moe_shared.Wd)"),
        ({"width": 64}, "kv_heads x group x head_dim 512 / 8 = 64 is not a multiple of 128 (gqa.Wq, gqa.Wo)"),
    ],
)  # fmt: skip
def test_every_linear_that_the_dtype_is_for(sizes: dict[str, int], text: str) -> None:
    found = refused(TP8, **sizes)
    assert found.message == "tp 8 of `decode` cuts blocks of 128 in which fp8_block weights share a scale"
    assert any(text in line.replace(".moe_shared", "") for line in found.because), found.because
    assert found.help[0] == "tp = 4, 2, 1 keep blocks whole"


def test_key_heads_that_are_fewer_than_ranks_are_cut_into_as_many_parts() -> None:
    heads = "attention { heads = 16, kv_heads = 4, head_dim = 64 }"
    model = MODEL.format(**WIDE, dtype="fp8_block").replace(
        "attention { heads = 8, kv_heads = 8, head_dim = 128 }", heads
    )
    with pytest.raises(dagc.SpecError) as caught:
        dagc.compile_text(spec_text(kind="decode", model=model, phase=TP8))
    (found,) = caught.value.diagnostics
    assert found.message.startswith("tp 8 of `decode`")
    assert found.because == ("kv_heads x head_dim 256 / 4 = 64 is not a multiple of 128 (gqa.Wk, gqa.Wv)",)
    assert found.help == ("tp = 2, 1 keep blocks whole",)


def test_the_degrees_that_are_named_are_those_that_compile() -> None:
    sizes = {"mlp": 1536, "experts": 768}
    named = refused(TP8, **sizes).help[0]
    works = []
    for degree in (4, 2):
        try:
            compiled(f"gpus = 0..{degree - 1}, tp = {degree}", **sizes)
        except dagc.SpecError:
            continue
        works.append(degree)
    assert named == f"tp = {', '.join(map(str, [*works, 1]))} keep blocks whole"


def test_whole_experts_on_their_ranks_are_not_cut() -> None:
    compiled("gpus = 0..7, attention { tp = 8 }, experts { ep = 8 }", experts=1536)
    found = refused("gpus = 0..7, attention { tp = 8 }, experts { ep = 1, tp = 8 }", experts=1536)
    assert "tp of the experts 8" in found.message or "tp 8" in found.message
    assert found.help[-1] == "`ep` gives ranks whole experts instead"


def test_parts_that_are_left_in_16_bits_may_be_cut_anywhere() -> None:
    compiled(TP8, experts=1536, weights="weights { experts = bf16 }")
    compiled(TP8, mlp=1536, weights="weights { mlp = bf16 }")
    refused(TP8, mlp=1536, experts=1536, weights="weights { mlp = bf16 }")


def test_what_is_one_number_a_head_is_in_no_block() -> None:
    """Qwen3-Next in FP8 runs on four ranks: its rates and decays are left in 16 bits, 32 columns do not contain a block of 128."""
    text = """moe 1
hardware from "h200-sxm" {{ gpus = 8 }}
model from "qwen3-next-80b-a3b" {{ weight_dtype = fp8_block }}
workload {{ sequences = 8, prompt = 64 tok, output = 8 tok }}
phase decode {{ gpus = 0..{}, tp = {} }}"""
    plan = dagc.compile_text(text.format(3, 4))
    dtypes = {w.name: w.dtype for s in plan.phases["decode"].graph.segments for w in s.weights}
    assert dtypes["@gated_delta.Wb"] == dtypes["@gated_delta.Wa"] == "bf16"
    assert dtypes["@gated_delta.Wq"] == dtypes["@gated_delta.Wo"] == "fp8_block"
    with pytest.raises(dagc.SpecError, match="cuts blocks of 128") as caught:
        dagc.compile_text(text.format(7, 8))
    (error,) = caught.value.diagnostics
    assert all("ffn 512 / 8 = 64" in line for line in error.because)
    assert "tp = 4, 2, 1 keep blocks whole" in error.help


@pytest.mark.parametrize(
    ("dtype", "experts", "fits"),
    [
        ("nvfp4", 128, True),
        ("nvfp4", 192, False),
        ("mxfp8", 256, True),
        ("mxfp8", 384, False),
        ("int4_g32", 256, True),
        ("int4_g128", 1536, False),
        ("int4_g64_zp", 1536, True),
        ("fp8_b64x32", 512, True),
        ("fp8_b64x32", 256, False),
        ("fp8_b32x64", 256, False),
        ("int4", 24, True),
        ("fp8", 24, True),
        ("bf16", 24, True),
    ],
)
def test_groups_lie_along_the_summed_dimension(dtype: str, experts: int, fits: bool) -> None:
    parts = f"weights {{ experts = {dtype} }}"
    if fits:
        compiled(TP8, "bf16", experts=experts, weights=parts)
        return
    found = refused(TP8, "bf16", experts=experts, weights=parts)
    if dtype.startswith(("nvfp4", "int4", "mx")):
        assert "(moe_shared.Wd)" in found.because[0].replace(".moe_shared", ""), "gate and up are cut between columns"


def test_blocks_of_mxfp4_are_filled_up() -> None:
    """gpt-oss runs over 8 ranks, whose 360 of 2880 columns are 12 blocks of 32."""
    text = """moe 1
hardware from "h200-sxm" { gpus = 8 }
model from "gpt-oss-120b" { }
workload { sequences = 8, prompt = 64 tok, output = 8 tok }
phase decode { gpus = 0..7, tp = 8 }
"""
    one = dagc.compile_text(text.replace("0..7, tp = 8", "[0]")).phases["decode"]
    eight = dagc.compile_text(text).phases["decode"]
    experts = 36 * 128 * 3 * 2880 * 2880 * 0.53125
    split = one.memory.worst.weights_B - experts
    assert eight.memory.worst.weights_B - experts / 8 * 384 / 360 < split
    assert eight.memory.worst.weights_B > experts / 8 * 384 / 360


@pytest.mark.parametrize("engine", ENGINES)
def test_no_engine_is_handed_such_a_plan(engine: str) -> None:
    with pytest.raises(dagc.SpecError, match="share a scale"):
        export(compiled(TP8, experts=1536), engine, None, "plan")


def test_every_phase_says_what_it_cuts() -> None:
    model = MODEL.format(**WIDE | {"experts": 1536}, dtype="fp8_block")
    second = "phase prefill { gpus = 0..7, tp = 8 }"
    with pytest.raises(dagc.SpecError) as caught:
        dagc.compile_text(spec_text(kind="decode", model=model, phase=TP8, extra=second))
    assert [d.message.split("`")[1] for d in caught.value.diagnostics] == ["decode", "prefill"]
