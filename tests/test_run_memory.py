"""Memory of a run by kind: logs of engines, snapshots of torch's allocator, and pickles that are not trusted."""

from __future__ import annotations

import json
import os
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
from conftest import spec_text
from hypothesis import given
from hypothesis import strategies as st

from dagc.base.foreign_lines import TraceError
from dagc.cli import main
from dagc.observe.memory import logs, pickled, snapshot

GIB = 1 << 30
VLLM = """\
(Worker_TP0 pid=21) INFO 11-29 19:59:00 [gpu_model_runner.py:5089] Model loading took 11.05 GiB memory and 23.1 seconds
(Worker_TP1 pid=22) INFO 11-29 19:59:00 [gpu_model_runner.py:5089] Model loading took 11.02 GiB memory and 23.1 seconds
(EngineCore_DP0 pid=11) INFO 11-29 20:00:00 [gpu_worker.py:773] Available KV cache memory: 30.5 GiB
(EngineCore_DP0 pid=11) INFO 11-29 20:00:00 [kv_cache_utils.py:1149] GPU KV cache size: 3,814,912 tokens, Maximum concurrency for 32,768 tokens per request: 116.42x
(EngineCore_DP1 pid=12) INFO 11-29 20:00:00 [kv_cache_utils.py:1149] GPU KV cache size: 3,814,900 tokens, Maximum concurrency for 32,768 tokens per request: 116.42x
(Worker_TP0 pid=21) INFO 11-29 20:00:00 [gpu_model_runner.py:6517] Graph capturing finished in 12 secs, took 0.77 GiB
(Worker_TP0 pid=21) INFO 11-29 20:00:00 [gpu_worker.py:1054] Free memory on device (78.5/79.2 GiB) on startup. Actual usage is 11.9 GiB for consumed memory (weights + non-torch), 1.31 GiB for peak activation, and 0.75 GiB for CUDAGraph memory.
(Worker_TP0 pid=21) INFO 11-29 20:09:00 [eplb_state.py:634] EPLB step: 300 for model m: avg_tokens=100.00, max_tokens=160, balancedness=0.6250, steps until the next rearrangement: 2700
"""
OLD_VLLM = """\
INFO 03-01 10:30:57 worker.py:267] model weights take 2.88GiB; non_torch_memory takes 0.05GiB; PyTorch activation peak memory takes 1.40GiB; the rest of the memory reserved for KV Cache is 15.52GiB.
"""
SGLANG = """\
[2026-03-11 13:50:00] server_args=ServerArgs(model_path='m')
[2026-03-11 13:50:21 TP0] Load weight end. elapsed=23.18 s, type=M, avail mem=32.02 GB, mem usage=99.00 GB.
[2026-03-11 13:53:00] server_args=ServerArgs(model_path='m')
[2026-03-11 13:53:21 TP0] Load weight end. elapsed=23.18 s, type=M, avail mem=32.02 GB, mem usage=28.79 GB.
[2026-03-11 13:53:22 TP0] Load weight end. elapsed=3.18 s, type=Draft, avail mem=32.02 GB, mem usage=1.00 GB.
[2026-03-11 13:53:23 TP0] KV Cache is allocated. #tokens: 383872, KV size: 19.36 GB
[2026-03-11 13:53:24 TP0] KV Cache is allocated. #tokens: 383872, K size: 0.25 GB, V size: 0.25 GB
[2026-03-11 13:53:32 TP0] Capture cuda graph end. Time elapsed: 8.04 s. mem usage=0.80 GB. avail mem=10.30 GB.
[2026-03-11 13:53:33 TP0] max_total_num_tokens=383872, chunked_prefill_size=8192, max_prefill_tokens=16384, max_running_requests=2048, context_len=32768
"""
TRTLLM = "[TRT-LLM] [I] [MemUsageChange] Allocated 41.50 GiB for max tokens in paged KV cache (679936).\n"


def log(tmp_path: Path, text: str) -> logs.Log:
    path = tmp_path / "engine.log"
    path.write_text(text)
    return logs.read(path)


def gib(found: logs.Log) -> dict[str, float]:
    return {kind: round(size / GIB, 4) for kind, size in found.fullest.items()}


def test_lines_of_engines(tmp_path: Path) -> None:
    found = log(tmp_path, VLLM)
    assert gib(found) == {"weights": 11.05, "kv_pool": 30.5, "engine": 0.77, "activations": 1.31}
    assert found.tokens == {"0": 3814912, "1": 3814900} and found.balance_sum == 0.625
    assert gib(log(tmp_path, OLD_VLLM)) == {"weights": 2.88, "reserve": 0.05, "activations": 1.4, "kv_pool": 15.52}
    found = log(tmp_path, SGLANG)  # of its last start; the model and its draft together
    assert gib(found) == {"weights": 29.79, "kv_pool": 19.86, "engine": 0.8} and found.tokens == {"": 383872}
    found = log(tmp_path, TRTLLM)
    assert gib(found) == {"kv_pool": 41.5} and found.tokens == {"": 679936}
    assert not log(tmp_path, "INFO nothing of memory\n").known


def test_every_line_is_found_by_its_word() -> None:
    """The word that is looked for first is in the pattern, so that no line is passed over."""
    for line in logs.table().lines:
        assert line.word.replace("_", "") in line.pattern.pattern.replace("_", "") or "graph end" in line.word, line


def test_requirements_on_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights, cache and graphs of a log beside the memory pass."""
    decode = "phase decode { gpus = 0..7, ep = 4, tp = 2 }\n"
    asked = 'require "w" decode.memory.weights <= 12 GB\nrequire "e" decode.memory.engine <= 0.5 GB\nrequire "b" decode.imbalance <= 2\n'
    (tmp_path / "p.moe").write_text(spec_text(gpus=8, extra=decode + asked))
    (tmp_path / "engine.log").write_text(VLLM)
    code = main(["compare", str(tmp_path / "p.moe"), "--metrics", str(tmp_path / "engine.log"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [one["verdict"] for one in found["requirements"]] == ["met", "failed", "met"] and code == 1
    assert found["metrics"]["decode.imbalance"]["measured"] == 1 / 0.625
    rows = {row["what"]: row for row in found["memory"]}
    assert rows["weights"]["actual"] == 11.05 * GIB
    assert rows["weights"]["theoretical"] == found["metrics"]["decode.memory.weights"]["planned"]
    each = rows["cache of a token, on a GPU"]
    assert each["actual"] == pytest.approx(30.5 * GIB / 3814906)
    assert each["theoretical"] == 2 * 4 * 8 * 4 * 4 / 2  # K and V, kv heads, head_dim, fp32, layers; tp 2
    assert found["metrics"]["decode.memory.kv_tokens"]["measured"] == 3814906 * 4  # data-parallel ranks of the plan


STACKS = {
    "weights": ["forward", "load_weights"], "kv_cache": ["_allocate_kv_cache_tensors"], "activations": ["linear", "forward"],
    "engine": ["whatever"],
}  # fmt: skip


def allocator(seed: int, events: int = 400) -> tuple[dict[str, Any], dict[str, int], int]:
    """A snapshot of an allocator that was simulated here: it, bytes by kind, and the peak of everything."""
    rng = random.Random(seed)
    frames = {
        kind: [{"filename": f"{name}.py", "name": name, "line": 1} for name in names] for kind, names in STACKS.items()
    }
    segments, trace, address = [], [], 1 << 40
    held = {kind: 0 for kind in STACKS}
    most, peak, live = 0, 0, []

    def put(kind: str, size: int) -> None:
        nonlocal address, most, peak
        trace.append({"action": "alloc", "addr": address, "size": size, "frames": frames[kind]})
        live.append((kind, address, size))
        held[kind] += size
        address += size
        most, peak = max(most, held["activations"]), max(peak, sum(held.values()))

    for kind, size in (("weights", 5 << 20), ("kv_cache", 64 << 20), ("engine", 3 << 20)):
        for _ in range(4):
            put(kind, size)
    for _ in range(events):
        others = [one for one in live if one[0] == "activations"]
        if others and rng.random() < 0.5:
            one = rng.choice(others)
            live.remove(one)
            held["activations"] -= one[2]
            trace += [{"action": f"free_{what}", "addr": one[1], "size": one[2]} for what in ("requested", "completed")]
        else:
            put("activations", rng.randint(1, 1 << 22))
    for kind, at, size in live:
        block = {"address": at, "size": size, "state": "active_allocated", "frames": frames[kind]}
        pool = (0, 1) if kind == "engine" else (0, 0)
        segments.append({"device": 0, "address": at, "total_size": size, "segment_pool_id": pool, "blocks": [block]})
    return {"segments": segments, "device_traces": [trace]}, {**held, "activations": most}, peak


@pytest.mark.parametrize("form", ["pickle", "json"])
def test_snapshots_are_what_the_allocator_did(form: str, tmp_path: Path) -> None:
    for seed in range(5):
        found, kinds, peak = allocator(seed)
        path = tmp_path / f"s.{form}"
        path.write_bytes(pickle.dumps(found, 2 + seed % 4) if form == "pickle" else json.dumps(found).encode())
        (one,) = snapshot.read(path)
        assert one.sizes == kinds and one.peak_B == peak and one.framed


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=40,
)


@given(PLAIN, st.integers(3, 5))
def test_plain_data_are_read_as_pickle_reads_them(value: Any, protocol: int) -> None:
    assert pickled.loads(pickle.dumps(value, protocol)) == value


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("made_by_a_pickle",)


HOSTILE = {
    "a call": pickle.dumps({"segments": [Hostile()]}),
    "a class": pickle.dumps(Path("x")),
    "cut off": pickle.dumps({"segments": [1] * 100})[:-40],
    "a text of more bytes than the file": b"\x80\x04\x8d\xff\xff\xff\xff\xff\x00\x00\x00.",
    "bytes to be reserved": b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00.",
    "tuples within tuples as a key": b"\x80\x04})" + b"\x85" * 200_000 + b"Ns.",
    "marks without an end": b"\x80\x04" + b"(" * 1000 + b"t.",
    "nothing on the stack": b"\x80\x04.",
    "a name of a module": b"\x80\x02cos\nsystem\n.",
    "an extension": b"\x80\x02\x82\x01.",
    "somebody else's id": b"\x80\x04\x8c\x01aQ.",
    "nothing": b"\x80",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_pickles_of_strangers_do_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "s.pickle"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(TraceError):
        snapshot.read(path)
    assert os.listdir(tmp_path) == ["s.pickle"]


def test_a_long_way_through_a_short_pickle_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickled, "MOST_OPS", 1000)
    with pytest.raises(pickled.NotPlain, match="1,000 steps"):
        pickled.loads(b"\x80\x04]" + b"Na" * 600 + b".")
