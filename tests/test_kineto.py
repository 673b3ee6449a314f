"""Traces of PyTorch's profiler: read whole, in bounded memory, and every fault of a file told."""

from __future__ import annotations

import gzip
import json
import random
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dagc.base.diagnostics import SpecError
from dagc.observe import json_stream
from dagc.observe.json_stream import JsonStream
from dagc.observe.kineto import rank_of_name, read

ALL_REDUCE = {
    "Collective name": "allreduce", "In msg nelems": 1024, "Out msg nelems": 1024, "Group size": 4, "dtype": "BFloat16",
    "Process Group Name": "tp", "Process Group Ranks": "[0, 1, 2, 3]",
}  # fmt: skip


def kernel(name: str, ts: float, dur: float, stream: int = 7, **args: Any) -> dict[str, Any]:
    return {
        "ph": "X",
        "cat": "kernel",
        "name": name,
        "ts": ts,
        "dur": dur,
        "tid": stream,
        "args": {"stream": stream, **args},
    }


def written(path: Path, events: list[Any], **fields: Any) -> Path:
    path.write_text(json.dumps({**fields, "traceEvents": events}))
    return path


def test_a_trace_is_columns_in_the_order_of_time(tmp_path: Path) -> None:
    events = [
        {"ph": "M", "name": "process_name", "pid": 1, "args": {"name": "python"}},
        {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "ts": 100, "dur": 2, "args": {"correlation": 5}},
        {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "ts": 99, "dur": 5, "args": {"External id": 3}},
        {"ph": "X", "cat": "user_annotation", "name": "ProfilerStep#1", "ts": 90, "dur": 50, "args": {}},
        kernel("ncclDevKernel_Generic_1(ncclDevKernelArgsStorage<4096ul>)", 130, 20, 9, **ALL_REDUCE),
        kernel("nvjet_hsh_64x64", 110, 10, 7, correlation=5, **{"External id": 3}),
    ]
    trace = read(written(tmp_path / "t.json", events, distributedInfo={"rank": 2, "world_size": 4}))
    found = trace.kernels
    assert (trace.rank, trace.world, trace.events, len(found)) == (2, 4, 6, 2)
    assert [trace.classes[of].name for of in found.of] == ["gemm", "all_reduce"]
    assert trace.names[found.op[0]] == "aten::mm" and found.op[1] == -1
    np.testing.assert_allclose(found.start_s, [20e-6, 40e-6], rtol=1e-12)
    np.testing.assert_allclose(found.time_s, [10e-6, 20e-6])
    np.testing.assert_allclose(found.launched_s, [10e-6, np.nan])
    call = trace.calls[found.call[1]]
    assert (call.kind, call.in_B, call.size, call.ranks) == ("all_reduce", 2048, 4, (0, 1, 2, 3))
    assert trace.names[trace.marks.name[0]] == "ProfilerStep#1" and not trace.marks.on_gpu[0]


def test_chunks_cut_events_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same trace read in pieces of a few bytes, with text that looks like structure."""
    odd = kernel('a "quoted\\" } ] , { kernel', 5, 1, note=[{"a": [{}, []]}, "}", "\\"])
    path = written(
        tmp_path / "t.json", [odd, kernel("b", 9, 1)], before=[{"x": "]}"}, [[]]], distributedInfo={"rank": 1}
    )
    whole = list(JsonStream(path).elements("traceEvents"))
    assert [json.loads(text) for text in whole] == [odd, kernel("b", 9, 1)]
    for size in (1, 2, 3, 7, 64):
        monkeypatch.setattr(json_stream, "CHUNK_BYTES", size)
        assert list(JsonStream(path).elements("traceEvents")) == whole
        assert read(path).rank == 1


def fault(path: Path) -> str:
    with pytest.raises(SpecError) as error:
        read(path)
    (one,) = error.value.diagnostics
    assert one.code == "E05" and str(path) in one.message
    return one.message


def test_faults_of_files_are_told(tmp_path: Path) -> None:
    def of(data: bytes, name: str = "t.json") -> str:
        path = tmp_path / name
        path.write_bytes(data)
        return fault(path)

    good = json.dumps({"traceEvents": [kernel("a", 1, 1)] * 100}).encode()
    packed = gzip.compress(good)
    assert "cannot be read" in fault(tmp_path / "missing.json")
    assert "cannot be read: it is a folder" in fault(tmp_path)
    assert "is empty" in of(b"")
    assert "cut off" in of(packed[:-20]) and "cut off" in of(packed[: len(packed) // 2])
    assert "damaged gzip" in of(packed[:40] + b"\0" * 40 + packed[80:])
    assert "an event does not end" in of(good[:-10])
    assert "no list `traceEvents`" in of(b'{"nodes": [], "edges": []}')
    assert "is no JSON" in of(b"#!/bin/sh\necho")
    assert "packed" in of(b"PK\x03\x04....")
    assert "there is no event" in of(b'{"traceEvents": [1, 2]}')
    assert "is there twice" in of(b'{"traceEvents": [], "traceEvents": []}')
    assert "broken" in of(b'{"traceEvents": [{"cat": "kernel", "ts": 01x}]}')
    deep = b'{"a":' * 100 + b"1" + b"}" * 100
    assert "does not end" in of(b'{"traceEvents": [' + deep + b"]}")
    assert "the file was cut off" in of(b'{"other": [{"a": 1}, ')


def test_what_no_json_has_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    text = json.dumps({"traceEvents": [kernel("nvjet", 1, 1), kernel("nvjet", 3, 1)]}).replace(
        '"stream": 7', '"stream": 7, "o": NaN'
    )
    path.write_bytes(text.encode().replace(b'"nvjet"', b'"nvjet\xff"'))
    assert len(read(path).kernels) == 2
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps([kernel("nvjet", 1, 1)]).encode()[:-1])  # Chrome needs no end
    assert len(read(path).kernels) == 1


def test_events_that_say_nonsense_are_left_out_and_counted(tmp_path: Path) -> None:
    odd = [
        kernel("a", float("1e300"), 1), kernel("a", 1, -1), {**kernel("a", 1, 1), "ts": "soon"}, {**kernel("a", 1, 1), "name": 3},
        {**kernel("a", 1, 1), "args": None}, {**kernel("a", 1, 1), "ts": True},
    ]  # fmt: skip
    trace = read(written(tmp_path / "t.json", odd))
    assert len(trace.kernels) == 1 and "5 events" in trace.notes[0]


def test_memory_follows_kernels_and_not_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty times the events that nobody asks for, and the same peak."""
    monkeypatch.setattr(json_stream, "CHUNK_BYTES", 1 << 14)
    noise = {"ph": "X", "cat": "python_function", "name": "x" * 400, "ts": 1, "dur": 1}
    peaks = []
    for count in (500, 10_000):
        path = written(tmp_path / "t.json", [noise] * count + [kernel("nvjet", 1, 1)])
        tracemalloc.start()
        assert len(read(path).kernels) == 1
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert path.stat().st_size > 4_000_000 and peaks[1] < 1.2 * peaks[0] < 400_000


def test_a_file_that_unzips_without_end_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "MOST_BYTES", 1 << 23)
    path = tmp_path / "t.json.gz"
    path.write_bytes(gzip.compress(b'{"traceEvents": [' + b" " * (1 << 24) + b"]}"))
    assert "more than 8,388,608 bytes" in fault(path)
    monkeypatch.setattr(json_stream, "MOST_ELEMENT_BYTES", 1 << 20)
    path.write_bytes(gzip.compress(json.dumps({"traceEvents": [kernel("x" * (1 << 22), 1, 1)]}).encode()))
    assert "longer than 1,048,576 bytes" in fault(path)


def test_the_first_versions_name_streams(tmp_path: Path) -> None:
    event = {"ph": "X", "cat": "Kernel", "name": "k", "tid": "stream 7", "ts": 1, "dur": 2, "args": {"external id": 3}}
    assert read(written(tmp_path / "t.json", [event])).kernels.stream.tolist() == [7]


def test_a_damaged_trace_is_read_or_told(tmp_path: Path) -> None:
    """Whatever bytes change, the reader ends with a trace or a diagnostic."""
    chance = random.Random(7)
    events = [kernel("ncclKernel", 2 * k, 1.5, **ALL_REDUCE, correlation=k) for k in range(5)]
    events += [
        {"ph": "X", "cat": "cuda_runtime", "name": "launch", "ts": k, "dur": 1, "args": {"correlation": k}}
        for k in range(5)
    ]
    good = json.dumps({"distributedInfo": {"rank": 1}, "baseTimeNanoseconds": 5, "traceEvents": events}).encode()
    values = (b"null", b"true", b"-1", b"1e999", b"NaN", b'"x"', b"[]", b"{}", b"9" * 30, b"9" * 5000, b'"[0, ..., 9]"')
    path, read_well = tmp_path / "t.json", 0
    for _ in range(300):
        data, found = good, re.search(rb": (\d[\d.]*|\"[^\"]*\")", good[chance.randrange(len(good) - 200) :])
        if found is not None and chance.random() < 0.7:
            data = good.replace(found[1], chance.choice(values))
        at = chance.randrange(len(data))
        if chance.random() < 0.4:
            data = data[:at] + bytes([chance.randrange(256)]) * chance.randrange(3) + data[at + chance.randrange(9) :]
        path.write_bytes(data)
        try:
            read(path)
            read_well += 1
        except SpecError as error:
            assert [one.code for one in error.diagnostics] == ["E05"]
    assert 100 < read_well < 300


def test_ranks_by_name() -> None:
    names = ("rank3.pt.trace.json.gz", "w_rank-12.json", "x/1718-TP-5.trace.json.gz", "prank7.json", "trace.json")
    assert [rank_of_name(name) for name in names] == [3, 12, 5, None, None]
