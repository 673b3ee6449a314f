"""Calibrated kernel times: stated errors against measured rows the fit did not see, limits, and bad files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiers import spread

from dagc.calib import (
    CalibrationError,
    all_to_all,
    available,
    collective,
    decode_attention,
    decode_mla,
    delta_decode,
    delta_prefill,
    domain_a2a,
    gemm,
    load,
    moe,
    moe_a2a,
    prefill_attention,
    prefill_mla,
    short_conv,
    sparse_mla_decode,
)
from dagc.calib.calibration import engines_of
from dagc.calib.calibration_file import checked, parse
from dagc.calib.constants import Entry
from dagc.calib.families import FAMILIES
from dagc.calib.family import MATH, Row
from dagc.calib.fitting import tables
from dagc.calib.fitting.fit import fit_part
from dagc.calib.gemm import GemmConstants
from dagc.calib.shape import overlap_s

KEPT = ROOT / "tests" / "data" / "calibration"


def shipped(*names: str) -> list[tuple[tables.AnyFamily, Entry[Any]]]:
    """Every entry of the library, or those of some families."""
    families = [FAMILIES[name] for name in names] or list(FAMILIES.values())
    return [
        (family, entry)
        for gpu in available()
        for engine in ("", *engines_of(gpu))
        for family in families
        for entry in load(gpu).of(family, engine).values()
        if engine or entry.engine == "common"
    ]


GEMMS = [entry for _, entry in shipped("gemm")]

size = st.integers(1, 1 << 15)


def measured() -> dict[tables.Key, list[Row]]:
    """Rows of the parts that are kept here whole."""
    found: dict[tables.Key, list[Row]] = {}
    for family in FAMILIES.values():
        found |= tables.groups(family, [KEPT])[0]
    return found


@pytest.mark.parametrize(
    "key",
    spread(measured(), of=lambda key: re.sub("^(prefill|decode)_|_(prefill|decode)$", "", key.family)),
    ids="-".join,
)
def test_stated_errors_are_those_of_rows_the_fit_did_not_see(key: tables.Key) -> None:
    """The whole fit of a part again, folds and all, gives the constants and the errors that the library states."""
    family = FAMILIES[key.family]
    entry = load(key.gpu).of(family, key.engine)[key.variant]
    part = fit_part(key, measured()[key], entry.device)
    assert part.entry is not None
    assert len(part.rows) == entry.error.rows >= 35
    for name in ("median", "p90", "bias", "unseen"):
        assert getattr(part.entry.error, name) == pytest.approx(getattr(entry.error, name), abs=2e-3), name
    signed = part.by_row / part.measured_s - 1
    assert np.median(np.abs(signed)) == pytest.approx(entry.error.median, abs=2e-3)
    seen = family.estimate_s(entry, *family.arguments(list(part.rows))) / part.measured_s - 1
    assert np.median(np.abs(seen)) < entry.error.median  # the shipped fit saw them


def test_every_entry_states_its_error() -> None:
    for family, entry in shipped():
        assert entry.error.rows >= 8 and 0 < entry.error.median <= entry.error.p90, (family.name, entry.table)
        assert entry.residual is None or not entry.residual.fault()


@pytest.mark.parametrize("entry", GEMMS, ids=lambda entry: f"{entry.table} {entry.variant}")
def test_large_gemm_runs_at_its_fitted_rate_below_peak(entry: Entry[GemmConstants]) -> None:
    peak = entry.device.flops[MATH.get(entry.variant, entry.variant)]
    n = 1 << 18
    rate = 2 * n**3 / float(gemm.time_s(replace(entry.constants, quantise_Bps=0.0), n, n, n))
    assert rate == pytest.approx(entry.constants.math_flops, rel=0.1)
    assert 0.1 * peak < rate <= peak


@pytest.mark.parametrize("entry", GEMMS, ids=lambda entry: f"{entry.table} {entry.variant}")
def test_tiny_gemm_costs_its_launch(entry: Entry[GemmConstants]) -> None:
    c = entry.constants
    assert c.launch_s < gemm.time_s(c, 1, 16, 16) < c.launch_s * 1.2


@settings(deadline=None)
@given(st.sampled_from(GEMMS), size, size, size)
def test_gemm_never_beats_the_datasheet_roofline(entry: Entry[GemmConstants], m: int, n: int, k: int) -> None:
    c = entry.constants
    compute = 2.0 * m * n * k / entry.device.flops[MATH.get(entry.variant, entry.variant)]
    memory = (c.element_B * (n * k + m * k) + 2 * m * n) / entry.device.hbm_Bps
    assert gemm.FAMILY.estimate_s(entry, m, n, k) >= max(compute, memory) * (1 - 1e-9)


GROWING: dict[str, Callable[[Any, NDArray[np.float64]], NDArray[np.float64]]] = {
    "gemm": lambda c, x: gemm.time_s(c, x, 4096, 7168),
    "moe": lambda c, x: moe.time_s(c, moe.expected_rows(np.multiply.outer(x, np.full(8, 0.25))), x, 8, 4096, 1536),
    "prefill_attention": lambda c, x: prefill_attention.time_s(c, 4, x, 32, 8, 128),
    "decode_attention": lambda c, x: decode_attention.time_s(c, 16, x, 32, 8, 128),
    "prefill_mla": lambda c, x: prefill_mla.time_s(c, 4, x, 16),
    "decode_mla": lambda c, x: decode_mla.time_s(c, 16, x, 16),
    "collective": lambda c, x: collective.time_s(c, 8, x * 1024),
    "custom_allreduce": lambda c, x: collective.time_s(c, 8, x * 1024),
    "all_to_all": lambda c, x: all_to_all.time_s(c, 8, x * 1024),
    "moe_a2a": lambda c, x: moe_a2a.time_s(c, x, 7168, 8, 8, 1),
    "short_conv": lambda c, x: short_conv.time_s(c, 8, x, 2048),
    "delta_prefill": lambda c, x: delta_prefill.time_s(c, 4, x, 4, 16),
    "delta_decode": lambda c, x: delta_decode.time_s(c, x, 16),
    "sparse_mla_decode": lambda c, x: sparse_mla_decode.time_s(c, x, 4096, 16, 7168, 1536, 128, 128, 64),
    "domain_a2a": lambda c, x: domain_a2a.time_s(c, x, 7168, 8, 32, 1),
}


@pytest.mark.parametrize("family", GROWING)
def test_more_work_is_never_faster(family: str) -> None:
    x = np.unique(np.geomspace(1, 1 << 17, 400).astype(int)).astype(float)
    for _, entry in shipped(family):
        t = GROWING[family](entry.constants, x)
        assert (np.diff(t) >= -1e-12 * t[1:]).all()
        assert t[-1] > 1.5 * t[0]
        assert t[0] < 1e-3, entry.table


def test_prefix_adds_its_keys_to_every_query_tile() -> None:
    """Two chunks cost the FLOPs of one prompt: far above launch, their times add up to its time."""
    c = load("h100_sxm").of(prefill_attention.FAMILY, "trtllm")["bf16_kv_bf16_hd128"].constants
    whole = prefill_attention.time_s(c, 64, 16384, 64, 8, 128)
    halves = prefill_attention.time_s(c, 64, 8192, 64, 8, 128, prefix=np.array([0, 8192])).sum()
    assert halves == pytest.approx(whole, rel=0.02)


def test_one_rank_takes_no_time() -> None:
    found = load("h100_sxm")
    for entry in found.of(collective.FAMILY).values():
        assert collective.time_s(entry.constants, 1, 1 << 20) == 0
    assert all_to_all.time_s(found.of(all_to_all.FAMILY)["all_to_all"].constants, 1, 1 << 20) == 0
    assert moe_a2a.time_s(found.of(moe_a2a.FAMILY, "vllm")["deepep_ll_dispatch"].constants, 64, 7168, 8, 1, 1) == 0


def test_scalars_and_arrays_agree() -> None:
    c = load("b200_sxm").of(gemm.FAMILY, "trtllm")["nvfp4"].constants
    m = np.array([1, 100, 5000])
    assert gemm.time_s(c, m, 4096, 4096).tolist() == [float(gemm.time_s(c, one, 4096, 4096)) for one in m]


def test_overlap_lies_between_maximum_and_sum() -> None:
    a, b = np.array([1e-6, 3e-6, 0.0]), np.array([2e-6, 3e-6, 0.0])
    assert overlap_s(1.0, a, b) == pytest.approx(a + b)
    assert overlap_s(200.0, a, b) == pytest.approx(np.maximum(a, b), rel=0.01)


@pytest.mark.parametrize("mean", [0.01, 0.5, 3.0, 30.0, 60.0, 64.0, 100.0, 700.0, 5000.0])
def test_expected_rows_against_drawn_ones(mean: float) -> None:
    drawn = np.random.default_rng(1).poisson(mean, size=(20000, 4))
    counted = moe.count_rows(drawn)
    expected = moe.expected_rows(np.full(4, mean))
    assert expected.rows == pytest.approx(4 * mean)
    assert expected.distinct == pytest.approx(counted.distinct.mean(), rel=0.05)
    assert expected.row_tiles == pytest.approx(counted.row_tiles.mean(), rel=0.05)


def test_outside_names_what_is_extrapolated() -> None:
    entry = load("h100_sxm").of(gemm.FAMILY, "trtllm")["bf16"]
    assert entry.outside(m=1, n=4096) == []
    assert entry.outside(m=1 << 20, n=4096, k=1) == ["m", "k"]
    with pytest.raises(KeyError):
        entry.outside(seq=1)


def test_every_family_is_listed_and_its_table_documented() -> None:
    """A module of a family that `families.py` does not list, a test of growth or a row of the docs that is missing."""
    modules = (path.stem for path in (ROOT / "dagc" / "calib").glob("*.py"))
    made = {name for name in modules if hasattr(import_module(f"dagc.calib.{name}"), "FAMILY")}
    assert made == set(FAMILIES) == set(GROWING)
    documented = (ROOT / "docs" / "calibration.md").read_text(encoding="utf-8")
    for family in FAMILIES.values():
        assert family.file in documented, family.name


def test_unknown_gpu_names_those_there_are() -> None:
    with pytest.raises(CalibrationError, match=r"no calibration for h20; available: .*h100_sxm"):
        load("h20")


def _change(path: str, value: object) -> str:
    """A good file with the value at `path` replaced, or removed when None."""
    root = json.loads((ROOT / "grammar/library/calibration/h100_sxm/trtllm/gemm.json").read_text(encoding="utf-8"))
    *parents, last = path.split("/")
    at = root
    for name in parents:
        at = at[name]
    at[last] = value
    if value is None:
        del at[last]
    return json.dumps(root)


BF16 = "families/gemm/bf16"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("source", None, "x: missing source"),
        ("licence", 3, "x: licence: expected text"),
        ("extra", 1, "x: unknown extra"),
        ("schema", 1, "x: a calibration of schema 1; this dagc reads schema 2"),
        ("schema", None, "x: a calibration of schema 1; this dagc reads schema 2"),
        ("schema", "2", "x: a calibration of schema '2'; this dagc reads schema 2"),
        ("engine", None, "x: missing engine"),
        (f"{BF16}/error/bias", "none", "x: gemm.bf16.error.bias: expected a finite number"),
        (f"{BF16}/residual/lengths", [0, 1, 1], "x: gemm.bf16.residual.lengths: expected more than 0"),
        (f"{BF16}/residual/most", -1, "x: gemm.bf16.residual.most: expected a finite number"),
        (f"{BF16}/residual/packed", "AAAA", "x: gemm.bf16.residual.packed: "),
        (f"{BF16}/residual/packed", "AADAfwAAwH8AAMB/AADAfw==", "x: gemm.bf16.residual.packed: a number is not finite"),
        (f"{BF16}/residual/lengths", [2, 2], "x: gemm.bf16.residual.lengths: expected 3, found 2"),
        (f"{BF16}/residual/lengths", [2, 2, 1e-308], "x: gemm.bf16.residual.lengths: expected 0.001 to 1000"),
        (f"{BF16}/residual/most", 1e9, "x: gemm.bf16.residual.most: expected at most 10"),
        (f"{BF16}/constants/math_flops", 1e40, "x: gemm.bf16.constants.math_flops: expected .* on this device"),
        (f"{BF16}/constants/sharpness", 1e-9, "x: gemm.bf16.constants.sharpness: expected 0.5 to 8 on this device"),
        (f"{BF16}/constants/launch_s", 1e308, "x: gemm.bf16.constants.launch_s: expected .* on this device"),
        (f"{BF16}/constants/sms", 0.1, "x: gemm.bf16.constants.sms: expected 132, found 0.1"),
        ("device/flops", {"bf16": 989e12}, "x: gemm.fp8: no such variant, or `device.flops` lacks its dtype"),
        (f"{BF16}/over", "b200_sxm", "x: gemm.bf16.over: expected an object"),
        (f"{BF16}/over", {"gpu": "b200_sxm"}, "x: gemm.bf16.over: missing engine"),
        (
            f"{BF16}/over",
            {"gpu": "h20", "engine": "vllm"},
            "x: gemm.bf16.over: the library has no bf16 of 'vllm' on 'h20'",
        ),
        (f"{BF16}/over", {"gpu": "b200_sxm", "engine": ".."}, "x: gemm.bf16.over: the library has no bf16 of '..'"),
        ("families/mow", {}, "x: families: unknown mow"),
        ("families", [], "x: families: expected an object"),
        ("families/gemm", [], "x: gemm: expected variants"),
        (f"{BF16}/constants/launch_s", None, "x: gemm.bf16.constants: missing launch_s"),
        (f"{BF16}/constants/lunch_s", 1.0, "x: gemm.bf16.constants: unknown lunch_s"),
        (f"{BF16}/constants/launch_s", "4us", "x: gemm.bf16.constants.launch_s: expected a finite number"),
        (f"{BF16}/constants/launch_s", True, "x: gemm.bf16.constants.launch_s: expected a finite number"),
        (f"{BF16}/constants/launch_s", -1.0, "x: gemm.bf16.constants.launch_s: expected a finite number"),
        (f"{BF16}/constants/launch_s", float("nan"), "x: not JSON"),
        (f"{BF16}/shapes/m", [1], "x: gemm.bf16.shapes.m: expected .least, greatest."),
        (f"{BF16}/shapes", 0, "x: gemm.bf16.shapes: expected ranges"),
        (f"{BF16}/error/p90", None, "x: gemm.bf16.error: missing p90"),
        ("device/flops", 1, "x: device.flops: expected FLOP/s by dtype"),
        ("device", "h100", "x: device: expected an object"),
    ],
)
def test_bad_file_is_told_where(path: str, value: object, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        checked(_change(path, value), "x")


def test_family_that_a_file_lacks_is_one_nobody_measured() -> None:
    """Files written before a family existed stay good."""
    assert not parse(_change("families/gemm", None), "x").of(gemm.FAMILY)


def test_a_family_says_how_far_each_of_its_features_reaches() -> None:
    """A residual of other features is refused, so every family has to say how many it has."""
    entries = [(family, entry.residual) for family, entry in shipped() if entry.residual is not None]
    assert {family.name for family, _ in entries} == set(FAMILIES)
    assert all(len(family.lengths) == len(residual.lengths) for family, residual in entries)


def test_file_that_is_not_json() -> None:
    with pytest.raises(CalibrationError, match="x: not JSON"):
        parse("{", "x")
