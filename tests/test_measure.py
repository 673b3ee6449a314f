"""dagc measure: which kernels a plan has, the tables, the fit, and the CPU path where PyTorch is installed."""

from __future__ import annotations

import csv
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import forked_ranks
import numpy as np
import pytest
from conftest import ROOT, compiled, spec_text
from tiers import all_tests

import dagc
from dagc.api import compile_text
from dagc.base.diagnostics import Collector
from dagc.base.syntax.input import read_source
from dagc.calib import available, decode_attention, gemm, load, moe, prefill_attention
from dagc.calib.decode_attention import DecodeAttentionConstants
from dagc.calib.families import FAMILIES
from dagc.calib.family import COMMON, Table, column
from dagc.calib.fitting import tables
from dagc.calib.gemm import GemmConstants
from dagc.calib.moe import MoeConstants
from dagc.calib.prefill_attention import PrefillAttentionConstants
from dagc.cli import main
from dagc.lang.load import load as load_spec
from dagc.measure import csv_tables
from dagc.measure.calibrate import calibrate
from dagc.measure.extract import PlanKernel, collectives, kernels
from dagc.measure.jobs import Decode, Exchange, Experts, Gemm, Job, Prefill, RowWise, neighbours
from dagc.measure.summary import report
from dagc.measure.timer import Result
from dagc.measure.timing import Effort, Timing
from dagc.measure.torch_device import TorchDevice

Capture = pytest.CaptureFixture[str]
MODEL = """layers = 4, hidden = 64, vocab = 512, dtype = bf16 {extra}
attention {{ kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 {attention} }}
experts {{ count = 8, top_k = 2, hidden = 32 }}"""
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed: pip install -e '.[torch]'"
)


def spec(phase: str, kind: str, *, extra: str = "", attention: str = "") -> str:
    return spec_text(phase=phase, kind=kind, model=MODEL.format(extra=extra, attention=attention))


def found(text: str, kind: str = "") -> list[PlanKernel]:
    return [k for k in kernels(compile_text(text)) if kind in ("", k.kind)]


def jobs(text: str, kind: str) -> list[Job | None]:
    return [kernel.job for kernel in found(text, kind)]


# -- the machine itself ----------------------------------------------------------------------------


@needs_torch
def test_what_a_process_of_this_machine_reaches(tmp_path: Path) -> None:
    """The section is measured, and a plan on it compiles with what it says."""
    path = tmp_path / "machine.moe"
    command = [forked_ranks.python(), "-m", "dagc", "measure", "--machine", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    spec = tmp_path / "p.moe"
    text = spec_text(phase="gpus = 0..1, tp = 2")
    start, end = text.index("hardware"), text.index("model")
    spec.write_text(f'{text[:start]}hardware cpu from "machine.moe" {{ gpus = 2, per_node = 2 }}\n{text[end:]}')
    hardware = dagc.compile(spec).spec.hardware
    assert hardware.kind == "cpu" and hardware.mfu == hardware.mbu == 1.0
    assert 1e8 < hardware.compute_flops["fp64"] < 1e14 and 1e8 < hardware.hbm_Bps < 1e13
    assert 1e-8 < hardware.launch_s < 1e-2 and 1e-7 < hardware.node.latency_s < 1.0


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "takes a spec, or"),
        (["p.moe", "--machine", "m.moe"], "takes a spec, or"),
        (["--machine", "m.json"], "ends in .moe"),
        (["--machine", "none/of/it/m.moe/x.moe"], ""),
    ],
)
@needs_torch
def test_what_is_measured_is_said(argv: list[str], said: str, tmp_path: Path, capsys: Capture) -> None:
    if not said:
        (tmp_path / "file").write_text("")
        argv = ["--machine", str(tmp_path / "file" / "m.moe")]
    assert main(["measure", *argv]) == 2
    assert said in capsys.readouterr().err


# -- which kernels ---------------------------------------------------------------------------------


def test_kernels_of_a_prefill() -> None:
    """64 sequences of 256 tokens over ep 4: 16 a rank; tp 2 halves heads, expert width and vocabulary."""
    text = spec("gpus = 0..7, ep = 4, tp = 2", "prefill")
    tokens = 16 * 256
    assert jobs(text, "gemm") == [
        Gemm("bf16", tokens, (4 + 2 + 2) * 8, 64),  # 4 query heads, 2 of keys, 2 of values
        Gemm("bf16", tokens, 64, 4 * 8),
        Gemm("bf16", tokens, 8, 64),  # the router
        Gemm("bf16", 16, 256, 64),  # half of the head, on the last token of each sequence
    ]
    assert jobs(text, "prefill attention") == [Prefill("bf16", 16, 4, 2, 8, 256)]
    (expert,) = jobs(text, "experts")
    # Every token of the four ranks is routed; a rank's 2 of 8 experts get a quarter of their 2 choices.
    mean = 4 * tokens * 2 // 4
    assert isinstance(expert, Experts)
    rows = expert.total_rows  # of the busiest rank
    assert mean < rows < 1.02 * mean
    assert expert == Experts("bf16", 64, 16, 2, 8, 4, 2, rows, rows, (0.5, 0.5), "uniform")
    assert jobs(text, "rms_norm") == [RowWise("rms_norm", "bf16", n, 64) for n in (tokens, tokens, 16)]
    assert jobs(text, "add") == [RowWise("add", "bf16", tokens, 64)] * 2


def test_kernels_of_a_decode_with_drafts() -> None:
    """Two drafted tokens: three query tokens per sequence, which read the cache as further heads."""
    text = spec("gpus = 0..7, dp = 8, draft = 2, acceptance = 0.5", "decode")
    assert jobs(text, "decode attention") == [Decode("bf16", 8, 8 * 3, 4, 8, 256 + 16)]
    assert jobs(text, "gemm")[0] == Gemm("bf16", 8 * 3, 16 * 8, 64)
    (expert,) = jobs(text, "experts")
    assert isinstance(expert, Experts)
    assert (expert.tokens, expert.total_rows, len(expert.shares)) == (24, 48, 8)


def test_layers_and_estimates_are_the_plan_s() -> None:
    plan = compiled("mixtral_8xh100")
    own = {k.ops: k for k in kernels(plan, ["decode"]) if k.segment == "sparse"}
    product = own["gqa.q", "gqa.k", "gqa.v"]
    assert product.job == Gemm("bf16", 64, (4 + 1 + 1) * 128, 4096)
    assert (product.layers, product.family) == (32, "gemm")
    entry = load("h100_sxm").of(gemm.FAMILY, "trtllm")["bf16"]
    assert product.estimate_s == pytest.approx(float(gemm.FAMILY.estimate_s(entry, 64, 768, 4096)))
    assert {k.phase for k in kernels(plan, ["decode"])} == {"decode"}


def test_zipf_rows_are_the_busiest_rank_s() -> None:
    """One expert per rank: the busiest rank has the most popular one, with its share of the 128 choices."""
    (expert,) = [k.job for k in kernels(compiled("mixtral_8xh100"), ["decode"]) if k.kind == "experts"]
    assert isinstance(expert, Experts)
    weights = np.arange(1, 9) ** -0.3
    mean = 128 * weights[0] / weights.sum()
    assert mean < expert.total_rows < mean + 4  # steps in which another rank is the busiest add to it
    assert expert.rows == (expert.total_rows,) and expert.distribution == "zipf_0.3"


def test_a_prefix_and_chunks_are_cached_tokens() -> None:
    text = spec("gpus = 0..7, dp = 8, prefix = 64 tok", "prefill")
    assert jobs(text, "prefill attention") == [Prefill("bf16", 8, 8, 4, 8, 192, 64)]
    assert Prefill("bf16", 8, 8, 4, 8, 192, 64).columns() is None


@pytest.mark.parametrize(
    ("extra", "attention", "kind", "reason"),
    [
        (", kv_dtype = fp8", "", "prefill attention", "attention over a cache in fp8"),
        (", attention_dtype = fp8", "", "prefill attention", "attention in fp8"),
        ("", ", window = 16", "prefill attention", "window or chunk"),
        (", weight_dtype = fp8", "", "experts", "grouped fp8 product"),
        (", weight_dtype = nvfp4", "", "gemm", "no nvfp4 product"),
    ],
)
def test_what_cannot_be_timed_says_why(extra: str, attention: str, kind: str, reason: str) -> None:
    kernel = found(spec("gpus = 0..7, dp = 8", "prefill", extra=extra, attention=attention), kind)[0]
    assert kernel.job is None and reason in kernel.reason


def test_a_window_shortens_the_context_of_decode() -> None:
    text = spec("gpus = 0..7, dp = 8", "decode", attention=", window = 16")
    assert jobs(text, "decode attention") == [Decode("bf16", 8, 8, 4, 8, 16)]


def test_latent_attention_and_compute_kernels_of_every_example() -> None:
    """Every op that takes time is in exactly one kernel."""
    for name in ("deepseek_v3_h800", "plan_a")[: 2 if all_tests() else 1]:
        plan = compiled(name)
        listed = [(k.phase, k.segment, op) for k in kernels(plan) for op in k.ops]
        assert len(listed) == len(set(listed))
        for phase, result in plan.phases.items():
            for segment in result.graph.segments:
                for op in segment.ops:
                    cost = result.costs.ops[segment.name, op.name]
                    if not op.is_collective and cost.time_s.max() > 0:
                        assert (phase, segment.name, op.name) in listed
    latent = [k for k in kernels(compiled("deepseek_v3_h800")) if k.kind == "attention"]
    assert latent and all(k.job is None and "latent" in k.reason for k in latent)


def test_collectives_as_nccl_counts_their_bytes() -> None:
    plan = compiled("plan_a")
    own = {k.ops[0]: k for k in collectives(plan) if k.phase == "prefill" and k.segment == "sparse"}
    # K and V of 4 sequences, 5120 of 10240 tokens and 8 heads of 32 numbers of 2 bytes, gathered over sp 2.
    assert own["gqa.o_v.all_gather"].job == Exchange("all_gather", 2, 2 * 4 * 5120 * 8 * 32 * 2)
    assert own["gqa.y.all_reduce"].job == Exchange("all_reduce", 2, 4 * 5120 * 512 * 2)
    assert own["moe.t.all_to_all"].job is None and "2 nodes" in own["moe.t.all_to_all"].reason


def test_known_calibrations_are_those_that_load() -> None:
    assert len(available()) >= 6 and [load(gpu).gpu for gpu in available()] == available()


# -- sizes around, tables ----------------------------------------------------------------------------

ALL: list[Job] = [
    Gemm("fp16", 64, 128, 256),
    Experts("bf16", 64, 16, 2, 8, 4, 2, 100, 50, (0.75, 0.25), "zipf_0.5"),
    Prefill("bf16", 2, 8, 4, 64, 128),
    Decode("bf16", 2, 8, 4, 64, 128),
    Exchange("all_gather", 4, 1 << 20),
    Exchange("all_to_all", 4, 1 << 20),
]


def test_neighbours() -> None:
    around = neighbours([Gemm("bf16", 4, 8, 32)], 1)
    assert around[0] == Gemm("bf16", 4, 8, 32)
    assert {(job.m, job.n) for job in around if isinstance(job, Gemm)} == {
        (m, n) for m in (2, 4, 8) for n in (4, 8, 16)
    }
    assert neighbours(ALL, 0) == ALL
    # Sizes from 1, and none twice.
    assert len(neighbours([Decode("bf16", 1, 4, 4, 64, 1)], 1)) == 4
    assert ALL[1].scaled(2, 0.5) == Experts("bf16", 64, 8, 2, 8, 4, 2, 200, 100, (0.75, 0.25), "zipf_0.5")


def test_drawn_rows_are_the_same_each_time_and_add_up() -> None:
    job = ALL[1]
    assert isinstance(job, Experts)
    assert job.rows == job.rows and sum(job.rows) == 50 and len(job.rows) == 2


def results(made: list[Job], time_s: float = 1e-4) -> list[Result]:
    return [Result(job, Timing(time_s, 0.01, 20, "perf_counter")) for job in made]


def test_every_family_is_timed_or_says_why_not() -> None:
    tables_written = {job.table for job in ALL}
    assert {f.name for f in FAMILIES.values() if not f.untimed} == {
        f.name for f in FAMILIES.values() if f.file in tables_written
    }


def test_tables_have_the_columns_that_the_fit_reads() -> None:
    rows = csv_tables.rows(results(ALL), "mine", "My GPU", {"torch": "2.9", "cuda": ""})
    assert set(rows) == {job.table for job in ALL}
    read = 0
    for family in FAMILIES.values():
        for key, part in tables.parts(family, Table(family.file), rows.get(family.file, [])).items():
            assert key.gpu == "mine" and key.engine == COMMON and key.variant
            assert all(np.isfinite(np.asarray(a, dtype=float)).all() for a in family.arguments(part)[1:])
            assert column(part, "latency_us").tolist() == [100.0]
            read += len(part)
    assert read == len(ALL)


def test_rows_of_experts_are_fitted_as_they_were_timed() -> None:
    family = moe.FAMILY
    (row,) = csv_tables.rows(results([ALL[1]]), "mine", "My GPU", {})["op_moe.csv"]
    work, tokens, top_k, hidden, inter, products = family.arguments([row])
    expected = moe.count_rows([int(n) for n in row["rows"].split()])
    assert [float(part[0]) for part in work] == [float(part) for part in expected]
    assert [float(a[0]) for a in (tokens, top_k, hidden, inter, products)] == [100, 2, 64, 16, 3]


def test_dtypes_without_estimates_are_left_out_of_the_fit() -> None:
    made: list[Job] = [Gemm("fp32", 1, 2, 3), Prefill("fp32", 1, 2, 2, 64, 5), Decode("fp32", 1, 2, 2, 64, 5)]
    rows = csv_tables.rows(results(made), "mine", "My GPU", {})
    assert sum(len(part) for part in rows.values()) == 3
    assert not any(tables.parts(f, Table(f.file), rows.get(f.file, [])) for f in FAMILIES.values())


def test_new_rows_replace_those_of_the_same_size(tmp_path: Path) -> None:
    path = tmp_path / "op_gemm.csv"
    first = csv_tables.rows(results([Gemm("bf16", 1, 2, 3), Gemm("bf16", 4, 5, 6)]), "a", "A", {"torch": "1"})
    path.write_bytes(csv_tables.merged(path, first[path.name]))
    second = csv_tables.rows(results([Gemm("bf16", 4, 5, 6)], 2e-4), "a", "A", {"torch": "2"})
    path.write_bytes(csv_tables.merged(path, second[path.name]))
    kept = [(row["m"], row["latency_us"], row["torch"]) for row in tables.read(path)]
    assert kept == [("1", "100", "1"), ("4", "200", "2")]
    other = csv_tables.rows(results([Gemm("bf16", 4, 5, 6)]), "a", "A", {"other": "2"})
    with pytest.raises(ValueError, match="other columns"):
        csv_tables.merged(path, other[path.name])


def test_a_table_that_is_not_one(tmp_path: Path) -> None:
    path = tmp_path / "op_gemm.csv"
    path.write_text("gpu,dtype,m,n,k,latency_us\na,bf16,1,2,3\n")
    with pytest.raises(tables.TableError, match=r"op_gemm.csv, line 2"):
        tables.read(path)
    path.write_text("gpu,dtype,m,n,latency_us\na,bf16,1,2,3\n")
    family = gemm.FAMILY
    with pytest.raises(tables.TableError, match="no column k"):
        tables.parts(family, Table(family.file), tables.read(path))
    path.write_text("gpu,dtype,m,n,k,latency_us\na,bf16,1,2,three,4\n")
    with pytest.raises(tables.TableError, match="three"):
        tables.parts(family, Table(family.file), tables.read(path))


def test_report_sets_measured_beside_estimated() -> None:
    own = [k for k in kernels(compiled("mixtral_8xh100"), ["decode"]) if k.segment == "sparse"]
    timed = {k.job: Result(k.job, Timing(3 * k.estimate_s, 0.1, 9, "x")) for k in own if k.kind == "gemm" and k.job}
    text = report(own, timed, "Some GPU")
    assert text.startswith("Some GPU\n")
    assert "bf16 64 x 768 x 4096" in text and " 3.00  gemm" in text
    assert "ratio 3.00 (geometric mean of kernels 3.00)" in text
    assert "not timed: sparse route moe.r: no kernel of it is timed" in text


# -- the fit -----------------------------------------------------------------------------------------

HARDWARE = load_spec(read_source(str(ROOT / "examples" / "mixtral_8xh100.moe")), Collector()).hardware
GEMM = GemmConstants(132, 2, 4e-6, 700e12, 2.6e12, 1.8, 0.2, 1.2e-8, 2.5e-10, 0)
PREFILL = PrefillAttentionConstants(2, 6e-6, 550e12, 1.5e12, 2.0, 1.5e-8, 6e12, 0.9)
DECODE = DecodeAttentionConstants(2, 5e-6, 2.5e12, 2.0, 1.2e-9, 0.5, 0.003, 4e-6, 0.6)
MOE = MoeConstants(2, 2e-5, 600e12, 2.9e12, 1.6, 1.2e-9, 1.2e12, 1.1e12, 1.3e12, 1.2e-10)


def grid() -> list[tuple[Job, float]]:
    """Sizes, each with the time that the constants above give it."""
    made: list[tuple[Job, float]] = []
    for m in (1, 16, 128, 1024, 8192, 32768):
        for n, k in ((256, 4096), (4096, 1024), (8192, 16384), (128, 65536), (256, 512)):
            made.append((Gemm("bf16", m, n, k), float(gemm.time_s(GEMM, m, n, k))))
    for batch in (1, 8, 64):
        for length in (128, 1024, 4096, 16384, 65536):
            prefill = float(prefill_attention.time_s(PREFILL, batch, length, 8, 2, 96))
            made.append((Prefill("bf16", batch, 8, 2, 96, length), prefill))
            made.append(
                (
                    Decode("bf16", batch, 8, 2, 96, length),
                    float(decode_attention.time_s(DECODE, batch, length, 8, 2, 96)),
                )
            )
    for tokens in (8, 64, 512, 4096, 32768):
        for inter in (512, 1792, 8192):
            job = Experts("fp16", 4096, inter, 2, 8, 2, 1, tokens, tokens, (0.4, 0.3, 0.2, 0.1), "uniform")
            made.append((job, float(moe.time_s(MOE, moe.count_rows(job.rows), tokens, 2, 4096, inter))))
    return made


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibration file fitted to the grid; it is next to its tables."""
    pytest.importorskip("scipy", reason="SciPy is not installed: pip install -e '.[fit]'")
    folder = tmp_path_factory.mktemp("tables")
    made = [Result(job, Timing(time_s, 0.0, 20, "cuda_graph")) for job, time_s in grid()]
    for name, rows in csv_tables.rows(made, "mine", "My GPU", {"torch": "2.9", "cuda": "12.9"}).items():
        (folder / name).write_bytes(csv_tables.merged(folder / name, rows))
    found = calibrate(folder, "mine", HARDWARE, 132, {"device": "My GPU", "torch": "2.9", "cuda": ""})
    path = folder / "mine.json"
    path.write_text(found.text)
    assert len(found.lines) == 4 and all("rows, each left out once" in line for line in found.lines)
    return path


def test_constants_come_back(fitted: Path) -> None:
    """Those that the times tell apart (a GEMM's serial loop over k and its last wave both grow with k alone)."""
    found = load(str(fitted))
    assert (found.gpu, found.source) == ("mine", "dagc measure, device My GPU, torch 2.9 (own measurements)")
    assert found.device.flops["bf16"] == HARDWARE.peak_flops("bf16") and found.device.sms == 132
    entries = (
        (found.of(gemm.FAMILY)["bf16"], GEMM, ("launch_s", "math_flops", "hbm_Bps", "sharpness", "tile_s")),
        (found.of(prefill_attention.FAMILY)["bf16_kv_bf16_hd128"], PREFILL, ("launch_s", "math_flops")),
        (
            found.of(decode_attention.FAMILY)["kv_bf16_hd128_gqa"],
            DECODE,
            ("launch_s", "hbm_Bps", "latency_s", "latency_power"),
        ),
        (found.of(moe.FAMILY)["bf16"], MOE, ("launch_s", "math_flops", "hbm_Bps")),
    )
    for entry, truth, names in entries:
        assert entry.error.median < 0.01 and entry.error.p90 < 0.05
        for name in names:
            assert getattr(entry.constants, name) == pytest.approx(getattr(truth, name), rel=0.05), name
    m, n, k = np.array([(64, 7168, 2048), (3000, 640, 5120), (20000, 6144, 4096)]).T
    assert gemm.time_s(found.of(gemm.FAMILY)["bf16"].constants, m, n, k) == pytest.approx(
        gemm.time_s(GEMM, m, n, k), rel=0.01
    )


def test_a_spec_names_the_file(fitted: Path) -> None:
    """A path relative to the spec; the constants price the plan, at a head width that no shipped table has."""
    text = spec_text(
        model="layers = 2, hidden = 4096, vocab = 512, dtype = fp16\n"
        "attention { kind = gqa, heads = 64, kv_heads = 16, head_dim = 96 }\n"
        "experts { count = 8, top_k = 2, hidden = 1792 }",
        phase="gpus = 0..7, dp = 8",
        kind="decode",
    )
    compute = ", ".join(f"{name} = {rate:g} FLOP/s" for name, rate in HARDWARE.compute_flops.items())
    text = text.replace("compute = 400 TFLOP/s,", f'calibration = "mine.json", compute {{ {compute} }}\n')
    text = text.replace("1.8 TB/s", f"{HARDWARE.hbm_Bps:g} B/s").replace("64 GB", "80 GB")
    path = fitted.with_name("plan.moe")
    path.write_text(text)
    plan = dagc.compile(path)
    assert plan.spec.hardware.calibration == str(fitted)
    constants = load(str(fitted))
    own = {k.kind: k for k in kernels(plan) if k.segment == "sparse"}
    entry = constants.of(decode_attention.FAMILY)["kv_bf16_hd128_gqa"]
    assert own["decode attention"].job == Decode("fp16", 8, 64, 16, 96, 272)
    assert own["decode attention"].estimate_s == pytest.approx(
        float(decode_attention.FAMILY.estimate_s(entry, 8, 272, 64, 16, 96))
    )
    assert own["experts"].family == "moe"


def test_few_rows_are_not_fitted(tmp_path: Path) -> None:
    rows = csv_tables.rows(results([Gemm("bf16", 1, 2, 3)]), "mine", "My GPU", {})
    (tmp_path / "op_gemm.csv").write_bytes(csv_tables.merged(tmp_path / "op_gemm.csv", rows["op_gemm.csv"]))
    found = calibrate(tmp_path, "mine", HARDWARE, 132, {})
    assert found.text == "" and "too few" in found.lines[0]


def bad_file(path: str, value: object) -> str:
    root = json.loads((ROOT / "grammar/library/calibration/h100_sxm/trtllm/gemm.json").read_text(encoding="utf-8"))
    *parents, last = path.split("/")
    at = root
    for name in parents:
        at = at[name]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return json.dumps(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read `mine.json`"),
        ("{", "mine.json: not JSON"),
        (bad_file("families/gemm/bf16/constants/launch_s", None), "mine.json: gemm.bf16.constants: missing launch_s"),
        (bad_file("families/gemm/bf16/constants/math_flops", 0), "math_flops: expected more than 0"),
        (bad_file("families/gemm/bf16/shapes/m", None), "mine.json: gemm.bf16.shapes: missing m"),
        (bad_file("device/flops/bf16", None), "mine.json: device.flops: missing bf16"),
        (bad_file("device/hbm_Bps", 0), "mine.json: device.hbm_Bps: expected more than 0"),
        (bad_file("schema", None), "mine.json: a calibration of schema 1; this dagc reads schema 2"),
        (bad_file("families/gemm/bf16/residual/packed", "AAAA"), "mine.json: gemm.bf16.residual.packed: "),
    ],
)
def test_a_bad_file_is_an_error_of_the_spec(tmp_path: Path, capsys: Capture, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "mine.json").write_text(content)
    path = tmp_path / "plan.moe"
    path.write_text(spec_text().replace("gpus = 64,", 'gpus = 64, calibration = "mine.json",'))
    assert main(["check", str(path)]) == 2
    shown = capsys.readouterr().err
    assert "error[E05]" in shown and message in shown and 'calibration = "mine.json"' in shown


def test_an_unknown_calibration_names_the_near_one(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "plan.moe"
    path.write_text(spec_text().replace("gpus = 64,", "gpus = 64, calibration = h100_sx,"))
    assert main(["check", str(path)]) == 2
    assert "did you mean `h100_sxm`?" in capsys.readouterr().err


# -- the command ---------------------------------------------------------------------------------------


def test_without_pytorch_the_pip_command_is_told(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr("dagc.cli.measure.find_spec", lambda name: None)
    assert main(["measure", "examples/plan_a.moe"]) == 2
    assert "pip install -e '.[torch]'" in capsys.readouterr().err


def test_fit_without_scipy_is_told_before_anything_is_timed(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr("dagc.cli.measure.find_spec", lambda name: None if name == "scipy" else True)
    assert main(["measure", "examples/plan_a.moe", "--fit"]) == 2
    assert "pip install -e '.[fit]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("work", "unwanted"),
    [
        (
            "from dagc.cli import main; main(['check', 'examples/qwen3_235b_vllm.moe'])",
            ("torch", "scipy", "dagc.measure", "dagc.calib.fitting"),
        ),
        (
            "import dagc; dagc.compile('examples/plan_a.moe')",
            ("dagc.calib.families", "dagc.calib.family", "dagc.cost.measured"),
        ),
    ],
    ids=("measuring and fitting", "kernel families without a calibration"),
)
def test_what_is_not_needed_is_not_loaded(work: str, unwanted: tuple[str, ...]) -> None:
    code = f"{work}\nimport sys; print([n for n in sys.modules if any(f'{{n}}.'.startswith(f'{{m}}.') for m in {unwanted})])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.moe"
    phases = "gpus = 0..7, ep = 4, tp = 2\n}\nphase decode {\ngpus = 0..7, ep = 4, tp = 2"
    path.write_text(spec(phases, "prefill").replace("sequences = 64, prompt = 256", "sequences = 8, prompt = 32"))
    return path


@needs_torch
def test_measure_on_the_cpu(small: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    assert main(["measure", str(small), "--device", "cpu", "--samples", "2", "--name", "desk", "-o", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "phase prefill" in shown and "phase decode" in shown and "measured" in shown
    written = {path.name: list(csv.DictReader(path.open())) for path in out.iterdir()}
    assert set(written) == {
        "op_gemm.csv", "op_moe.csv", "op_context_attention.csv", "op_generation_attention.csv", "op_row_wise.csv",
    }  # fmt: skip
    for rows in written.values():
        for row in rows:
            assert row["gpu"] == "desk" and row["device"] == "CPU" and row["torch"] and float(row["latency_us"]) > 0
    assert main(["measure", str(small), "--device", "cpu", "--phase", "decode", "--samples", "1", "-o", str(out)]) == 0
    assert "phase prefill" not in capsys.readouterr().out


@needs_torch
def test_kernels_compute_what_they_stand_for() -> None:
    """Grouped products and attention against plain ones on the same operands."""
    import torch

    from dagc.measure import torch_kernels

    device = TorchDevice("cpu")
    x, w = torch.randn(6, 8, dtype=torch.float32), torch.randn(3, 8, 4, dtype=torch.float32)
    rows = (2, 0, 4)
    expected = torch.cat([x[:2] @ w[0], x[2:] @ w[2]])
    torch.testing.assert_close(torch_kernels._grouped(device, rows, x, w)(x, w), expected)
    for dtype in ("bf16", "fp16", "fp32"):
        every: list[Job] = [
            Gemm(dtype, 4, 16, 32), Prefill(dtype, 2, 4, 2, 8, 16), Prefill(dtype, 2, 4, 2, 8, 16, 8),
            Decode(dtype, 2, 4, 2, 8, 16), RowWise("rms_norm", dtype, 4, 8), RowWise("add", dtype, 4, 8),
            Experts(dtype, 16, 8, 2, 4, 1, 1, 6, 12, (0.5, 0.5, 0.0, 0.0), "uniform"),
        ]  # fmt: skip
        shapes = [(4, 16), (2, 4, 16, 8), (2, 4, 16, 8), (2, 4, 1, 8), (4, 8), (4, 8), (6, 16)]
        with torch.inference_mode():
            for job, shape in zip(every, shapes, strict=True):
                result = torch_kernels.build(device, job)()
                assert isinstance(result, torch.Tensor) and tuple(result.shape) == shape and result.isfinite().all()
    timing = device.time([lambda: None], Effort(samples=3))
    assert timing.samples == 3 and timing.clock == "perf_counter" and timing.median_s > 0


@needs_torch
def test_a_kernel_that_fails_leaves_the_others() -> None:
    from dagc.measure.timer import measure

    device = TorchDevice("cpu")
    tried: list[Job] = [Gemm("bf16", 1 << 20, 1 << 20, 1 << 20), Gemm("fp8", 4, 8, 16), Gemm("fp32", 4, 8, 16)]
    large, odd, fine = measure(device, tried, Effort(samples=1))
    assert large.timing is None and "are free" in large.reason
    assert odd.timing is None and "multiples of 16" in odd.reason
    assert fine.timing is not None


@needs_torch
def test_collectives_need_torchrun(small: Path, capsys: Capture) -> None:
    assert main(["measure", str(small), "--device", "cpu", "--collectives"]) == 2
    assert "torchrun" in capsys.readouterr().err


@needs_torch
def test_collectives_over_two_processes(small: Path, tmp_path: Path) -> None:
    command = ["measure", str(small), "--device", "cpu", "--collectives", "--samples", "2", "-o", str(tmp_path)]
    shown = forked_ranks.dagc(*command, ranks=2)
    assert shown.returncode == 0, shown.stderr
    rows = tables.read(tmp_path / "op_nccl.csv")
    assert {row["num_gpus"] for row in rows} == {"2"} and "all_reduce" in {row["op"] for row in rows}
    assert "4 ranks, torchrun started 2" in shown.stdout


# -- the clock of a GPU, against a stand-in for PyTorch ---------------------------------------------------


class FakeCuda:
    """Counts seconds: a call takes 1 ms, a replayed one 0.5 ms. `captures`: whether calls can be captured."""

    def __init__(self, captures: bool) -> None:
        self.captures, self.now_ms, self.recorded = captures, 0.0, 0

    def call(self) -> None:
        self.now_ms += 1.0
        self.recorded += 1

    def synchronize(self) -> None:
        pass

    def empty_cache(self) -> None:
        pass

    def mem_get_info(self) -> tuple[int, int]:
        return 8 << 30, 80 << 30

    def current_device(self) -> int:
        return 0

    def get_device_properties(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(name="NVIDIA H100 80GB HBM3", multi_processor_count=132, L2_cache_size=50 << 20)

    def Stream(self) -> SimpleNamespace:
        return SimpleNamespace(wait_stream=lambda other: None)

    current_stream = Stream

    def stream(self, which: object) -> nullcontext[None]:
        return nullcontext()

    def CUDAGraph(self) -> SimpleNamespace:
        self.recorded = 0

        def replay() -> None:
            self.now_ms += 0.5 * self.recorded

        return SimpleNamespace(replay=replay)

    @contextmanager
    def graph(self, graph: object) -> Iterator[None]:
        if not self.captures:
            raise RuntimeError("operation not permitted when stream is capturing")
        yield

    def Event(self, enable_timing: bool) -> SimpleNamespace:
        event = SimpleNamespace(at_ms=0.0, synchronize=lambda: None)
        event.record = lambda: setattr(event, "at_ms", self.now_ms)
        event.elapsed_time = lambda stop: stop.at_ms - event.at_ms
        return event


def gpu(cuda: FakeCuda) -> TorchDevice:
    device = TorchDevice.__new__(TorchDevice)
    device.kind = "cuda"
    device.torch = SimpleNamespace(cuda=cuda, version=SimpleNamespace(cuda="12.9"), __version__="2.9")
    return device


@pytest.mark.parametrize(("captures", "clock", "time_s"), [(True, "cuda_graph", 5e-4), (False, "cuda_events", 1e-3)])
def test_a_graph_of_calls_is_timed_else_the_calls(captures: bool, clock: str, time_s: float) -> None:
    cuda = FakeCuda(captures)
    timing = gpu(cuda).time([cuda.call] * 3, Effort(samples=4))
    assert (timing.clock, timing.samples) == (clock, 4)
    assert timing.median_s == pytest.approx(time_s) and timing.spread == pytest.approx(0, abs=1e-9)


def test_copies_exceed_the_cache_and_fit_into_memory() -> None:
    device = gpu(FakeCuda(True))
    assert device.slug == "nvidia_h100_80gb_hbm3" and device.processors == 132
    assert device.copies(1e6) == 16
    assert device.copies(50 << 20) == 3
    assert device.copies(1e9) == 1
    assert device.copies(7 << 30) == 1
