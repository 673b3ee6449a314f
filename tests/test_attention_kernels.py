"""Measured attention: classes of head widths, windows, and what prices make of both. The errors that entries state are fitted
again in test_calib.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import spec_text
from tiers import in_turn

import dagc
from dagc.calib import decode_attention, load, prefill_attention
from dagc.calib.calibration import engines_of
from dagc.calib.constants import Entry
from dagc.calib.family import Family
from dagc.calib.head_widths import CLASSES, classes_near, width_class
from dagc.calib.prefill_attention import seen_of
from dagc.calib.served_kernels import served_by
from dagc.cost.price import price

SERVED = ("h100_sxm", "h200_sxm", "b200_sxm", "b300_sxm", "gb200", "gb300")
ENGINES = ("trtllm", "vllm", "sglang")


def entries(family: Family[Any]) -> list[Entry[Any]]:
    return [
        entry
        for gpu in SERVED
        for engine in ENGINES
        for entry in load(gpu).of(family, engine).values()
        if entry.engine == engine
    ]


def test_every_engine_of_every_served_gpu_has_attention() -> None:
    """Of both caches and every class of head widths that has rows; all else has a nearest that says so."""
    for gpu in SERVED:
        assert set(ENGINES) <= set(engines_of(gpu))
        for engine in ENGINES:
            calibration = load(gpu)
            for kv in ("bf16", "fp8"):
                own = calibration.find(decode_attention.FAMILY, decode_attention.key(kv, "hd128", 8, 1), engine)
                assert own is not None and own.gpu == gpu and own.engine == engine and not own.instead_of
                for width in CLASSES:
                    for windowed in (False, True):
                        name = width_class(width, windowed)
                        near = calibration.find(decode_attention.FAMILY, decode_attention.key(kv, name, 8, 1), engine)
                        assert near is not None
                        measured = (near.gpu, near.engine, near.variant) == (
                            gpu,
                            engine,
                            decode_attention.key(kv, name, 8, 1),
                        )
                        assert measured is not bool(near.instead_of)
                        prefill = calibration.find(
                            prefill_attention.FAMILY, prefill_attention.key("bf16", kv, name), engine
                        )
                        assert prefill is not None


def test_classes_of_widths() -> None:
    assert [width_class(w, False) for w in (64, 96, 128, 160, 192, 224, 256, 320, 512, 576)] == [
        "hd128", "hd128", "hd128", "hd192", "hd192", "hd256", "hd256", "hd512", "hd512", "hd512",
    ]  # fmt: skip
    assert (width_class(256, True), width_class(128, True)) == ("hd256w", "hd128")
    assert classes_near(256, True)[:2] == ("hd256w", "hd256")
    assert set(classes_near(64, False)) == {"hd128", "hd192", "hd256", "hd256w", "hd512"}


@pytest.mark.parametrize("seq, window", [(1, 1), (5, 3), (100, 128), (128, 128), (1000, 7)])
def test_share_that_a_window_leaves(seq: int, window: int) -> None:
    pairs = sum(min(t, window) for t in range(1, seq + 1))
    assert seen_of(seq, window) == pytest.approx(pairs / (seq * (seq + 1) / 2))
    assert seen_of(seq, 0) == 1.0


def test_rows_of_kernels_that_an_engine_does_not_serve_with() -> None:
    row = {"backend": "sglang", "gpu": "b200_sxm", "kernel": "fi", "head_dim": "128", "window_size": "0"}
    assert served_by(row) is None
    assert served_by({**row, "kernel": "trtllm_mha"}) is not None
    assert served_by({**row, "kernel": "trtllm_mha", "head_dim": "256"}) is None
    assert served_by({**row, "kernel": "trtllm_mha", "head_dim": "256", "window_size": "1024"}) is not None
    assert served_by({**row, "gpu": "h100_sxm"}) is not None and served_by({**row, "backend": "vllm"}) is not None


def test_longer_contexts_cost_more() -> None:
    """By formula always; with the residual over a doubling of what a serving holds, but for the scatter of the tables."""
    lengths = 2.0 ** np.arange(8, 17)
    for entry in entries(decode_attention.FAMILY):
        width = entry.shapes["head_dim"][1]
        plain = decode_attention.time_s(entry.constants, 32, lengths, 8, 1, width, lengths)
        assert (np.diff(plain) > 0).all(), (entry.table, entry.variant)
    for entry in entries(prefill_attention.FAMILY):
        width = entry.shapes["head_dim"][1]
        plain = prefill_attention.time_s(entry.constants, 1, lengths, 8, 1, width)
        assert (np.diff(plain) > 0).all(), (entry.table, entry.variant)


def test_no_time_beats_the_datasheet() -> None:
    """Bytes of K and V at the peak of the memory; FLOPs of the pairs at the peak of the faster dtype."""
    for entry in entries(decode_attention.FAMILY):
        width = entry.shapes["head_dim"][1]
        least = 64 * 2 * 2 * width * entry.constants.kv_B * 32768 / entry.device.hbm_Bps
        took = decode_attention.FAMILY.estimate_s(entry, 64, 32768, 16, 2, width, 32768)
        assert took >= least * (1 - 1e-9), (entry.table, entry.variant)
    for entry in entries(prefill_attention.FAMILY):
        width = entry.shapes["head_dim"][1]
        pairs = 8192 * 8192 / 2
        least = 4 * 2 * 16 * width * pairs / max(entry.device.flops["bf16"], entry.device.flops["fp8"])
        took = prefill_attention.FAMILY.estimate_s(entry, 2, 8192, 16, 2, width)
        assert took >= least * (1 - 1e-9), (entry.table, entry.variant)


def attention_s(engine: str, window: int, kind: str, width: int) -> float:
    """Seconds of the busiest rank in the attention of a layer."""
    bounded = f", window = {window}" if window else ""
    text = spec_text(
        model="layers = 1, hidden = 2048, vocab = 512, dtype = bf16\n"
        f"attention {{ kind = gqa, heads = 16, kv_heads = 4, head_dim = {width}{bounded} }}\n"
        "experts { count = 8, top_k = 2, hidden = 512 }",
        phase=f"gpus = 0..3, tp = 4, engine = {engine}",
        kind=kind,
        workload="sequences = 8, prompt = 8192 tok, output = 16 tok",
    )
    text = text.replace("compute = 400 TFLOP/s,", "calibration = h100_sxm, compute = 989 TFLOP/s,")
    plan = dagc.compile_text(text)
    phase = plan.phases[next(iter(plan.phases))]
    costs = price(phase.graph, plan.units[next(iter(plan.phases))])
    kinds = {(s.name, op.name): op.kind for s in phase.graph.segments for op in s.ops}
    found = [cost for place, cost in costs.ops.items() if kinds.get(place) == "attend"]
    assert found and all(cost.family.endswith("_attention") for cost in found)
    return max(float(cost.time_s.max()) for cost in found)


@pytest.mark.parametrize(("engine", "kind", "width"), in_turn(ENGINES, ["prefill", "decode"], [128, 192, 256]))
def test_no_window_is_dearer_than_full_attention(engine: str, kind: str, width: int) -> None:
    """Nor is one as long as the context another price than none."""
    whole = attention_s(engine, 0, kind, width)
    windows = [attention_s(engine, window, kind, width) for window in (128, 1024, 4096)]
    assert all(each <= whole * (1 + 1e-9) for each in windows)
    assert windows[0] < whole
    assert attention_s(engine, 1 << 17, kind, width) == pytest.approx(whole)


@pytest.mark.parametrize("entry", entries(decode_attention.FAMILY), ids=lambda e: f"{e.table} {e.variant}")
def test_a_window_shortens_decode(entry: Entry[Any]) -> None:
    """By formula, from where the context is many windows long."""
    width = entry.shapes["head_dim"][1]
    narrow = decode_attention.time_s(entry.constants, 64, 1024, 16, 2, width, 32768)
    assert narrow < decode_attention.time_s(entry.constants, 64, 32768, 16, 2, width, 32768)
