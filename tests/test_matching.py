"""Traces laid beside a plan: what a rank called that the plan does not have, did not call, called with another size or in another
group, and for whom others waited. Traces are those that the repository makes itself."""

from __future__ import annotations

import gzip
import importlib.util
import json
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import spec_text
from forked_ranks import run
from tiers import all_tests, in_turn

import dagc
from dagc.api import Plan
from dagc.base.diagnostics import SpecError
from dagc.cli import main
from dagc.observe.kineto import read
from dagc.observe.matching.alignment import aligned, beside
from dagc.observe.matching.deviations import Beside, Matched
from dagc.observe.matching.lay_beside import matched, phase_of, ran, unknown
from dagc.observe.matching.planned_calls import PlannedCall, PlannedCalls
from dagc.observe.matching.rank_calls import RankCalls, calls_of
from dagc.observe.matching.table import alone, told

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed: pip install -e '.[torch]'"
)
TWO_RANKS = spec_text(phase="gpus = 0..1, tp = 2", workload="sequences = 4, prompt = 32 tok, output = 16 tok")


def kept(paths: Iterable[Path]) -> list[RankCalls]:
    return [calls_of(read(path), 0) for path in paths]


# -- the alignment ---------------------------------------------------------------------------------


def fewest(planned: list[int], seen: list[int], free: bool) -> int:
    """Edits by the whole table."""
    rows = [list(range(len(seen) + 1))]
    for i, a in enumerate(planned, 1):
        row = [0 if free else i]
        for j, b in enumerate(seen, 1):
            row.append(min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (0 if a == b else 2)))
        rows.append(row)
    return min(row[-1] for row in rows) if free else rows[-1][-1]


@pytest.mark.parametrize("free", [False, True])
def test_as_few_edits_as_the_whole_table_finds(free: bool) -> None:
    draw = random.Random(3)
    for _ in range(400):
        planned, seen = ([draw.randrange(3) for _ in range(draw.randrange(9))] for _ in range(2))
        pairs = aligned(planned, seen, len(planned) if free else 0)
        assert pairs is not None and all(planned[x] == seen[y] for x, y in pairs)
        assert all(a < c and b < d for (a, b), (c, d) in pairwise(pairs))
        if free:
            inner = pairs[-1][0] - pairs[0][0] + 1 - len(pairs) if pairs else 0
            assert inner + len(seen) - len(pairs) <= fewest(planned, seen, free) + (0 if pairs else len(planned))
        else:
            assert len(planned) + len(seen) - 2 * len(pairs) == fewest(planned, seen, free)


def test_what_is_absent_is_where_something_else_is_in_its_place() -> None:
    pairs = aligned("abbcd", "aXbcd")  # type: ignore[arg-type]
    assert pairs is not None and beside("abbcd", pairs, 5) == [(0, 0), (2, 2), (3, 3), (4, 4)]  # type: ignore[arg-type]
    pairs = aligned("dcbba", "dcbXa")  # type: ignore[arg-type]
    assert pairs is not None and beside("dcbba", pairs, 5) == [(0, 0), (1, 1), (2, 2), (4, 4)]  # type: ignore[arg-type]


def test_nor_does_the_first_or_the_last_differ() -> None:
    pairs = aligned("bbc", "Xbc")  # type: ignore[arg-type]
    assert pairs is not None and beside("bbc", pairs, 3) == [(1, 1), (2, 2)]  # type: ignore[arg-type]
    pairs = aligned("cbb", "cbX")  # type: ignore[arg-type]
    assert pairs is not None and beside("cbb", pairs, 3) == [(0, 0), (1, 1)]  # type: ignore[arg-type]


def test_sequences_of_other_programs_are_given_up() -> None:
    assert aligned([0] * 5000, [1] * 5000) is None
    count = 20_000 if all_tests() else 5_000
    assert aligned([0, 1] * count, [0, 1] * count) == [(i, i) for i in range(2 * count)]


# -- real runs -------------------------------------------------------------------------------------


@needs_torch
def test_a_removed_an_added_and_a_delayed_collective_are_each_found(tmp_path: Path) -> None:
    spec, folder = tmp_path / "p.moe", tmp_path / "traces"
    spec.write_text(TWO_RANKS)
    faults = {
        "removed": "sparse.1/moe.y.all_reduce",
        "added": "sparse.2/moe.r",
        "delayed": ["sparse.3/gqa.y.all_reduce", 1, 0.5],
    }
    plan = dagc.compile_text(TWO_RANKS)
    names = {op.name for segment in plan.phases["prefill"].graph.segments for op in segment.ops}
    assert {str(f).split("/")[1] for f in (faults["removed"], faults["added"], faults["delayed"][0])} <= names
    done = run(spec, 2, "--trace", str(folder), "--full-dims", faults=faults)
    assert done.returncode == 0, done.stderr
    calls = kept(sorted(folder.glob("*.json.gz")))
    assert phase_of(calls) == "prefill"
    found = matched(ran(plan, "prefill", calls), "gpu", calls)
    assert found.named and found.ranks == (0, 1) and found.passes == 1 and not found.compares
    assert (found.planned, found.seen, found.same) == (20, 20, 18)  # one fewer and one more on each rank
    missing, extra = ([d for d in found.deviations if d.word == word] for word in ("missing", "extra"))
    assert [(d.rank, d.name, d.kind) for d in missing] == [(r, faults["removed"], "all_reduce") for r in (0, 1)]
    assert [(d.rank, d.kind, d.detail) for d in extra] == [(r, "all_reduce", "7 elements") for r in (0, 1)]
    before = "sparse.2/" + names_before(plan, "moe.r")
    assert {d.name for d in extra} == {f"after {before}"} and len(found.deviations) == 4
    (late,) = [one for one in found.late if one.name == faults["delayed"][0]]
    assert late.rank == 1 and 0.4 < late.wait_s < 10
    text = "\n".join(told(found))
    assert "missing  all_reduce sparse.1/moe.y.all_reduce, part 0, ranks 0-1" in text
    assert f"extra    all_reduce after {before}, part 0, ranks 0-1: 7 elements" in text
    assert "late     rank 1 at all_reduce sparse.3/gqa.y.all_reduce, part 0: its group waited" in text
    plain = judged(plan, without_names(folder))
    extra = [d for d in plain.deviations if d.word == "extra" and d.detail == "7 elements"]
    assert not plain.named and [d.rank for d in extra] == [0, 1] and extra[0].name.startswith("after sparse.")
    (late,) = [one for one in plain.late if one.wait_s > 0.4]
    assert late.rank == 1 and late.name.startswith("sparse.")
    missing = {d.name for d in plain.deviations if d.word == "missing" and d.name.startswith("sparse.")}
    assert len(missing) == 1  # an all-reduce as large as its neighbours: which, the order alone does not tell
    classes = {row.name: row for row in found.classes}
    assert classes["all_reduce"].calls == 10 and all(row.measured_s > 0 for row in found.classes)
    assert "ratio" not in text and "not compared" in text


def without_names(folder: Path) -> list[Path]:
    """The traces as of another program: nothing in them is named by dagc."""
    paths = []
    for path in folder.glob("*.json.gz"):
        data = json.loads(gzip.decompress(path.read_bytes()))
        del data["dagc"]
        data["traceEvents"] = [e for e in data["traceEvents"] if not str(e.get("name", "")).startswith("dagc:")]
        paths.append(path.with_name("plain." + path.name.removesuffix(".gz")))
        paths[-1].write_text(json.dumps(data))
    return paths


def names_before(plan: Plan, op: str) -> str:
    names = [one.name for one in plan.phases["prefill"].graph.segment("sparse").ops]
    return names[names.index(op) - 1]


# -- traces without names --------------------------------------------------------------------------

WORDS = {
    "all_reduce": ("allreduce", "AllReduce_Sum_f32_RING_LL"),
    "all_gather": ("_allgather_base", "AllGather_RING_LL"),
    "reduce_scatter": ("_reduce_scatter_base", "ReduceScatter_Sum_f32_RING_LL"),
    "all_to_all": ("all_to_allv", "SendRecv"),
    "send_recv": ("send", "SendRecv"),
}
DTYPES = {4.0: "Float", 8.0: "Long"}
Edit = Callable[[int, list[PlannedCall]], list[PlannedCall]]


def same(rank: int, calls: list[PlannedCall]) -> list[PlannedCall]:
    return calls


def gpu_traces(
    folder: Path,
    text: str,
    edit: Edit = same,
    *,
    passes: int = 1,
    metadata: bool = True,
    late: tuple[int, int] | None = None,
) -> tuple[Plan, list[Path]]:
    """A trace of each rank as PyTorch's profiler writes it on GPUs: kernels, with what NCCL says of them. Every collective ends at
    the same moment on all ranks. `late`: (rank, index of a call) that begins 10 ms after the others."""
    plan = dagc.compile_text(text)
    (phase,) = plan.phases
    planned = PlannedCalls(plan.phases[phase])
    paths = []
    for rank in range(len(planned)):
        events, at = [], 1000.0
        for i, call in enumerate(edit(rank, planned.of(rank)) * passes):
            at += 10_100 if late is not None and late[1] == i else 100
            begin = at - 20 - 7 * rank % 5
            if late == (rank, i):
                begin = at - 1
            elif late is not None and late[1] == i:
                begin = at - 10_020
            word, kernel = WORDS[call.kind]
            said: dict[str, Any] = {"stream": 7, "correlation": i + 1}
            if metadata and call.ranks:
                elements = round(call.elements) if call.payload_B == call.payload_B else 11 + 13 * i
                said |= {
                    "Collective name": word,
                    "In msg nelems": elements,
                    "Out msg nelems": elements,
                    "dtype": DTYPES[call.each_B],
                }
                said |= {"Group size": len(call.ranks), "Process Group Ranks": str(list(call.ranks))}
            name = f"ncclDevKernel_{kernel}(ncclDevKernelArgsStorage<4096ul>)"
            events.append({"ph": "X", "cat": "kernel", "name": name, "ts": begin, "dur": at - begin, "args": said})
        path = folder / f"rank{rank}.json"
        path.write_text(
            json.dumps({"distributedInfo": {"rank": rank, "world_size": len(planned)}, "traceEvents": events})
        )
        paths.append(path)
    return plan, paths


def judged(plan: Plan, paths: list[Path]) -> Matched:
    (phase,) = plan.phases
    return matched(plan.phases[phase], "gpu", kept(paths))


GPU = spec_text(phase="gpus = 0..7\nattention { dp = 2, tp = 4 }\nexperts { ep = 2, tp = 4 }")


@pytest.mark.parametrize("metadata", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        GPU,
        TWO_RANKS,
        spec_text(phase="gpus = 0..7, pp = 2, tp = 4, microbatches = 4"),
        spec_text(phase="gpus = 0..3, sp = 4"),
    ],
)
def test_a_trace_of_the_plan_is_the_plan(text: str, metadata: bool, tmp_path: Path) -> None:
    plan, paths = gpu_traces(tmp_path, text, passes=3, metadata=metadata)
    found = judged(plan, paths)
    assert not found.named and found.compares and found.passes == 3 and not found.late
    assert not found.differs and found.planned == found.seen == found.same > 0, "\n".join(told(found))


def without(index: int) -> Edit:
    return lambda rank, calls: [c for i, c in enumerate(calls) if i != index]


def resized(index: int) -> Edit:
    return lambda rank, calls: [replace(c, payload_B=c.payload_B / 2) if i == index else c for i, c in enumerate(calls)]


def regrouped(index: int) -> Edit:
    def edit(rank: int, calls: list[PlannedCall]) -> list[PlannedCall]:
        return [replace(c, ranks=(rank, (rank + 1) % 8)) if i == index else c for i, c in enumerate(calls)]

    return edit


def twice(index: int) -> Edit:
    return lambda rank, calls: [*calls[: index + 1], replace(calls[index], payload_B=4444.0), *calls[index + 1 :]]


EDITS = [("missing", without), ("size", resized), ("group", regrouped), ("extra", twice)]


@pytest.mark.parametrize(("kind", "index"), in_turn(EDITS, [0, 1, 3, 4, 5, 7, 17]))
def test_each_fault_is_found_by_order_alone(
    kind: tuple[str, Callable[[int], Edit]], index: int, tmp_path: Path
) -> None:
    """In a trace of one pass on every rank: the op, or a neighbour that nothing tells from it."""
    word, edit = kind
    plan, paths = gpu_traces(tmp_path, GPU, edit(index))
    (result,) = plan.phases.values()
    calls = PlannedCalls(result).of(0)
    if word == "size" and calls[index].payload_B != calls[index].payload_B:
        index += 1  # sizes of token exchanges differ from pass to pass: they are not compared
        plan, paths = gpu_traces(tmp_path, GPU, edit(index))
    found = judged(plan, paths)
    assert [d.word for d in found.deviations] == [word] * 8, "\n".join(told(found))
    assert sorted(d.rank for d in found.deviations) == list(range(8))
    (name,) = {d.name for d in found.deviations}
    call = calls[index]
    alike = {c.name for c in calls if c.kind == call.kind}
    assert name in alike if word != "extra" else name.startswith("after ")


def test_a_rank_that_comes_late_is_found_and_its_group_alone(tmp_path: Path) -> None:
    plan, paths = gpu_traces(tmp_path, GPU, passes=2, late=(5, 3))
    found = judged(plan, paths)
    assert not found.differs and [(one.rank, round(one.wait_s, 3)) for one in found.late] == [(5, 0.01)]


def test_clocks_of_hosts_are_set_by_what_ranks_leave_together(tmp_path: Path) -> None:
    plan, paths = gpu_traces(tmp_path, GPU, passes=2)
    for path in paths[4:]:
        data = json.loads(path.read_text())
        for event in data["traceEvents"]:
            event["ts"] += 5_000_000
        path.write_text(json.dumps(data))
    assert not judged(plan, paths).late and judged(plan, paths).waited_s < 0.01


def test_a_trace_may_begin_and_end_within_a_pass(tmp_path: Path) -> None:
    plan, paths = gpu_traces(tmp_path, GPU, passes=4)
    for path in paths:
        data = json.loads(path.read_text())
        data["traceEvents"] = data["traceEvents"][5:-6]
        path.write_text(json.dumps(data))
    found = judged(plan, paths)
    assert not found.differs and found.same == found.seen > 0


def test_a_trace_of_another_model_differs(tmp_path: Path) -> None:
    _, paths = gpu_traces(tmp_path, GPU, passes=2)
    other = dagc.compile_text(GPU.replace("layers = 4", "layers = 3").replace("hidden = 64", "hidden = 128"))
    assert judged(other, paths).differs


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.pop("distributedInfo"), "does not say of which rank"),
        (lambda data: data["distributedInfo"].update(rank=0), "are both of rank 0"),
        (lambda data: data["distributedInfo"].update(rank=9), "of a job of 2 ranks"),
        (lambda data: data["distributedInfo"].update(world_size=512), "of a job of 512 ranks"),
        (lambda data: data.update(dagc={"phase": "x", "twin": True}), "of several runs"),
    ],
)
def test_traces_that_do_not_belong_together(
    change: Callable[[dict[str, Any]], object], said: str, tmp_path: Path
) -> None:
    plan, paths = gpu_traces(tmp_path, TWO_RANKS)
    data = json.loads(paths[1].read_text())
    change(data)
    path = paths[1].with_name("second.json")
    path.write_text(json.dumps(data))
    calls = kept([paths[0], path])
    if said == "of several runs":
        with pytest.raises(SpecError) as error:
            phase_of(calls)
        assert said in error.value.diagnostics[0].message
    else:
        assert said in unknown(calls, len(plan.phases["prefill"].gpus))


@pytest.mark.parametrize("text", [GPU, TWO_RANKS])
def test_every_rank_of_a_group_has_the_call(text: str) -> None:
    (result,) = dagc.compile_text(text).phases.values()
    planned = PlannedCalls(result)
    for rank in range(len(planned)):
        for call in planned.of(rank):
            assert rank in call.ranks
            assert all(call.key in {c.key for c in planned.of(other)} for other in call.ranks)


def test_sizes_of_routed_rows_are_not_compared() -> None:
    """How many rows an expert gets is another number in each pass."""
    text = spec_text(phase="gpus = 0..3, ep = 2, tp = 2, shard { hidden = tp }")
    calls = PlannedCalls(dagc.compile_text(text).phases["prefill"]).of(0)
    sized = {call.op.partition(".")[2]: call.payload_B == call.payload_B for call in calls if call.layer == "sparse.0"}
    assert not sized["g.reduce_scatter"] and not sized["t.all_to_all"] and any(sized.values())


def test_a_trace_without_collectives_lacks_them_all(tmp_path: Path) -> None:
    plan, paths = gpu_traces(tmp_path, TWO_RANKS, lambda rank, calls: [])
    found = judged(plan, paths)
    assert found.planned == 20 and found.seen == 0 and [d.word for d in found.deviations] == ["missing"] * 20


@pytest.mark.parametrize(
    "about",
    [{"phase": 5}, {"phase": "prefill", "twin": "yes"}, {"phase": "prefill", "dtype": [1]}, {"phase": ""}, {"x": 1}, 7],
)
def test_what_a_trace_says_of_itself_may_be_nonsense(about: object, tmp_path: Path) -> None:
    plan, paths = gpu_traces(tmp_path, TWO_RANKS)
    for path in paths:
        data = json.loads(path.read_text()) | {"dagc": about}
        names = [
            "dagc:prefill",
            "dagc:prefill:0:sparse.9/no.op",
            "dagc:prefill:999999999:\x1b[31m/x",
            "dagc:prefill:0:send",
        ]
        data["traceEvents"] += [{"ph": "X", "cat": "user_annotation", "name": n, "ts": 900, "dur": 9e6} for n in names]
        path.write_text(json.dumps(data))
    found = judged(plan, paths)
    lines = list(alone(Beside(found), f"{'long/' * 20}p.moe"))
    assert found.seen > 0 and "\x1b" not in "".join(lines)
    assert max(len(line) for line in lines if "long/" not in line) <= 80


def test_what_is_the_same_in_layers_and_passes_is_one_line(tmp_path: Path) -> None:
    def halved(rank: int, calls: list[PlannedCall]) -> list[PlannedCall]:
        return [replace(c, payload_B=c.payload_B / 2) if c.op == "gqa.y.all_reduce" else c for c in calls]

    plan, paths = gpu_traces(tmp_path, GPU, halved, passes=3)
    found = judged(plan, paths)
    assert len(found.deviations) == 3 * 4 * 8
    (line,) = [line for line in told(found) if line.startswith("  size")]
    assert "all_reduce sparse.0-3/gqa.y.all_reduce, part 0 of pass 0-2, ranks 0-7: " in line


def test_calls_outside_of_the_chosen_passes_do_not_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a trace with steps of another kind, as engines have them: their collectives are not this phase's."""
    spec = tmp_path / "p.moe"
    spec.write_text(TWO_RANKS)
    _, paths = gpu_traces(tmp_path, TWO_RANKS, passes=2)
    for path in paths:
        data = json.loads(path.read_text())
        events = data["traceEvents"]
        half = len(events) // 2
        for i, event in enumerate([*events]):
            event["args"] |= {
                "correlation": i + 1,
                "In msg nelems": event["args"]["In msg nelems"] * (1 if i < half else 2),
            }
            launch = {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "ts": event["ts"] - 3, "dur": 1}
            events.append({**launch, "args": {"correlation": i + 1}})
        kinds = ["execute_context_1(32)_generation_0(0)", "execute_context_0(0)_generation_9(9)"]
        ends = [events[0]["ts"] - 5, events[half]["ts"] - 5, events[2 * half - 1]["ts"] + 5]
        for name, begin, end in zip(kinds, ends, ends[1:], strict=False):
            events.append({"ph": "X", "cat": "user_annotation", "name": name, "ts": begin, "dur": end - begin - 1})
        path.write_text(json.dumps(data))
    main(["compare", str(spec), *map(str, paths)])
    out = capsys.readouterr().out
    assert "20 planned, 20 seen, 20 the same" in out, out
    main(["compare", str(spec), *map(str, paths), "--passes", "2"])
    assert "40 planned, 40 seen, 20 the same" in capsys.readouterr().out


def test_a_folder_may_have_the_traces_of_several_phases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As `dagc run --trace DIR` writes them of a spec with two phases."""
    text = TWO_RANKS.replace("phase prefill {", "phase decode { gpus = 0..1, tp = 2 }\nphase prefill {")
    spec, folder = tmp_path / "p.moe", tmp_path / "traces"
    spec.write_text(text)
    folder.mkdir()
    _, paths = gpu_traces(tmp_path, TWO_RANKS)
    for rank, path in enumerate(paths):
        path.rename(folder / f"prefill.rank{rank}.json")
    main(["compare", str(spec), str(folder)])  # one phase has traces
    assert "prefill of" in (out := capsys.readouterr().out) and "20 planned, 20 seen, 20 the same" in out
    (folder / "decode.rank0.json").write_text("{")
    assert main(["compare", str(spec), str(folder)]) == 2
    assert "has 2 phases, and the traces are of 2" in capsys.readouterr().err
    main(["compare", str(spec), str(folder), "--phase", "prefill"])
    assert "20 planned, 20 seen, 20 the same" in capsys.readouterr().out
    assert main(["compare", str(spec), str(folder), "--phase", "decode"]) == 2  # it is broken
    assert "decode.rank0.json" in capsys.readouterr().err
