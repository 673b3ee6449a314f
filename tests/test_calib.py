"""Calibrated kernel times: stated errors against measured rows the fit did not see, limits, and bad files."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dagc.calib import (
    CalibrationError,
    all_to_all,
    available,
    collective,
    decode_attention,
    decode_mla,
    domain_a2a,
    gemm,
    load,
    moe,
    moe_a2a,
    prefill_attention,
    prefill_mla,
)
from dagc.calib.calibration_file import parse
from dagc.calib.families import FAMILIES
from dagc.calib.family import MATH, Row
from dagc.calib.fitting import tables
from dagc.calib.shape import overlap_s

HELD_OUT = ROOT / "tests" / "data" / "calibration"
DENSE = ("h100_sxm", "h200_sxm", "b200_sxm")
GEMMS = [(gpu, dtype) for gpu in available() for dtype in load(gpu).of(gemm.FAMILY)]
CASES = [(gpu, family) for gpu in available() for family in FAMILIES.values()]
# Medians above a tenth, and why: docs/calibration.md.
POOR = {
    ("b200_sxm", "moe", "nvfp4"),
    ("b200_sxm", "moe", "w4a8_mxfp4_mxfp8"),
    ("h100_sxm", "moe", "w4a16_mxfp4"),
    ("h200_sxm", "moe", "w4a16_mxfp4"),
}

size = st.integers(1, 1 << 15)


@cache
def held_out(family: tables.AnyFamily) -> dict[tuple[str, str], list[Row]]:
    """A family without a table is one that nobody measured yet."""
    if not (HELD_OUT / family.file).exists():
        return {}
    return tables.groups(family, tables.read(HELD_OUT / family.file))


@pytest.mark.parametrize(("gpu", "family"), CASES, ids=lambda case: getattr(case, "name", case))
def test_stated_errors_hold_on_rows_the_fit_did_not_see(gpu: str, family: tables.AnyFamily) -> None:
    stated = load(gpu).of(family)
    rows = {variant: found for (where, variant), found in held_out(family).items() if where == gpu}
    assert set(rows) == set(stated)
    for variant, entry in stated.items():
        error = tables.relative_error(family, entry.constants, rows[variant])
        assert len(error) == entry.error.rows
        assert np.median(error) == pytest.approx(entry.error.median, abs=2e-4)
        assert np.quantile(error, 0.9) == pytest.approx(entry.error.p90, abs=2e-4)


@pytest.mark.parametrize("gpu", DENSE)
def test_medians_within_a_tenth(gpu: str) -> None:
    """Over all variants of a family; GEMM and MoE also by dtype."""
    for family in FAMILIES.values():
        pooled: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
        for variant, entry in load(gpu).of(family).items():
            error = tables.relative_error(family, entry.constants, held_out(family)[gpu, variant])
            pooled[variant if family.name in ("gemm", "moe") else "all"].append(error)
        for variant, errors in pooled.items():
            poor = (gpu, family.name, variant) in POOR
            assert bool(np.median(np.concatenate(errors)) > 0.1) == poor, (gpu, family.name, variant)


@pytest.mark.parametrize(("gpu", "dtype"), GEMMS)
def test_large_gemm_runs_at_its_fitted_rate_below_peak(gpu: str, dtype: str) -> None:
    found = load(gpu)
    peak = found.device.flops[MATH.get(dtype, dtype)]
    n = 1 << 18
    rate = 2 * n**3 / float(gemm.time_s(found.of(gemm.FAMILY)[dtype].constants, n, n, n))
    assert rate == pytest.approx(found.of(gemm.FAMILY)[dtype].constants.math_flops, rel=0.05)
    assert 0.2 * peak < rate <= peak


@pytest.mark.parametrize(("gpu", "dtype"), GEMMS)
def test_tiny_gemm_costs_its_launch(gpu: str, dtype: str) -> None:
    c = load(gpu).of(gemm.FAMILY)[dtype].constants
    assert c.launch_s < gemm.time_s(c, 1, 16, 16) < c.launch_s * 1.1


@settings(deadline=None)
@given(st.sampled_from(GEMMS), size, size, size)
def test_gemm_never_beats_the_datasheet_roofline(case: tuple[str, str], m: int, n: int, k: int) -> None:
    found, dtype = load(case[0]), case[1]
    c = found.of(gemm.FAMILY)[dtype].constants
    compute = 2.0 * m * n * k / found.device.flops[MATH.get(dtype, dtype)]
    memory = (c.element_B * (n * k + m * k) + 2 * m * n) / found.device.hbm_Bps
    assert gemm.time_s(c, m, n, k) >= max(compute, memory)


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
    "domain_a2a": lambda c, x: domain_a2a.time_s(c, x, 7168, 8, 32, 1),
}


@pytest.mark.parametrize("family", GROWING)
def test_more_work_is_never_faster(family: str) -> None:
    x = np.unique(np.geomspace(1, 1 << 17, 400).astype(int)).astype(float)
    for gpu in available():
        for entry in load(gpu).of(FAMILIES[family]).values():
            t = GROWING[family](entry.constants, x)
            assert (np.diff(t) >= -1e-12 * t[1:]).all()
            assert t[-1] > 1.5 * t[0]
            assert t[0] < 1e-3


def test_prefix_adds_its_keys_to_every_query_tile() -> None:
    """Two chunks cost the FLOPs of one prompt: far above launch, their times add up to its time."""
    c = load("h100_sxm").of(prefill_attention.FAMILY)["bf16_kv_bf16_hd128"].constants
    whole = prefill_attention.time_s(c, 64, 16384, 64, 8, 128)
    halves = prefill_attention.time_s(c, 64, 8192, 64, 8, 128, prefix=np.array([0, 8192])).sum()
    assert halves == pytest.approx(whole, rel=0.02)


def test_one_rank_takes_no_time() -> None:
    found = load("h100_sxm")
    for entry in found.of(collective.FAMILY).values():
        assert collective.time_s(entry.constants, 1, 1 << 20) == 0
    assert all_to_all.time_s(found.of(all_to_all.FAMILY)["all_to_all"].constants, 1, 1 << 20) == 0
    assert moe_a2a.time_s(found.of(moe_a2a.FAMILY)["deepep_ll_dispatch"].constants, 64, 7168, 8, 1, 1) == 0


def test_scalars_and_arrays_agree() -> None:
    c = load("b200_sxm").of(gemm.FAMILY)["nvfp4"].constants
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
    entry = load("h100_sxm").of(gemm.FAMILY)["bf16"]
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
        assert any(line.startswith(f"| {family.name} ") for line in documented.splitlines()), family.name


def test_unknown_gpu_names_those_there_are() -> None:
    with pytest.raises(CalibrationError, match=r"no calibration for h20; available: .*h100_sxm"):
        load("h20")


def _change(path: str, value: object) -> str:
    """A good file with the value at `path` replaced, or removed when None."""
    root = json.loads((ROOT / "grammar/library/calibration/h100_sxm.json").read_text(encoding="utf-8"))
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
        ("families/mow", {}, "x: families: unknown mow"),
        ("families", [], "x: families: expected an object"),
        ("families/moe", [], "x: moe: expected variants"),
        (f"{BF16}/constants/launch_s", None, "x: gemm.bf16.constants: missing launch_s"),
        (f"{BF16}/constants/lunch_s", 1.0, "x: gemm.bf16.constants: unknown lunch_s"),
        (f"{BF16}/constants/launch_s", "4us", "x: gemm.bf16.constants.launch_s: expected a finite number"),
        (f"{BF16}/constants/launch_s", True, "x: gemm.bf16.constants.launch_s: expected a finite number"),
        (f"{BF16}/constants/launch_s", -1.0, "x: gemm.bf16.constants.launch_s: expected a finite number"),
        (f"{BF16}/constants/launch_s", float("nan"), "x: gemm.bf16.constants.launch_s: expected a finite number"),
        (f"{BF16}/shapes/m", [1], "x: gemm.bf16.shapes.m: expected .least, greatest."),
        (f"{BF16}/shapes", 0, "x: gemm.bf16.shapes: expected ranges"),
        (f"{BF16}/error/p90", None, "x: gemm.bf16.error: missing p90"),
        ("device/flops", 1, "x: device.flops: expected FLOP/s by dtype"),
        ("device", "h100", "x: device: expected an object"),
    ],
)
def test_bad_file_is_told_where(path: str, value: object, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        parse(_change(path, value), "x")


def test_family_that_a_file_lacks_is_one_nobody_measured() -> None:
    """Files written before a family existed stay good."""
    assert not parse(_change("families/moe", None), "x").of(moe.FAMILY)


def test_file_that_is_not_json() -> None:
    with pytest.raises(CalibrationError, match="x: not JSON"):
        parse("{", "x")
