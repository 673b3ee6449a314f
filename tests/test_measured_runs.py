"""`dagc compare --metrics`: what a run showed, and the spec's requirements judged on it."""

from __future__ import annotations

import json
import random
from argparse import Namespace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from conftest import ROOT, examples, spec_text

from dagc.base.diagnostics import Collector
from dagc.base.foreign_lines import TraceError
from dagc.cli import compare_metrics, main
from dagc.observe.metrics import benchmark, clients
from dagc.observe.metrics.figures import figures
from dagc.observe.metrics.histograms import histogram
from dagc.observe.metrics.run_files import Given, read
from dagc.observe.metrics.series import Series
from dagc.observe.metrics.sources import sources
from dagc.serving.result import Limits

SCHEMA = json.loads((ROOT / "dagc" / "observe" / "measured_run.schema.json").read_text())
pytestmark = pytest.mark.usefixtures("shared_servings")
Capture = pytest.CaptureFixture[str]
EDGES = (0.1, 0.25, 0.5, 1.0, 2.5)
SERVING = """
serve chat { prefill = prefill, decode = decode, arrivals = poisson(50 req/s), requests = 60 }
"""


def served(*requirements: str, more: str = "") -> str:
    """A small spec with a serving on 8 GPUs, and requirements."""
    decode = "phase decode { gpus = 0..7, ep = 4, tp = 2 }\n"
    asked = "".join(f'require "{k}" {text}\n' for k, text in enumerate(requirements))
    return spec_text(gpus=8, extra=decode + SERVING + more + asked)


def scrape(
    counts: dict[str, tuple[int, ...]] | None = None, engines: int = 1, /, prefix: str = "vllm:", **values: float
) -> str:
    """Prometheus' text: histograms by their observations up to each edge, other names by their values."""
    lines = []
    for name, seen in (counts or {}).items():
        lines += [f"# HELP {prefix}{name} Histogram.", f"# TYPE {prefix}{name} histogram"]
        for engine in range(engines):
            labels = f'engine="{engine}",model_name="m"'
            for edge, count in zip((*EDGES, "+Inf"), seen, strict=True):
                lines.append(f'{prefix}{name}_bucket{{{labels},le="{edge}"}} {float(count)}')
            lines += [
                f"{prefix}{name}_count{{{labels}}} {seen[-1]}",
                f"{prefix}{name}_sum{{{labels}}} {seen[-1] * 0.3}",
            ]
    for name, value in values.items():
        lines += [f"# HELP {prefix}{name} It.", f"# TYPE {prefix}{name} gauge"]
        lines += [f'{prefix}{name}{{engine="{k}",model_name="m"}} {value}' for k in range(engines)]
    return "\n".join(lines) + "\n"


TTFT = "time_to_first_token_seconds"
NONE = {TTFT: (0, 0, 0, 0, 0, 0)}
SEEN = {TTFT: (0, 40, 90, 100, 100, 100)}


COMPILED: dict[tuple[str, str], Any] = {}


@pytest.fixture
def compared(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> object:
    """Runs the command on files of these texts: (exit code, JSON, standard error). Equal specs are compiled once."""
    compile_ = compare_metrics._compiled

    def once(args: Namespace, out: Collector) -> Any:
        key = Path(args.spec).read_text(), args.serve
        if key not in COMPILED:
            COMPILED[key] = compile_(args, out)
        return COMPILED[key]

    monkeypatch.setattr(compare_metrics, "_compiled", once)

    def run(spec: str, files: dict[str, str | bytes], *args: str) -> tuple[int, dict, str]:
        (tmp_path / "p.moe").write_text(spec)
        for name, text in files.items():
            (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        given = [str(tmp_path / name) for name in files] if "--metrics" not in args else []
        words = [word.replace("@", f"{tmp_path}/") for word in args]
        capsys.readouterr()
        code = main(["compare", str(tmp_path / "p.moe"), *(["--metrics", *given] if given else []), "--json", *words])
        out, err = capsys.readouterr()
        found = json.loads(out) if out else {}
        if found:
            jsonschema.validate(found, SCHEMA)
        return code, found, err

    return run


def verdicts(found: dict) -> list[str]:
    return [one["verdict"] for one in found["requirements"]]


def test_percentiles_are_between_the_ends_of_their_buckets(compared) -> None:
    """Met or failed only where every value in the bucket says the same; else open, and never met."""
    spec = served(
        "chat.ttft.p50 <= 500 ms", "chat.ttft.p50 <= 240 ms", "chat.ttft.p50 <= 300 ms", "chat.ttft.mean <= 301 ms"
    )
    code, found, _ = compared(spec, {"a.txt": scrape(NONE), "b.txt": scrape(SEEN)})
    assert verdicts(found) == ["met", "failed", "undecided", "met"] and code == 1
    p50 = found["metrics"]["chat.ttft.p50"]
    assert (p50["low"], p50["high"]) == (0.25, 0.5)
    assert p50["measured"] == pytest.approx(0.25 + 0.25 * 10 / 50)  # rank 50 is the 10th of 50 in the bucket
    assert found["metrics"]["chat.ttft.mean"]["measured"] == pytest.approx(0.3)
    assert p50["planned"] > 0 and p50["source"] == "vllm:time_to_first_token_seconds"


def test_true_percentiles_are_within_the_bounds() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        values = rng.lognormal(-1, 1, rng.integers(1, 60))
        series = []
        for edge in (*EDGES, float("inf")):
            one = Series()
            one.add(float((values <= edge).sum()))
            series.append(({"le": str(edge)}, one))
        found = histogram(series, float(values.sum()))
        assert found is not None and found.mean == pytest.approx(values.mean())
        for percent in (50, 90, 99):
            value, low, high = found.percentile(percent)
            true = np.percentile(values, percent, method="inverted_cdf")
            assert low <= true <= high and low <= value <= high


def test_what_is_beyond_the_last_bucket_is_open_or_failed(compared) -> None:
    spec = served("chat.ttft.p99 <= 10 s", "chat.ttft.p99 <= 2 s")
    code, found, _ = compared(spec, {"a.txt": scrape({TTFT: (0, 0, 0, 10, 90, 100)})})
    assert verdicts(found) == ["undecided", "failed"] and code == 1
    assert found["metrics"]["chat.ttft.p99"]["high"] is None


def test_what_was_not_measured_is_never_met(compared) -> None:
    spec = served("chat.throughput >= 1 tok/s", "chat.kv_fill <= 90%", "prefill.ttft <= 100 s", "prefill.gpus == 8")
    code, found, _ = compared(spec, {"a.txt": scrape(SEEN)})
    assert verdicts(found) == ["not_measured"] * 3 + ["of_the_plan"] and code == 0
    assert "--window" in found["requirements"][0]["why"][0] and "serving" in found["requirements"][2]["why"][0]
    assert compared(spec, {"a.txt": scrape(SEEN)}, "--strict")[0] == 1


def test_counters_are_rates_over_the_window(compared) -> None:
    spec = served("chat.throughput >= 90 tok/s", "chat.rate >= 3 req/s", "chat.queue <= 2 req")
    before = scrape({"request_queue_time_seconds": (0,) * 6}, 2, generation_tokens_total=1000, request_success_total=5)
    after = scrape(
        {"request_queue_time_seconds": (0, 40, 90, 100, 100, 100)},
        2,
        generation_tokens_total=4000,
        request_success_total=55,
    )
    code, found, _ = compared(spec, {"a.txt": before, "b.txt": after}, "--window", "60")
    metrics = found["metrics"]
    assert metrics["chat.throughput"]["measured"] == pytest.approx(2 * 3000 / 60)
    assert metrics["chat.rate"]["measured"] == pytest.approx(100 / 60)
    assert metrics["chat.queue"]["measured"] == pytest.approx(2 * 100 * 0.3 / 60)  # seconds of waiting per second
    assert metrics["chat.imbalance"]["measured"] == 1.0
    assert verdicts(found) == ["met", "failed", "met"] and code == 1
    together = compared(spec, {"all.txt": before + after}, "--window", "60")[1]
    assert together["metrics"] == metrics  # one file with both scrapes is the same


def test_counters_that_appear_later_began_at_zero(compared) -> None:
    """Prometheus clients show a series of labels from its first event on."""
    lines = [
        'vllm:request_success_total{{finished_reason="{}"}} {}\n'.format(*pair)
        for pair in (("stop", 10), ("stop", 30), ("length", 5), ("stop", 40), ("length", 9))
    ]
    head = "# TYPE vllm:request_success_total counter\n"
    texts = [head + lines[0], head + lines[1] + lines[2], head + lines[3] + lines[4]]
    metrics = compared(served(), {f"{k}.txt": text for k, text in enumerate(texts)}, "--window", "10")[1]["metrics"]
    assert metrics["chat.finished"]["measured"] == 39 and metrics["chat.finished"]["note"] == ""
    assert metrics["chat.rate"]["measured"] == 3.9
    alone = compared(served(), {"a.txt": texts[2]})[1]["metrics"]["chat.finished"]
    assert alone["measured"] == 49 and "since the server began" in alone["note"]


def test_levels_are_means_over_time_and_not_of_one_moment(compared) -> None:
    spec = served("chat.kv_fill <= 50%")
    texts = [scrape(kv_cache_usage_perc=level) for level in (0.2, 0.4, 0.9)]
    assert verdicts(compared(spec, {"a.txt": texts[0], "b.txt": texts[1]})[1]) == ["not_measured"]
    found = compared(spec, {f"{k}.txt": text for k, text in enumerate(texts)})[1]
    assert verdicts(found) == ["met"] and found["metrics"]["chat.kv_fill"]["measured"] == pytest.approx(0.5)


def test_gpus_of_nvidia_smi(compared) -> None:
    spec = served(
        "chat.utilization >= 85%", "chat.gpu_imbalance <= 110%", "hardware.memory.fraction <= 90%",
        "decode.memory.peak <= 90% * hardware.memory",
    )  # fmt: skip
    rows = ["timestamp, index, utilization.gpu [%], memory.used [MiB], memory.total [MiB]"]
    rows += [
        f"2026/01/31 12:00:0{t}.000, {g}, {60 if g else 100} %, {900 + g} MiB, 1000 MiB"
        for t in range(5)
        for g in range(4)
    ]
    code, found, err = compared(spec, {"gpu.csv": "\n".join(rows)})
    assert "4 GPUs were watched, and the plan has 8" in err and "have 1.049 GB, those of the spec 64 GB" in err
    metrics = found["metrics"]
    assert metrics["chat.utilization"]["measured"] == pytest.approx(0.7)
    assert metrics["chat.gpu_imbalance"]["measured"] == pytest.approx(100 / 70)
    assert metrics["hardware.memory.fraction"]["measured"] == pytest.approx(0.903)
    assert metrics["decode.memory.peak"]["measured"] == 903 * 2**20
    assert verdicts(found) == ["undecided", "undecided", "failed", "undecided"] and code == 1
    assert (metrics["chat.utilization"]["low"], metrics["chat.utilization"]["high"]) == pytest.approx((0.35, 0.85))
    assert metrics["decode.memory.peak"]["high"] is None, "four GPUs may hold more"
    rows += [row.replace(f", {g}, ", f", {g + 4}, ") for g in range(4) for row in rows[1:] if f".000, {g}, " in row]
    code, found, err = compared(spec, {"gpu.csv": "\n".join(rows)})
    assert "watched" not in err and verdicts(found) == ["failed", "failed", "failed", "met"] and code == 1


def test_gpus_of_one_phase(compared) -> None:
    """Memory of some GPUs, or of those of one phase alone, proves nothing of all."""
    asked = 'require "a" decode.memory.peak <= 60 GB\nrequire "b" hardware.memory.peak <= 60 GB\n'
    spec = spec_text(gpus=16, extra="phase decode { gpus = 8..15, ep = 4, tp = 2 }\n" + asked)

    def rows(count: int) -> str:
        head = "timestamp, index, memory.used [MiB], memory.total [MiB]"
        return "\n".join([head, *(f"2026/01/31 12:00:00.000, {g}, 900 MiB, 61036 MiB" for g in range(count))])

    def said(**counts: int) -> list[str]:
        given = [word for phase in counts for word in ("--metrics", f"{phase}=@{phase}.csv")]
        return verdicts(compared(spec, {f"{phase}.csv": rows(n) for phase, n in counts.items()}, *given)[1])

    assert said(decode=3) == ["undecided", "undecided"]
    assert said(decode=8) == ["met", "undecided"]
    assert said(decode=8, prefill=8) == ["met", "met"]


def test_the_report_is_80_columns_wide(compared, tmp_path: Path, capsys: Capture) -> None:
    spec = served("chat.kv_fill <= 50%", "decode.gpus == 8", "chat.running <= 5 req", "decode.memory.peak <= 1 GB")
    compared(spec, {"a.txt": scrape(kv_cache_usage_perc=0.5)})
    assert main(["compare", str(tmp_path / "p.moe"), "--metrics", str(tmp_path / "a.txt")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("requirements on the run") for line in lines) and max(map(len, lines)) <= 80


def test_what_would_measure_a_metric_is_said_truly(compared) -> None:
    spec = served("decode.memory.weights <= 1 GB", "decode.memory.peak <= 1 GB", "chat.imbalance <= 110%")
    _, found, _ = compared(spec, {"a.txt": scrape(kv_cache_usage_perc=0.5)})
    weights, peak, imbalance = (one["why"][0] for one in found["requirements"])
    assert verdicts(found) == ["not_measured"] * 3
    assert "log" in weights and "nvidia-smi" not in weights and "nvidia-smi" in peak and "data-parallel" in imbalance


def test_requests_are_exact(compared) -> None:
    rng = np.random.default_rng(1)
    ttft, tpot, output = rng.uniform(0.1, 1, 500), rng.uniform(0.01, 0.05, 500), rng.integers(2, 50, 500)
    arrival = np.sort(rng.uniform(0, 60, 500))
    rows = ["arrival_s,input_tokens,output_tokens,ttft_ms,tpot_ms"]
    rows += [f"{a},100,{o},{1000 * t},{1000 * p}" for a, o, t, p in zip(arrival, output, ttft, tpot, strict=True)]
    spec = served("chat.ttft.p99 <= 0.5 s", "chat.met <= 100%")
    code, found, _ = compared(spec, {"requests.csv": "\n".join(rows)})
    metrics, e2e = found["metrics"], ttft + tpot * (output - 1)
    for name, column in (("ttft", ttft), ("tpot", tpot), ("e2e", e2e)):
        for percent in (50, 90, 99):
            assert metrics[f"chat.{name}.p{percent}"]["measured"] == pytest.approx(np.percentile(column, percent))
    whole = (arrival + e2e).max() - arrival.min()
    assert metrics["chat.throughput"]["measured"] == pytest.approx(output.sum() / whole)
    assert metrics["chat.met"]["measured"] == pytest.approx((ttft <= 0.5).mean())
    assert verdicts(found) == ["failed", "met"] and code == 1


def test_a_simulated_serving_reads_back_as_a_run(compared, tmp_path: Path) -> None:
    """The requests that `dagc serve` writes are a run that is as planned."""
    (tmp_path / "p.moe").write_text(served())
    assert main(["serve", str(tmp_path / "p.moe"), "-o", str(tmp_path / "out"), "--emit", "csv"]) == 0
    (path,) = (tmp_path / "out").glob("*.requests.csv")
    metrics = compared(served(), {"requests.csv": path.read_text()})[1]["metrics"]
    names = [f"chat.{time}.{of}" for time in ("ttft", "tpot", "e2e") for of in ("mean", "p50", "p90", "p99")]
    for name in (*names, "chat.rate", "chat.throughput", "chat.prompt_throughput", "chat.finished", "chat.duration"):
        assert metrics[name]["measured"] == pytest.approx(metrics[name]["planned"], rel=1e-6), name


def test_results_of_benchmarks(compared) -> None:
    spec = served("chat.ttft.p99 <= 1 s", "chat.itl.p90 <= 30 ms")
    one = {
        "duration": 50.0, "completed": 100, "total_input_tokens": 25600, "request_throughput": 2.0, "output_throughput": 32.0,
        "mean_ttft_ms": 400.0, "median_ttft_ms": 350.0, "p99_ttft_ms": 900.0, "itls": [[0.01, 0.02], [0.03]], "ttfts": [0.4, 0.0],
    }  # fmt: skip
    code, found, _ = compared(spec, {"result.json": json.dumps(one)})
    metrics = found["metrics"]
    assert metrics["chat.ttft.p50"]["measured"] == pytest.approx(0.35)
    assert metrics["chat.ttft.p99"]["measured"] == pytest.approx(0.9)
    assert metrics["chat.ttft.p90"]["measured"] == 0.4  # of those that have a first token
    assert metrics["chat.itl.mean"]["measured"] == pytest.approx(0.02)
    assert metrics["chat.prompt_throughput"]["measured"] == 512 and metrics["chat.throughput"]["measured"] == 32
    assert verdicts(found) == ["met", "met"] and code == 0
    perf = {
        "time_to_first_token": {"unit": "ms", "avg": 400.0, "p99": 1200.0},
        "inter_token_latency": {"unit": "us", "avg": 9000.0},  # (latency - first token) / (tokens - 1), of a request
        "inter_chunk_latency": {"avg": 11.0},
        "benchmark_duration": {"unit": "sec", "avg": 12.5},
    }
    found = compared(spec, {"profile_export.json": json.dumps(perf)})[1]
    assert verdicts(found) == ["failed", "not_measured"]
    values = [found["metrics"][f"chat.{name}"]["measured"] for name in ("tpot.mean", "itl.mean", "duration")]
    assert values == pytest.approx([0.009, 0.011, 12.5])


def test_servers_of_two_roles_show_what_each_sees(compared) -> None:
    decode = "phase decode { gpus = 8..15, ep = 4, tp = 2 }\n"
    spec = spec_text(gpus=16, extra=decode + SERVING + 'require "first" chat.ttft.p99 <= 10 s\n')
    files = {
        "p.txt": scrape(SEEN, prompt_tokens_total=6000, generation_tokens_total=100),
        "d.txt": scrape(SEEN, prompt_tokens_total=6000, generation_tokens_total=3000),
    }
    given = ("--metrics", "prefill=@p.txt", "--metrics", "decode=@d.txt", "--window", "60")
    _, found, _ = compared(spec, files, *given)
    metrics = found["metrics"]
    assert metrics["chat.throughput"]["measured"] == 50 and metrics["chat.prompt_throughput"]["measured"] == 100
    assert verdicts(found) == ["not_measured"] and "chat.ttft.p99" not in metrics


BAD = {
    "a number that is none": (
        "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running one\n",
        "its value is not a number",
    ),
    "a series twice": (
        '# TYPE vllm:x gauge\nvllm:num_requests_running{a="1"} 1\nvllm:num_requests_running{a="1"} 2\n',
        "twice",
    ),
    "labels that do not end": ('# TYPE x gauge\nvllm:num_requests_running{a="1} 1\n', "labels"),
    "a line of something else": ("# TYPE x gauge\nfoo bar baz\n", "Prometheus"),
    "nothing that is known": ("# TYPE node_load1 gauge\nnode_load1 1\n", "known name"),
    "nothing but nan": ("vllm:num_requests_running NaN\n", "known name"),
    "an empty file": ("", "empty"),
    "a row that is too short": ("timestamp, index, utilization.gpu [%]\n2026/01/01 00:00:00.000, 0\n", "cells"),
    "a time that is none": ("timestamp, index, utilization.gpu [%]\nnoon, 0, 5 %\n", "time"),
    "no names of columns": ("2026/01/01 00:00:00.000, 0, 5 %\n", "names of columns"),
    "a time below zero": ("arrival_s,ttft_ms\n0,-5\n", "negative"),
    "a last token before the first": ("ttft_ms,latency_ms\n500,400\n", "last token"),
    "no requests": ("arrival_s,ttft_ms\n", "no requests"),
    "a key twice": ('{"mean_ttft_ms": 1, "mean_ttft_ms": 2}', "twice"),
    "JSON without an end": ('{"a":' * 100_000, "JSON"),
    "JSON of something else": ('{"a": 1}', "known"),
    "compressed": (b"\x1f\x8b\x08\x00", "compressed"),
    "binary": (bytes(range(1, 255)) * 3 + b"\0", "text"),
    "a log of something else": ("INFO hello\n", "known"),
    "a snapshot without blocks": ('{"segments": [1]}', "snapshot"),
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    text, told = BAD[name]
    path = tmp_path / "bad"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(TraceError, match=told):
        read([[Given(path)]])


SEEDS = (
    scrape(SEEN, 2, num_requests_running=3.0, generation_tokens_total=5.0) * 2,
    "timestamp, index, utilization.gpu [%], memory.used [MiB]\n" + "2026/01/31 12:00:00.000, 0, 95 %, 900 MiB\n" * 3,
    "arrival_s,ttft_ms,latency_ms,output_tokens\n0,100,900,5\n1,200,,\n",
    '{"mean_ttft_ms": 4.0, "ttfts": [0.1, 0.2], "itls": [[0.1], []]}',
    "INFO Model loading took 11.05 GiB memory\n[x DP0] Decode batch, #running-req: 3, gen throughput (token/s): 1.0\n",
    '{"segments": [{"device": 0, "address": 1, "total_size": 4, "blocks": [{"size": 4, "state": "active_allocated"}]}]}',
)
PIECES = (b"NaN", b"1e999", b"-1", b"\n", b",", b'"', b"{", b"}", b"\x1b[31m", b"\0", b"9" * 40, b"\xff", b"+Inf", b"[")


def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    """Nothing else happens, and a figure is a number between its bounds."""
    rng, path, known = random.Random(7), tmp_path / "run", 0
    for _ in range(examples(300)):
        data = bytearray(rng.choice(SEEDS).encode())
        for _ in range(rng.randint(1, 5)):
            at = rng.randint(0, len(data))
            change = rng.randrange(3)
            if change == 0:
                del data[at : at + rng.randint(1, 20)]
            elif change == 1:
                data[at:at] = rng.choice(PIECES)
            else:
                data[at:at] = data[at : at + rng.randint(1, 200)]
        path.write_bytes(data)
        try:
            run = read([[Given(path)]])
        except TraceError:
            continue
        found = figures(run.servers, 60.0)
        for one in run.requests:
            found |= clients.figures(one, Limits(ttft_s=1.0))
        for name, result in run.results:
            found |= benchmark.figures(result, name)
        known += len(found)
        for figure in found.values():
            assert figure.value == figure.value and figure.low <= figure.value * (1 + 1e-9) <= figure.high * (1 + 2e-9)
    assert known > examples(100, 20)


def test_faults_are_told_with_exit_code_2(compared, tmp_path: Path) -> None:
    code, _, err = compared(served(), {"a.txt": "vllm:num_requests_running one\n"})
    assert code == 2 and "a.txt:1: its value is not a number" in err
    code, _, err = compared(served(), {"a.txt": scrape(SEEN)}, "--serve", "talk")
    assert code == 2 and "there is no serving `talk`" in err and "servings: chat" in err
    code, _, err = compared(served(), {"a.txt": scrape(SEEN)}, "--metrics", "nothing=@a.txt")
    assert code == 2 and "no such phase" in err and "phases: prefill, decode" in err


def test_nothing_that_files_say_reaches_a_terminal(compared, tmp_path: Path, capsys: Capture) -> None:
    """Names of files are shown, and steer nothing."""
    (tmp_path / "p.moe").write_text(served())
    path = tmp_path / "a\x1b[31m.txt"
    path.write_text(scrape(SEEN))
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "p.moe"), "--metrics", str(path)]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_files_of_two_servers_as_one_are_noticed(compared) -> None:
    texts = [scrape(generation_tokens_total=value) for value in (5000, 300)]
    code, _, err = compared(served(), {"a.txt": texts[0], "b.txt": texts[1]}, "--window", "10")
    assert code == 0 and "began again" in err
    given = ("--metrics", "@a.txt", "--metrics", "@b.txt", "--window", "10")
    code, found, err = compared(served(), {"a.txt": texts[0], "b.txt": texts[1]}, *given)
    assert "began again" not in err and found["metrics"]["chat.throughput"]["measured"] == 530


def test_a_client_counts_before_the_servers(compared) -> None:
    """A frontend, or a benchmark, saw what users did; of prefill and decode apart nobody else did."""
    decode = "phase decode { gpus = 8..15, ep = 4, tp = 2 }\n"
    spec = spec_text(gpus=16, extra=decode + SERVING + 'require "first" chat.ttft.p50 <= 10 s\n')
    front = scrape(SEEN, prefix="dynamo_frontend_")
    _, found, err = compared(spec, {"a.txt": scrape(SEEN)})
    assert verdicts(found) == ["not_measured"] and "--metrics PHASE=FILE" in err
    _, found, err = compared(spec, {"a.txt": front})
    assert verdicts(found) == ["met"] and "PHASE=FILE" not in err
    result = json.dumps({"median_ttft_ms": 20_000.0})
    _, found, _ = compared(spec, {"a.txt": front, "r.json": result})
    assert verdicts(found) == ["failed"]


def test_ranks_that_count_the_same_count_once(compared) -> None:
    """SGLang's tensor-parallel ranks repeat what their data-parallel rank counts; servers and data-parallel ranks add up."""
    lines = ["# TYPE sglang:num_running_reqs gauge"]
    lines += [
        f'sglang:num_running_reqs{{dp_rank="{dp}",tp_rank="{tp}"}} {10 * (dp + 1)}'
        for dp in range(2)
        for tp in range(4)
    ]
    lines += ["# TYPE sglang:eplb_balancedness summary"]
    lines += [f'sglang:eplb_balancedness_{end}{{dp_rank="0",forward_mode="{mode}"}} {value}'
              for mode, total in (("decode", 40.0), ("extend", 45.0)) for end, value in (("sum", total), ("count", 50))]  # fmt: skip
    lines += ["# TYPE sglang:max_total_num_tokens gauge"]
    lines += [
        f'sglang:max_total_num_tokens{{dp_rank="{dp}",tp_rank="{tp}"}} 1000' for dp in range(2) for tp in range(4)
    ]
    text = "\n".join(lines) + "\n"
    assert compared(served(), {"a.txt": text * 3})[1]["metrics"]["chat.running"]["measured"] == 30
    metrics = compared(served(), {"a.txt": text})[1]["metrics"]
    assert metrics["decode.imbalance"]["measured"] == pytest.approx(50 / 40)
    assert metrics["prefill.imbalance"]["measured"] == pytest.approx(50 / 45)
    assert metrics["decode.memory.kv_tokens"]["measured"] == 4000  # four data-parallel ranks of the plan
    info = 'vllm:cache_config_info{block_size="16",num_gpu_blocks="100",engine="0"} 1.0\n'
    assert compared(served(), {"a.txt": info})[1]["metrics"]["decode.memory.kv_tokens"]["measured"] == 4 * 1600


def test_what_logs_tell_at_intervals(compared) -> None:
    """Levels and rates of each engine add up; where the server itself was asked, its answers count."""
    line = (
        "(APIServer pid=1) INFO 11-29 20:00:10 [loggers.py:259] Engine {}: Avg prompt throughput: {} tokens/s, Avg generation throughput: {} tokens/s, "
        "Running: {} reqs, Waiting: 0 reqs, GPU KV cache usage: {}%, Prefix cache hit rate: 1.0%\n"
    )
    log = "".join(
        line.format("000", 100.0, 50.0 + k, 4, 10.0) + line.format("001", 200.0, 70.0, 6, 30.0) for k in range(3)
    )
    spec = served("chat.throughput >= 100 tok/s", "chat.ttft.p99 <= 10 s")
    found = compared(spec, {"engine.log": log})[1]
    values = {
        name: found["metrics"][f"chat.{name}"]["measured"]
        for name in ("throughput", "prompt_throughput", "running", "kv_fill")
    }
    assert values == pytest.approx({"throughput": 121, "prompt_throughput": 300, "running": 10, "kv_fill": 0.2})
    assert verdicts(found) == ["met", "not_measured"] and "intervals" in found["requirements"][0]["why"][0]
    asked = scrape(num_requests_running=20.0) * 3
    assert compared(spec, {"engine.log": log, "a.txt": asked})[1]["metrics"]["chat.running"]["measured"] == 20
    line = "[2026-03-11 14:00:0{} DP0 TP0] Decode batch, #running-req: {}, #token: 12, token usage: 0.12, cuda graph: True, gen throughput (token/s): 350.00, #queue-req: 1\n"
    metrics = compared(spec, {"engine.log": "".join(line.format(k, 3 + k) for k in range(3))})[1]["metrics"]
    names = ("running", "queue", "kv_fill", "throughput")
    assert [metrics[f"chat.{name}"]["measured"] for name in names] == pytest.approx([4, 1, 0.12, 350])


def test_names_as_routers_write_them(compared) -> None:
    """SGLang's router and Ray have no colon in names, and say which worker each series is of."""
    lines = ["# TYPE sglang_generation_tokens_total counter"]
    lines += [f'sglang_generation_tokens_total{{source="worker{k}"}} {value}' for k, value in enumerate((1000, 3000))]
    metrics = compared(served(), {"a.txt": "\n".join(lines) + "\n"}, "--window", "10")[1]["metrics"]
    assert metrics["chat.throughput"]["measured"] == 400 and metrics["chat.imbalance"]["measured"] == 1.5
    metrics = compared(served(), {"a.txt": scrape(SEEN, prefix="ray_vllm_")})[1]["metrics"]
    assert metrics["chat.ttft.mean"]["measured"] == pytest.approx(0.3)


def test_pools_have_the_memory_of_their_phases(compared) -> None:
    """And phases that have several copies in a serving a share of what it shows."""
    memory = """hardware memory { gpus = 8, per_node = 8, compute = 400 TFLOP/s, memory = 96 GB, hbm = 3 TB/s
      link node { bandwidth = 450 GB/s, latency = 2 us }
      link cluster { bandwidth = 50 GB/s, latency = 6 us }
    }
    link compute to memory { bandwidth = 50 GB/s, latency = 10 us }
    phase decode { hardware = memory, gpus = 0..3, ep = 2, tp = 2 }
    serve chat { prefill = prefill, decode = decode, arrivals = poisson(50 req/s), requests = 60, workers = 2 }
    """
    text = spec_text(gpus=8, phase="hardware = compute, gpus = 0..7, ep = 4, tp = 2", extra=memory)
    text = text.replace("hardware pool", "hardware compute")
    rows = "index, memory.used [MiB], memory.total [MiB]\n0, {} MiB, 90000 MiB\n"
    files = {"p.csv": rows.format(80_000), "d.csv": rows.format(50_000)}
    files |= {"d0.txt": scrape(generation_tokens_total=0), "d1.txt": scrape(generation_tokens_total=60_000)}
    given = (
        "--metrics",
        "prefill=@p.csv",
        "--metrics",
        "decode=@d.csv",
        "decode=@d0.txt",
        "decode=@d1.txt",
        "--window",
        "60",
    )
    metrics = compared(text, files, *given)[1]["metrics"]
    assert metrics["compute.memory.peak"]["measured"] == metrics["prefill.memory.peak"]["measured"] == 80_000 * 2**20
    assert metrics["memory.memory.peak"]["measured"] == 50_000 * 2**20
    assert metrics["chat.throughput"]["measured"] == 1000
    assert metrics["decode.throughput"]["measured"] == 500  # two workers of four GPUs
    assert metrics["decode.throughput_per_gpu"]["measured"] == 125


def test_table_of_sources() -> None:
    """Every metric that a source gives exists, and every form."""
    from dagc.observe.metrics.figures import FORMS
    from dagc.spec.metrics.known_metrics import TABLE

    known = {metric.full for metric in TABLE}
    for source in sources().series:
        assert source.form in FORMS and source.source
        names = (
            [source.metric]
            if source.form != "spread"
            else [f"{source.metric}.{of}" for of in ("mean", "p50", "p90", "p99")]
        )
        assert source.metric.endswith(("kv_pool", "rank_tokens")) or set(names) <= known, source.name
    assert {row.metric for row in sources().benchmark} <= known
