"""Training phases in every output: JSON, the answer, reports, tables, diffs and pictures, against the graph and the order of its cells."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from graphlib import TopologicalSorter
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from conftest import compiled, spec_text
from drawings import faults
from test_page import read
from text_widths import clashes
from tiers import spread

import dagc
from dagc.api import Plan
from dagc.base.diagnostics import SpecError
from dagc.base.picture_words import THEMES, TRAINING_VIEWS
from dagc.cli import main
from dagc.cost.schedule.training.cell_orders import Part, cells_of
from dagc.cost.schedule.training.schedule_table import SCHEDULES
from dagc.export.json import dumps, graph_object
from dagc.export.traces import timeline
from dagc.export.training_events import TRACKS
from dagc.ir.text.read import parse_graph
from dagc.plan.step_totals import step_collectives
from dagc.spec.metrics.known_metrics import of_training
from dagc.view.draw import views
from dagc.view.draw.figures.looks import page_style
from dagc.view.draw.figures.training_cards import ran, shown_stages, stage_card
from dagc.view.draw.figures.training_sheets import TRAINING_SHEETS
from dagc.view.draw.step_layers import COLUMNS, columns, shown_layers
from dagc.view.facts import held_over_step
from dagc.view.facts.gpu_map import gpu_map
from dagc.view.facts.plan_answer import answer, fullest
from dagc.view.facts.step_path import longest_path, path_parts
from dagc.view.report.diff import compare
from dagc.view.report.markdown_text import escaped

Capture = pytest.CaptureFixture[str]
SCHEMA = json.loads((resources.files("dagc.export") / "plan.schema.json").read_text(encoding="utf-8"))
LAYOUT = "gpus = 0..7, pp = 2, microbatches = 8\nattention { dp = 2, tp = 2 }\nexperts { ep = 4 }\n"
WORK = "sequences = 32, prompt = 64 tok, output = 4 tok"


def text(more: str = "", *, extra: str = "", work: str = WORK) -> str:
    phase = f"kind = train\n{LAYOUT}{more}"
    return spec_text(kind="pretrain", phase=phase, workload=work, dtype="bf16", extra=extra)


@cache
def trained(more: str = "zero = 1", extra: str = "", work: str = WORK) -> Plan:
    return dagc.compile_text(text(more, extra=extra, work=work), name="step.moe")


MISFIT = "sequences = 64_000_000, prompt = 64 tok, output = 4 tok"
BESIDE = "phase decode { gpus = 0..7, tp = 8 }"
WANTED = 'require "m" pretrain.memory.peak <= 1 kB\nrequire pretrain.mfu >= 0.001%'


def test_the_object_is_what_its_schema_says() -> None:
    for plan in (trained(), trained("zero = 3"), trained("schedule = zb_v, virtual = 2"), trained(extra=BESIDE)):
        data: Any = json.loads(json.dumps(plan.to_json()))
        jsonschema.Draft202012Validator(SCHEMA).validate(data)
        assert list(data["training"]) == ["pretrain"] and data["fits"]
        found = data["training"]["pretrain"]
        for metric in of_training():
            place = found
            for key in metric.json.split(".") if metric.json else ():
                place = place[key]
            assert not metric.json or place == pytest.approx(metric.how(plan.subject("pretrain"))), metric.name
        for stage in found["memory"]["stages"]:
            parts = [
                size for name, size in stage.items() if name.endswith("_B") and name not in ("peak_B", "capacity_B")
            ]
            assert sum(parts) == pytest.approx(stage["peak_B"])
            step_s = stage["compute_s"] + stage["exposed_s"] + stage["bubble_s"] + found["update_s"]
            assert step_s == pytest.approx(found["step_s"])
    assert "training" not in compiled("plan_a").to_json()


@pytest.mark.parametrize(
    "more",
    spread(
        ["zero = 1", "schedule = interleaved, virtual = 2, recompute = full", "schedule = dualpipe"],
        lambda more: "interleaved" not in more,
    ),
)
def test_collectives_of_a_step_are_those_of_the_graph(more: str) -> None:
    """Counted from the layers of each stage and the order of its cells."""
    result = trained(more).trainings["pretrain"]
    schedule = result.steps.schedule
    for stage in range(schedule.gpus):
        runs = Counter((cell.part, cell.chunk) for entry in schedule.written(stage) for cell in cells_of(entry))
        want: Counter[tuple[str, str]] = Counter()
        for chunk in range(schedule.chunks):
            _, virtual = schedule.stage_at[stage, chunk]
            for layer, count in result.stages[virtual].layers:
                for op in result.graph.segment(layer).ops:
                    if op.is_collective:
                        times = 1 if op.cell == "update" else runs[Part.FORWARD, chunk]
                        want[op.cell or "forward", op.runtime_kind] += count * times
        want["update", "all_reduce"] += len(schedule.routes) - 1  # with the other copy of the model
        got: Counter[tuple[str, str]] = Counter()
        for one in step_collectives(result, stage):
            if one.total.kind not in ("send", "recv"):
                got[one.cell, one.total.kind] += one.total.count
        assert got == want and want
    sent, taken = (
        sum(c.total.count for k in range(schedule.gpus) for c in step_collectives(result, k) if c.total.kind == kind)
        for kind in ("send", "recv")
    )
    hops = [a.gpu != b.gpu for route in schedule.routes for a, b in zip(route.seats, route.seats[1:], strict=False)]
    assert sent == taken == 2 * sum(hops) * schedule.microbatches // len(schedule.routes)


def test_what_every_output_begins_with() -> None:
    """Of a spec that has nothing but a training phase."""
    plan = trained(extra=WANTED)
    found = answer(plan)
    assert found.verdict == "FAILED: 1 of 2 requirements fails".replace("fails", "fail")
    assert found.limits[0].startswith('missed by most: "m"') and found.limits[1].startswith("pretrain: ")
    assert "of a step computes" in found.limits[1] and "waits for other stages" in found.limits[1]
    assert [one.name for one in found.figures] == ["MFU", "step time", "throughput per GPU"]
    lines = plan.report().splitlines()
    assert lines[0] == lines[-1] == found.verdict
    assert plan.markdown().splitlines()[0].endswith(escaped(found.verdict))
    for shown in (read(plan.html()).text, read(plan._repr_html_()).text):
        at = 0
        for words in (found.verdict, *found.limits, *(one.value for one in found.figures)):
            at = shown.index(words, at)
    assert repr(plan).startswith("<Plan small: pretrain ") and "pretrain" in repr(
        plan.trainings["pretrain"].graph.phase
    )


def test_figures_of_both_kinds_of_phases() -> None:
    plan = trained(extra=f"{BESIDE}\nrequire pretrain.step_time <= 100 s")
    names = [one.name for one in answer(plan).figures]
    assert names[0] == "pretrain step time" and "decode TPOT" in names
    assert {"decode", "pretrain"} <= {line.partition(":")[0] for line in answer(plan).limits} | {"decode"}


def test_a_step_that_does_not_fit_is_said_first() -> None:
    plan = trained(work=MISFIT)
    worst = plan.trainings["pretrain"].worst
    assert not plan.fits and fullest(plan) is plan.trainings["pretrain"]
    found = answer(plan)
    assert found.verdict.startswith("DOES NOT FIT: pretrain needs ")
    assert found.limits[0].startswith(f"memory of stage {worst.gpu} of pretrain (+")
    assert plan.to_json()["fits"] is False
    assert plan.svg("pretrain", "memory").index("DOES NOT FIT") < plan.svg("pretrain", "memory").index("stage 0")


def test_reports_have_the_figures() -> None:
    plan = trained("zero = 1, recompute = full")
    shown, page = plan.report(), read(plan.html()).text
    for words in (
        "recompute: full",
        "hfu",
        "1F1B: bubble",
        "ZeRO 1: states of the optimizer are shared out",
        "all_to_all",
    ):
        assert words in shown
    for words in ("Recompute: full", "bubble", "ZeRO 1", "Collectives in a step", "all_to_all", "reduce_scatter"):
        assert words in page
    assert plan.markdown().count("<details>") == 4
    assert max(map(len, shown.splitlines())) <= 80


STEP_ALONE = """moe 1
hardware from "b200-sxm" {{ gpus = 8 }}
model from "olmoe-1b-7b" {{ }}
workload {{ sequences = 64, prompt = 4096 tok }}
phase step {{ kind = train, gpus = 0..7, microbatches = 4, zero = {zero}, grad_overlap = full
  attention {{ dp = 8 }}
  experts {{ ep = 4 }}
}}
"""


@pytest.mark.parametrize(
    ("zero", "said"),
    [
        (1, "states of the optimizer are shared out; its collectives run under the last and the first cells"),
        (2, "and sums of gradients are shared out; reductions run under other layers, gathers under the first cells"),
        (3, "sums of gradients and weights are shared out, weights gathered for use, of two layers at a time"),
    ],
)
def test_a_step_of_one_stage_waits_for_none_and_says_what_is_shared_out(zero: int, said: str) -> None:
    """Its cells, added up in another order, are not to a bit the step: that is no bubble. The picture's heading is whole."""
    plan = dagc.compile_text(STEP_ALONE.format(zero=zero))
    assert plan.trainings["step"].bubble == 0.0
    assert said in " ".join(plan.report().split()) and "1F1B: bubble 0%" in plan.report()
    assert "are shared out" in plan.svg("step", "overview") and "…" not in plan.svg("step", "overview")


def test_rows_are_plain_and_say_what_the_object_says() -> None:
    plan = trained()
    data: Any = plan.to_json()["training"]
    for table in ("trainings", "training_stages", "training_cells", "training_collectives", "training_ops"):
        rows = plan.rows(table)
        assert rows and len({tuple(row) for row in rows}) == 1
        assert {type(v) for row in rows for v in row.values()} <= {str, int, float}
    found = data["pretrain"]
    sent_B = sum(one["wire_B"] for one in found["collectives"])
    assert sum(row["wire_B"] for row in plan.rows("training_collectives")) == pytest.approx(sent_B)
    assert plan.rows("trainings")[0]["step_time"] == found["step_s"]
    executed = sum(row["flops"] for row in plan.rows("training_ops") if row["kind"] in ("contract", "attend"))
    assert executed > 0 and plan.rows("phases") == []


def test_a_diff_tells_training_plans_apart(tmp_path: Path, capsys: Capture) -> None:
    before, after = trained("zero = 1"), trained("zero = 0, recompute = full")
    assert compare(before, before).empty
    changes = compare(before, after)
    assert ("phase.pretrain.training.zero", "1", "0") in [(c.name, c.before, c.after) for c in changes.inputs]
    better = {figure.name: figure.better for figure in changes.results}
    assert better["pretrain.memory.optimizer"] is False and better["pretrain.memory.activations"] is True
    assert "pretrain.memory.peak" in changes.regressions(0) or better["pretrain.memory.peak"]
    assert any("update of each" in change.name for change in changes.structure)
    paths = tmp_path / "before.json", tmp_path / "after.json"
    for path, plan in zip(paths, (before, after), strict=True):
        path.write_text(json.dumps(plan.to_json()))
    assert main(["diff", str(paths[0]), str(paths[1])]) == 0
    assert "pretrain.step_time" in capsys.readouterr().out
    assert {f.name for f in dagc.diff(paths[0], paths[1]).changes.results} == {
        name for name in better if not name.startswith("model.") and name != "pretrain.gpus"
    }


@pytest.mark.parametrize("schedule", spread(SCHEDULES, {"interleaved", "one_f_one_b", "zb_v", "dualpipe"}))
def test_memory_over_a_step_is_that_of_the_cells_that_run(schedule: str) -> None:
    """At any moment what cells hold that have begun, but for what those have freed that have ended."""
    result = trained(f"schedule = {schedule}" + (", virtual = 2" if schedule == "interleaved" else "")).trainings[
        "pretrain"
    ]
    seats = result.steps.schedule.stage_at
    for stage in range(result.steps.schedule.gpus):
        held = held_over_step.held_over_step(result, stage)
        assert held.most_B == pytest.approx(result.memory[stage].activations_B)
        assert held.points[-1] == (result.time_s, 0.0) and all(size >= 0 for _, size in held.points)
        assert [moment for moment, _ in held.points] == sorted(moment for moment, _ in held.points)
        timed = list(result.steps.written(stage))
        for entry in timed[:: max(1, len(timed) // 7)]:
            middle_s = (entry.start_s + entry.end_s) / 2
            now = 0.0
            for other, start_s, end_s in timed:
                for cell in cells_of(other):
                    kept = result.kept[seats[stage, cell.chunk][1]]
                    more_B = {
                        Part.FORWARD: kept.whole_B,
                        Part.BACKWARD: -kept.whole_B,
                        Part.INPUT: kept.late_B - kept.whole_B,
                        Part.WEIGHT: -kept.late_B,
                    }[cell.part]
                    now += more_B if (start_s if more_B > 0 else end_s) <= middle_s else 0.0
            shown = [size for moment, size in held.points if moment <= middle_s][-1]
            assert shown == pytest.approx(now, abs=1e-6 * held.most_B)


@pytest.mark.parametrize("view", TRAINING_SHEETS)
def test_words_of_pictures_are_apart(view: str) -> None:
    assert tuple(TRAINING_SHEETS) == TRAINING_VIEWS
    for more in ("zero = 1", "schedule = interleaved, virtual = 2"):
        for theme in THEMES:
            svg = trained(more).svg("pretrain", view, theme=theme)
            if theme != "dark":
                assert clashes(svg) == []
            assert faults(svg) == []
    named = trained("zero = 1").svg("pretrain", view)
    told = {"map": ("pp 0", "pp 1"), "layer": ("gradients of weights", "new weights")}.get(view, ("stage 0", "stage 1"))
    assert all(words in named for words in told)


def test_a_layer_has_a_column_for_each_cell_with_every_op() -> None:
    """Beside what is done anew; times are those of the ops."""
    result = trained("zero = 1, recompute = [moe]").trainings["pretrain"]
    for segment in shown_layers(result):
        drawn = list(columns(result, segment))
        assert [d.cell for d in drawn] == [name for name, _, _ in COLUMNS]
        assert Counter(op.name for d in drawn for op in d.segment.ops) == Counter(op.name for op in segment.ops)
        for d in drawn:
            assert set(d.home) == {op.name for op in d.segment.ops}
            assert sum(d.share([op]) for op in d.segment.ops) == pytest.approx(1.0)
    svg = trained("zero = 1, recompute = [moe]").svg("pretrain", "layer")
    assert faults(svg) == []
    assert all(look in svg for _, _, look in COLUMNS)
    dot = views.dot(trained("zero = 1"), "pretrain", "layer")
    assert all(f"sparse {name}" in dot for name, _, _ in COLUMNS if name != "done anew")


def test_cards_say_what_stages_do_in_a_step() -> None:
    """Times of cells, calls of collectives and memory are those of the plan; there is a card for each stage."""
    for more in ("zero = 1", "schedule = zb_v, virtual = 2", "schedule = dualpipe, zero = 3"):
        result = trained(more).trainings["pretrain"]
        for stage in shown_stages(result):
            card = stage_card(result, stage)
            assert card.held.peak_B == result.memory[stage].peak_B
            said = " ".join(text for line in card.moved for _, text in line)
            for one in step_collectives(result, stage):
                calls = sum(
                    o.total.count
                    for o in step_collectives(result, stage)
                    if (o.cell, o.total.kind, o.total.axes) == (one.cell, one.total.kind, one.total.axes)
                )
                told = f"{calls:,} {one.total.kind}({'+'.join(one.total.axes)})"
                assert (told in said) == (one.total.kind != "recv")
            assert [name for _, text in card.cells for name in [text.split()[0]]] == list(ran(result))
    assert "stage 1: " in trained().svg("pretrain", "overview")


def test_a_map_says_what_every_gpu_holds_for_a_step() -> None:
    plan = trained("zero = 1")
    found = gpu_map(plan, "pretrain")
    result = plan.trainings["pretrain"]
    devices = [device for pool in found.pools for device in pool.devices if device.seat is not None]
    assert [d.gpu for d in devices] == sorted(result.gpus)
    for device in devices:
        assert device.gpu in result.graph.stages[device.seat].gpus
        held = found.held[device.seat]
        assert held.peak_B == result.memory[device.seat].peak_B == pytest.approx(sum(size for _, _, size in held.bands))
        assert "optimizer" in device.hint and "experts" in device.hint and device.phases == ("pretrain",)
    mesh = result.graph.the_mesh
    for axis in ("tp", "ep", "dp"):
        groups: dict[int, list[int]] = {}
        for device in devices:
            groups.setdefault(device.numbers[f"{axis}-group"], []).append(device.gpu)
        assert sorted(map(sorted, groups.values())) == sorted(
            sorted(row) for row in mesh.groups(mesh.of(axis)).tolist()
        )
    assert "tp group" in plan.svg("pretrain", "map", color_by="tp-group")
    both = gpu_map(trained(extra=BESIDE), "decode")
    assert all(d.phases == ("decode", "pretrain") for pool in both.pools for d in pool.devices if d.seat is not None)


def test_what_a_picture_is_not_of(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "step.moe"
    path.write_text(text(extra=BESIDE))
    show = ["show", str(path), "-q"]
    assert main([*show, "-o", str(tmp_path / "a.svg")]) == 0
    assert {p.name for p in tmp_path.glob("*.svg")} == {"a.decode.svg", "a.pretrain.svg"}
    assert main([*show, "--view", "pipeline", "-o", str(tmp_path / "b.svg")]) == 0
    assert "pipeline-chart" in (tmp_path / "b.svg").read_text()
    capsys.readouterr()
    for words, said in (
        (["--view", "lanes", "--phase", "pretrain"], "`pretrain` trains: it has no picture `lanes`"),
        (["--view", "pipeline", "--phase", "decode"], "`decode` does not train: it has no picture `pipeline`"),
        (["--view", "pipeline", "-o", "c.dot"], "the name of a picture of the pipeline ends in .svg, .png, .pdf"),
        (["--select", "critical", "--phase", "pretrain"], "it has no picture `lanes`"),
    ):
        assert main([*show, *words]) == 2
        assert said in capsys.readouterr().err
    with pytest.raises(SpecError, match="it has no picture `timeline`"):
        trained().svg("pretrain", "timeline")
    with pytest.raises(ValueError, match="no view 'none'"):
        trained().svg("pretrain", "none")


def test_what_the_face_of_a_plan_has_of_a_training_phase() -> None:
    plan = trained("zero = 1")
    shown = plan._repr_mimebundle_()
    assert "pipeline-chart" in shown["image/svg+xml"] and shown["text/markdown"] == plan.markdown()
    assert plan.svg("pretrain") == plan.svg("pretrain", "pipeline")
    for what in (plan.placed, plan.sensitivities):
        with pytest.raises(SpecError, match="for inference alone"):
            what("pretrain")
    assert plan.prove("pretrain").phase == plan.to_networkx("pretrain").graph["phase"] == "pretrain"
    assert "pretrain: optimizer" in read(plan.html()).text


def test_artefacts_of_a_training_phase(tmp_path: Path, capsys: Capture) -> None:
    path, folder = tmp_path / "step.moe", tmp_path / "out"
    path.write_text(text())
    compiled_ = ["compile", str(path), "-o", str(folder), "-q", "--emit"]
    assert main([*compiled_, "svg,json,md"]) == 0
    names = {p.name for p in folder.iterdir()}
    pictures = {f"step.pretrain.{view}.svg" for view in TRAINING_VIEWS}
    assert names == {"step.txt", "step.json", "step.md", "step.pretrain.graph.json", *pictures}
    assert main([*compiled_, "dot"]) == 0 and (folder / "step.pretrain.layer.dot").exists()
    capsys.readouterr()
    assert main([*compiled_, "graphml"]) == 0 and (folder / "step.pretrain.graphml").exists()
    capsys.readouterr()
    assert main([*compiled_, "svg", "--view", "lanes"]) == 2
    assert "it has pipeline, memory, map, layer, overview, path" in capsys.readouterr().err


def test_a_step_of_too_many_cells_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = trained()
    monkeypatch.setattr(held_over_step, "MOST_CELLS", 10)
    with pytest.raises(SpecError) as caught:
        plan.svg("pretrain", "pipeline")
    assert caught.value.diagnostics[0].code == "E05"
    assert "cells, more than 10" in read(plan.html()).text


def test_a_label_of_one_letter_has_room(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "step.moe"
    path.write_text(text(extra=WANTED))
    assert main(["check", str(path), "--format", "text"]) == 1
    assert "FAIL  m" in capsys.readouterr().out


@pytest.mark.parametrize(
    "more",
    [
        "zero = 1",
        "zero = 3",
        "schedule = interleaved, virtual = 2, zero = 3, grad_overlap = full",
        "schedule = zb_v",
        "schedule = dualpipe",
    ],
)
def test_a_trace_has_every_cell_and_the_ops_of_one_of_each_kind(more: str) -> None:
    plan = trained(more)
    result = plan.trainings["pretrain"]
    files = {name: b"".join(pieces) for name, pieces in timeline(plan, "pretrain").items()}
    assert set(files) == {"trace.json", "pftrace"} and all(files.values())
    found = json.loads(files["trace.json"])["traceEvents"]
    spans = [event for event in found if event["ph"] == "X"]
    cells = {"forward", "backward", "input", "weight"}
    for stage in range(result.steps.schedule.gpus):
        mine = [event for event in spans if event["pid"] == stage + 1]
        timed = list(result.steps.written(stage))
        shown = [event for event in mine if event["cat"] in cells]
        assert len(shown) == sum(len(cells_of(entry.entry)) for entry in timed)
        assert sum(event["dur"] for event in shown if event["tid"] % TRACKS == 0) == pytest.approx(
            1e6 * sum(entry.end_s - entry.start_s for entry in timed), rel=1e-3
        )
        (update,) = [event for event in mine if event["cat"] == "update"]
        assert update["ts"] + update["dur"] == pytest.approx(1e6 * result.time_s, abs=1e-2)
        inner = [event for event in mine if event["cat"] not in cells and event["cat"] != "update"]
        assert inner
        moves = [event for event in inner if event["tid"] % TRACKS == 3]
        assert bool(moves) == ("zero = 3" in more) and all(
            ".fetch." in m["name"] or ".grad" in m["name"] for m in moves
        )
        assert all(one["ts"] + one["dur"] <= other["ts"] + 1e-3 for one, other in pairwise(moves))
        for event in inner:
            end = event["ts"] + event["dur"]
            assert any(c["ts"] <= event["ts"] and end <= c["ts"] + c["dur"] + 1e-3 for c in shown), event["name"]
        held = [event["args"]["B"] for event in found if event["ph"] == "C" and event["pid"] == stage + 1]
        assert max(held) == pytest.approx(result.memory[stage].peak_B)
    sent, taken = ({event["id"] for event in found if event["ph"] == ph and event["name"] == "send"} for ph in "sf")
    assert sent == taken and sent


def test_a_trace_is_of_stages(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "step.moe"
    path.write_text(text())
    emit = ["compile", str(path), "-q", "--emit", "perfetto", "-o", str(tmp_path / "out")]
    assert main(emit) == 0
    assert {p.suffix for p in (tmp_path / "out").iterdir()} == {".json", ".pftrace", ".txt"}
    assert main([*emit, "--ranks", "all"]) == 2
    assert "leave `--ranks all` out" in capsys.readouterr().err


def test_swatches_of_what_is_as_white_as_the_page_are_seen() -> None:
    """Those of bubbles are hatched, as bubbles are."""
    rules = {line.split(" {")[0]: line for line in page_style().splitlines()}
    assert "repeating-linear-gradient" in rules[".sw.bubble"] and "dashed" in rules[".sw.gpu-idle"]


# -- the graph as JSON ---------------------------------------------------------------------------------

GRAPH = json.loads((resources.files("dagc.export") / "graph.schema.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("more", ["zero = 1", "schedule = interleaved, virtual = 2", "schedule = dualpipe"])
@pytest.mark.parametrize("ranks", ["folded", "all"])
def test_a_step_is_written_as_a_graph_with_its_layers(more: str, ranks: str) -> None:
    """Cells in the order of each GPU, sends between, and the IR: its longest path is the step, and parts have every layer once."""
    plan = trained(more)
    result = plan.trainings["pretrain"]
    data: Any = json.loads(dumps(graph_object(plan, "pretrain", ranks=ranks)))
    jsonschema.Draft202012Validator(GRAPH).validate(data)
    assert parse_graph("\n".join(data["ir"]) + "\n") == result.graph
    layers = Counter[str]()
    for part in data["parts"]:
        layers.update(dict(part["layers"]))
    assert layers == {s.name: s.repeat for s in result.graph.segments}
    nodes = {node["id"]: node for node in data["nodes"]}
    assert (
        len(nodes) == len(data["nodes"]) and {e[end] for e in data["edges"] for end in ("src", "dst")} <= nodes.keys()
    )
    ends: dict[str, float] = {}
    before: dict[str, list[str]] = {name: [] for name in nodes}
    for edge in data["edges"]:
        before[edge["dst"]].append(edge["src"])
    for name in TopologicalSorter(before).static_order():
        ends[name] = nodes[name]["time_s"] + max((ends[one] for one in before[name]), default=0.0)
    assert max(ends.values()) == pytest.approx(result.time_s)
    of_cells = {node["stage"]: node["layer"] for node in data["nodes"] if node["kind"] == "forward"}
    for stage, words in of_cells.items():
        assert stage in data["parts"][int(words.split()[1])]["stages"]


def test_the_graph_of_a_step_is_not_compiled_again(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "p.graph.json"
    path.write_bytes(dumps(graph_object(trained(), "pretrain")))
    assert main(["compile", str(path)]) == 2
    assert "of a training step, whose order of cells is not read" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more", ["zero = 1", "schedule = interleaved, virtual = 2", "schedule = zb_h1", "schedule = dualpipe"]
)
def test_the_longest_path_is_the_step(more: str) -> None:
    """Each node begins where the one before it ends, in the times of the schedule too; its parts add up to the step."""
    result = trained(more).trainings["pretrain"]
    path = longest_path(result)
    for before, after in pairwise(path):
        assert after.start_s == pytest.approx(before.start_s + before.time_s)
    assert path[0].start_s == 0.0 and path[-1].kind == "update"
    parts = path_parts(result)
    assert sum(part.time_s for part in parts) == pytest.approx(result.time_s)
    assert sum(part.count for part in parts) == len(path) and len(parts) == len({(p.stage, p.kind) for p in parts})
