"""Traces, read back: Chrome's JSON by its rules, Perfetto's protobuf by its own schema."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import compiled, spec_text

import dagc
from dagc.api import Plan
from dagc.base.collectives import REQUESTS
from dagc.cli import main
from dagc.export import chrome, perfetto
from dagc.export.events import EventSpan, events
from dagc.export.protobuf import double, fixed, message, number, string
from dagc.view.facts.critical import critical
from dagc.view.facts.timeline import representatives

Event = dict[str, Any]
CASES = [("plan_a", "prefill"), ("plan_a", "decode"), ("mixtral_8xh100", "decode"), ("two", "prefill")]


@cache
def plan(name: str) -> Plan:
    if name != "two":
        return compiled(name)
    phase = "gpus = 0..15, pp = 2, ep = 4, tp = 2, microbatches = 2\noverlap = two_batch"
    return dagc.compile_text(spec_text(phase=phase))


@cache
def chrome_events(name: str, phase: str, ranks: str = "folded") -> list[Event]:
    data: dict[str, Any] = json.loads(b"".join(chrome.trace(plan(name), phase, ranks)))
    events: list[Event] = data["traceEvents"]
    return events


def spans(events: list[Event]) -> list[tuple[int, int, int, Event]]:
    """(track, start, end) in nanoseconds."""
    return [(e["tid"], round(e["ts"] * 1e3), round((e["ts"] + e["dur"]) * 1e3), e) for e in events if e["ph"] == "X"]


@pytest.mark.parametrize(("name", "phase"), CASES)
def test_slices_of_a_track_do_not_overlap(name: str, phase: str) -> None:
    named = {e["tid"] for e in chrome_events(name, phase) if e["name"] == "thread_name"}
    free: dict[int, int] = {}
    for track, start, end, _ in spans(chrome_events(name, phase)):
        assert track in named
        assert end >= start >= free.get(track, 0)
        free[track] = end


@pytest.mark.parametrize(("name", "phase"), CASES)
def test_sums_are_those_of_the_report(name: str, phase: str) -> None:
    result = plan(name).phases[phase]
    events = chrome_events(name, phase)
    firsts: dict[int, int] = {}  # a rank of each stage
    for member in representatives(result):
        firsts.setdefault(member.stage, member.gpu)
    mine = [(e, end - start) for tid, start, end, e in spans(events) if (tid - 16) // 4 in firsts.values()]
    wire: dict[tuple[str, str], float] = {}
    for e, _ in mine:
        if "wire_B" in e["args"]:
            key = (e["cat"], e["args"]["group"])
            wire[key] = wire.get(key, 0.0) + e["args"]["wire_B"]
    told: dict[tuple[str, str], float] = {}
    for c in result.collectives:
        if c.kind != "recv":
            told[c.kind, "+".join(c.axes)] = told.get((c.kind, "+".join(c.axes)), 0.0) + c.wire_B
    assert wire == pytest.approx(told)
    passes = result.graph.microbatches * result.graph.lanes
    each = {k: float(c.time_s.max()) for k, c in result.costs.ops.items()}
    compute = sum(
        s.repeat * passes * each[s.name, op.name] for s in result.graph.segments for op in s.ops if not op.is_collective
    )
    found = sum(length for e, length in mine if "flops" in e["args"])
    assert found * 1e-9 == pytest.approx(compute, abs=len(mine) * 1e-9)
    last = max(end for _, _, end, e in spans(events) if e["cat"] not in REQUESTS)
    assert last * 1e-9 == pytest.approx(result.schedule.latency_s, abs=1e-8)


@pytest.mark.parametrize(("name", "phase"), CASES)
def test_counters(name: str, phase: str) -> None:
    result = plan(name).phases[phase]
    memory = [e for e in chrome_events(name, phase) if e["ph"] == "C" and e["name"].endswith("memory")]
    assert max(e["args"]["B"] for e in memory) == pytest.approx(result.memory.worst.peak_B)
    by_name: dict[str, float] = {}
    for e in (e for e in chrome_events(name, phase) if e["ph"] == "C"):
        assert e["ts"] >= by_name.get(e["name"], 0.0)
        by_name[e["name"]] = e["ts"]
    links = [e for e in chrome_events(name, phase) if e["ph"] == "C" and e["name"].endswith("link")]
    assert links and all(e["args"]["B/s"] >= 0 for e in links) and links[-1]["args"]["B/s"] == 0


@pytest.mark.parametrize(("name", "phase"), CASES)
def test_flows(name: str, phase: str) -> None:
    """Every message that leaves arrives later; the critical path has one beginning and one end."""
    events = chrome_events(name, phase)
    starts = {e["id"]: e["ts"] for e in events if e["ph"] == "s" and e["name"] == "send"}
    ends = {e["id"]: e["ts"] for e in events if e["ph"] == "f" and e["name"] == "send"}
    assert starts.keys() == ends.keys() and all(ends[k] >= starts[k] for k in ends)
    graph = plan(name).phases[phase].graph
    shown = {m.index for m in representatives(plan(name).phases[phase])}  # ranks of each stage, the same in all of them
    assert len(starts) == (len(graph.stages) - 1) * graph.microbatches * graph.lanes * len(shown)
    path = [e for e in events if e["name"] == "critical path"]
    assert sorted(e["ph"] for e in path if e["ph"] != "t") == ["f", "s"]
    marked = [e for e in events if e["ph"] == "X" and e["args"].get("critical")]
    assert len(marked) == len(path)
    if name == "plan_a":  # a rank of every kind is drawn, and so the whole path
        total = sum(e["dur"] for e in marked) * 1e-6
        assert len(path) == len(critical(plan(name).phases[phase]))
        assert total == pytest.approx(plan(name).phases[phase].schedule.latency_s, abs=len(marked) * 1e-9)


def test_every_rank() -> None:
    result = plan("plan_a").phases["decode"]
    events = chrome_events("plan_a", "decode", "all")
    threads = [e for e in events if e["name"] == "thread_name"]
    assert len(threads) == 2 * len(result.gpus) + len(result.requests)
    assert {e["pid"] for e in events} == {g // 8 + 1 for g in result.gpus}
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert names == {pid: f"node {pid - 1}, pid" for pid in {e["pid"] for e in events}}
    ends = len(result.requests) * result.graph.microbatches  # once, however many ranks there are
    folded = len(spans(chrome_events("plan_a", "decode"))) - ends
    assert len(spans(events)) - ends == folded * len(result.gpus) // len(result.graph.stages)


@pytest.mark.parametrize(("name", "phase"), CASES)
def test_perfetto_says_the_same(name: str, phase: str) -> None:
    from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as schema

    trace = schema.Trace()
    data = b"".join(perfetto.trace(plan(name), phase))
    trace.ParseFromString(data)
    trace.DiscardUnknownFields()
    assert trace.ByteSize() == len(data)  # the schema knows every field
    names: dict[int, str] = {}
    keys: dict[int, str] = {}
    tracks: set[int] = set()
    processes: set[int] = set()
    counters: dict[int, bool] = {}
    stack: dict[int, tuple[int, str, dict[str, Any]]] = {}
    found = []
    flows: dict[str, set[int]] = {"out": set(), "in": set()}
    for k, packet in enumerate(trace.packet):
        assert packet.trusted_packet_sequence_id == 1
        assert packet.sequence_flags == (1 if k == 0 else 2)
        names |= {n.iid: n.name for n in packet.interned_data.event_names}
        keys |= {n.iid: n.name for n in packet.interned_data.debug_annotation_names}
        if packet.HasField("track_descriptor"):
            about = packet.track_descriptor
            if k == 0:
                assert (about.uuid, about.process_ordering) == (0, about.PROCESS_ORDERING_EXPLICIT)
            elif about.HasField("process"):
                processes.add(about.uuid)
                assert about.process.process_name == f"node {about.sibling_order_rank - 1}, pid"
            else:
                assert about.parent_uuid in processes and about.uuid not in tracks
                tracks.add(about.uuid)
                counters[about.uuid] = about.HasField("counter")
        elif packet.HasField("track_event"):
            event = packet.track_event
            assert event.track_uuid in tracks
            assert counters[event.track_uuid] == (event.type == schema.TrackEvent.TYPE_COUNTER)
            if event.type == schema.TrackEvent.TYPE_SLICE_BEGIN:
                assert event.track_uuid not in stack
                args = {keys[a.name_iid]: getattr(a, a.WhichOneof("value")) for a in event.debug_annotations}
                stack[event.track_uuid] = (packet.timestamp, names[event.name_iid], args)
                flows["out"] |= set(event.flow_ids)
                flows["in"] |= set(event.terminating_flow_ids)
            elif event.type == schema.TrackEvent.TYPE_SLICE_END:
                start, label, args = stack.pop(event.track_uuid)
                found.append((event.track_uuid, start, packet.timestamp, label, args))
    assert not stack and flows["out"] == flows["in"]
    told = [(t, a, b, e["name"], e["args"]) for t, a, b, e in spans(chrome_events(name, phase))]
    assert found == told


def test_wire_format() -> None:
    """Examples from the encoding's documentation, and what they must be by hand."""
    assert number(1, 150) == bytes.fromhex("089601")
    assert string(2, "testing") == bytes.fromhex("120774657374696e67")
    assert message(3, number(1, 150)) == bytes.fromhex("1a03089601")
    assert number(1, (1 << 64) - 1) == b"\x08" + b"\xff" * 9 + b"\x01"
    assert fixed(47, 1) == bytes.fromhex("f902") + bytes([1]) + bytes(7)
    assert double(5, 1.0) == bytes.fromhex("29000000000000f03f")
    assert string(1, "\ud800") == bytes.fromhex("0a013f")


def test_the_command_writes_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["compile", "examples/plan_a.moe", "--phase", "decode", "--emit", "perfetto", "-o", str(tmp_path)])
    assert code == 1
    capsys.readouterr()
    assert {p.name for p in tmp_path.iterdir()} == {"plan_a.txt", "plan_a.decode.trace.json", "plan_a.decode.pftrace"}
    data = json.loads((tmp_path / "plan_a.decode.trace.json").read_bytes())
    assert data["traceEvents"] == chrome_events("plan_a", "decode")
    assert (tmp_path / "plan_a.decode.pftrace").read_bytes() == b"".join(perfetto.trace(plan("plan_a"), "decode"))


def test_the_critical_path_is_in_a_trace_of_skewed_ranks() -> None:
    """Every rank is of a class of its own: those of the path are drawn with the slowest, the middle and the fastest."""
    phase = "gpus = 0..31, pp = 2\nattention { dp = 8, tp = 2 }\nexperts { ep = 16 }"
    model = "layers = 4, hidden = 64, vocab = 512, dtype = fp32\nattention { kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }\nexperts { count = 16, top_k = 2, hidden = 32 }"
    work = "sequences = 64, prompt = 256 tok, output = 16 tok, routing = zipf(1.0)"
    result = dagc.compile_text(spec_text(phase=phase, model=model, workload=work)).phases["prefill"]
    spans = [e for e in events(result) if isinstance(e, EventSpan)]
    on_path = sum(s.end_ns - s.start_ns for s in spans if s.path)
    assert on_path > 0.5e9 * result.schedule.latency_s
    assert {s.path for s in spans} == {"", "start", "step", "end"}
