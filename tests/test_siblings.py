"""Parts of few rows, fitted over the same kernels of another GPU."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from dagc.calib import CalibrationError, Device, available, calibration_file, gemm, load
from dagc.calib.calibration import engines_of, moved
from dagc.calib.constants import Entry
from dagc.calib.families import FAMILIES
from dagc.calib.fitting import file, shipping
from dagc.calib.fitting.fit import Part, fit_part
from dagc.calib.fitting.siblings import BETTER, FAR_BETTER, MOST_ROWS, RICHER, over_siblings
from dagc.calib.fitting.tables import Key

FAMILY = gemm.FAMILY
DEVICES = {
    gpu: Device(**peaks)
    for gpu, peaks in json.loads((ROOT / "tools" / "devices.json").read_text(encoding="utf-8")).items()
}
RICH, POOR = "b200_sxm", "b300_sxm"
CONSTANTS = {
    "launch_s": 3e-6, "math_flops": 1.5e15, "hbm_Bps": 6e12, "sharpness": 2.0, "wave_share": 0.2, "tile_s": 1e-9,
    "k_step_s": 1e-10, "sms": 148.0, "element_B": 2.0, "quantise_Bps": 0.0,
}  # fmt: skip


def rows(gpu: str, count: int, seed: int, alike: bool = True) -> list[dict[str, str]]:
    """Times by the formula and a miss that waves over k: the same wave on every GPU, or, not `alike`, the opposite."""
    rng = np.random.default_rng(seed)
    m = 2.0 ** rng.integers(0, 13, count)
    n, k = (1024.0 * rng.integers(1, 17, count) for _ in range(2))
    fitted = Entry(gemm.GemmConstants(**CONSTANTS), {}, None, DEVICES[RICH], variant="bf16")  # type: ignore[arg-type]
    there = moved(FAMILY, fitted, DEVICES[gpu], "bf16")
    assert there is not None
    wave = np.exp((0.5 if alike else -0.5) * np.sin(2 * np.log2(n)) * np.cos(np.log2(m)))
    times = gemm.time_s(there.constants, m, n, k) * wave * np.exp(rng.normal(0, 0.01, count))
    return [
        {"gpu": gpu, "dtype": "bf16", "m": f"{a:g}", "n": f"{b:g}", "k": f"{c:g}", "latency_us": f"{t * 1e6:.6g}"}
        for a, b, c, t in zip(m, n, k, times, strict=True)
    ]


def alone(gpu: str, found: list[dict[str, str]]) -> Part:
    pytest.importorskip("scipy")
    return fit_part(Key(gpu, "vllm", "gemm", "bf16"), found, DEVICES[gpu])  # type: ignore[arg-type]


@cache
def rich() -> Part:
    return alone(RICH, rows(RICH, 80, 1))


@cache
def poor() -> Part:
    return alone(POOR, rows(POOR, 16, 2))


@cache
def leaning() -> Part:
    return next(part for part in over_siblings([rich(), poor()], DEVICES) if part.gpu == POOR)


def off(part: Part, seconds: np.ndarray) -> float:
    return float(np.median(np.abs(seconds / part.measured_s - 1)))


def test_few_rows_learn_from_a_sibling_what_they_cannot_show() -> None:
    part = leaning()
    assert part.entry is not None and part.entry.over is not None
    assert (part.entry.over.gpu, part.entry.over.engine) == (RICH, "vllm")
    assert off(part, part.by_row) < 0.6 * off(part, poor().by_row)
    assert off(part, part.by_shape) < 0.6 * off(part, poor().by_shape)
    fresh = rows(POOR, 200, 3)  # rows that neither GPU's fit has seen
    measured = np.array([float(row["latency_us"]) for row in fresh]) * 1e-6
    entry = poor().entry
    assert entry is not None
    own, over = (
        np.median(np.abs(FAMILY.estimate_s(each, *FAMILY.arguments(fresh)) / measured - 1))  # type: ignore[arg-type]
        for each in (entry, part.entry)
    )
    assert over < 0.6 * own
    assert over == pytest.approx(part.entry.error.median, abs=0.05)  # the stated error is that of new rows


def test_an_engine_that_calls_the_kernel_of_another_learns_from_it() -> None:
    few = alone(RICH, rows(RICH, 16, 4))
    own = replace(few, key=few.key._replace(engine="sglang"))
    part = next(part for part in over_siblings([rich(), own], DEVICES) if part.key.engine == "sglang")
    assert part.entry is not None and part.entry.over is not None and part.entry.engine == "sglang"
    assert (part.entry.over.gpu, part.entry.over.engine, part.entry.over.variant) == (RICH, "vllm", "")
    assert off(part, part.by_row) < 0.6 * off(own, own.by_row)


def test_a_sibling_that_misses_elsewhere_is_left_alone() -> None:
    own = alone(POOR, rows(POOR, 50, 2, alike=False))
    found = over_siblings([rich(), own], DEVICES)
    assert own in found
    assert own.entry is not None and own.entry.over is None


def test_many_rows_and_siblings_with_as_few_are_fitted_alone() -> None:
    assert over_siblings([poor(), replace(poor(), key=poor().key._replace(gpu="gb300"))], DEVICES)[0] is poor()
    many = replace(poor(), rows=poor().rows * (1 + MOST_ROWS // len(poor().rows)))
    richer = replace(rich(), rows=rich().rows * 10)
    assert over_siblings([richer, many], DEVICES)[1] is many


def test_hidden_shapes_are_hidden_from_the_sibling_too() -> None:
    """Both GPUs have the same shapes: the sibling's fit to all of them would tell what is asked."""
    own = alone(POOR, [{**row, "gpu": POOR} for row in rich().rows[:24]])
    kept = next(part for part in over_siblings([rich(), own], DEVICES) if part.gpu == POOR)
    assert kept.entry is not None and kept.entry.over is not None
    telling = [replace(each, entry=rich().entry) for each in rich().blind]
    told = next(part for part in over_siblings([replace(rich(), blind=telling), own], DEVICES) if part.gpu == POOR)
    assert off(told, told.by_shape) < 0.02 < 0.1 < off(kept, kept.by_shape)
    assert off(kept, kept.by_row) == off(told, told.by_row)  # rows of another GPU are no secret there
    unknown = over_siblings([replace(rich(), blind=()), own], DEVICES)  # no fit of the sibling is without them
    assert next(part for part in unknown if part.gpu == POOR) is own


def test_a_file_names_the_sibling_and_its_residual_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration_file, "folder", lambda: tmp_path)
    calibration_file.shipped.cache_clear()
    try:
        shipping.write(tmp_path, [rich(), leaning()], "here", "none", DEVICES)
        body = json.loads((tmp_path / POOR / "vllm" / "gemm.json").read_text(encoding="utf-8"))
        assert body["families"]["gemm"]["bf16"]["over"] == {"gpu": RICH, "engine": "vllm"}
        read = calibration_file.shipped(FAMILY, POOR, "vllm")["bf16"]
        made = leaning().entry
        assert made is not None
        np.testing.assert_allclose(
            FAMILY.estimate_s(read, *FAMILY.arguments(list(leaning().rows))),
            FAMILY.estimate_s(made, *FAMILY.arguments(list(leaning().rows))),
            rtol=1e-6,
        )
        assert file.body(read) == file.body(made)
        (tmp_path / RICH / "vllm" / "gemm.json").unlink()
        calibration_file.shipped.cache_clear()
        with pytest.raises(CalibrationError, match=f"gemm.bf16.over: the library has no bf16 of 'vllm' on '{RICH}'"):
            calibration_file.shipped(FAMILY, POOR, "vllm")["bf16"]
    finally:
        calibration_file.shipped.cache_clear()


def test_substitutes_are_not_judged_on_rows_that_they_know() -> None:
    """What stands in for the sibling is not what was fitted over it."""
    errors = shipping.substitute_errors([rich(), leaning()], DEVICES)
    assert errors["gpu"]["rows"] == len(leaning().rows)  # of the poor by the rich; nobody is left for the rich


def test_the_library_leans_on_parts_that_stand_alone() -> None:
    found = 0
    for gpu in available():
        for engine in (*engines_of(gpu), "common"):
            for family in FAMILIES.values():
                for entry in calibration_file.shipped(family, gpu, engine).values():
                    if entry.over is None:
                        continue
                    found += 1
                    below = load(entry.over.gpu).of(family, entry.over.engine)[entry.over.variant or entry.variant]
                    assert below.residual is entry.over.residual and below.over is entry.over.over
                    assert below.over is None or below.over.over is None
                    # Another engine's only where both call one kernel, on the same GPU.
                    kernels = {family.kernels(each.engine, each.variant) for each in (entry, below)}
                    assert len(kernels) == 1 and (entry.engine == below.engine or entry.gpu == below.gpu)
                    assert entry.error.rows <= MOST_ROWS and below.error.rows >= RICHER * entry.error.rows
    assert found > 50
    assert FAR_BETTER < BETTER < 1
