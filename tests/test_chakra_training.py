"""Chakra traces of training steps: read back with Google's protobuf, against the schedule, the totals of the plan and its step time."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from math import ceil
from pathlib import Path

import pytest
from conftest import spec_text
from tiers import spread

pytest.importorskip("google.protobuf", reason="the traces are read with protobuf: pip install -e '.[test]'")

from chakra_schema import COLL, COMM, COMP, RECV, SEND
from test_chakra import Event, comm_is_a_chain, decoded, meet, tensors_are_written_once

import dagc
from dagc.cli import main
from dagc.cost.schedule.training.cell_orders import Cell, Part, cells_of
from dagc.cost.schedule.training.schedule_table import SCHEDULES
from dagc.export.chakra import configs, folder
from dagc.export.chakra.folder import traces
from dagc.export.chakra.layer_nodes import comm_size
from dagc.export.chakra.ranks import Ranks
from dagc.plan.step_totals import called, cell_name, step_collectives
from dagc.plan.trained import TrainingResult
from dagc.view.facts.size import step_nodes

LAYOUT = "gpus = 0..7, pp = 2, microbatches = 4\nattention { dp = 2, tp = 2 }\nexperts { ep = 4 }\n"
WORK = "sequences = 16, prompt = 256 tok, output = 4 tok"
CHUNKS = {name: f"schedule = {name}" + (", virtual = 2" if name == "interleaved" else "") for name in SCHEDULES}
CASES = {
    **CHUNKS,
    "zero 1": "zero = 1",
    "zero 1, hidden": "zero = 1, grad_overlap = full",
    "zero 2, hidden": "zero = 2, grad_overlap = full",
    "hidden, no zero": "grad_overlap = full, optimizer = sgd",
    "hidden, two copies": "schedule = dualpipe, zero = 1, grad_overlap = full",
    "zero 3": "zero = 3, sequence_parallel = true",
    "zero 3, hidden": "zero = 3, grad_overlap = full",
    "zero 3, kept": "zero = 3, grad_overlap = full, reshard_after_forward = false, schedule = zb_h1",
    "pairs": "schedule = interleaved, virtual = 2, exchange_overlap = full, zero = 1",
    "stages inside": "zero = 1, order = [dp, pp, sp, tp, ep]",
    "router losses": "aux_loss = 0.01, z_loss = 0.001, zero = 1",
    "recompute": "recompute = full, sequence_parallel = true",
    "recompute, apart": "schedule = zb_v, recompute = [moe]",
}


LAYOUTS = {
    "ring": "gpus = 0..7, sp = 4, tp = 2, sp_method = ring, microbatches = 2",
    "ulysses": "gpus = 0..3, sp = 2, tp = 2, sp_method = ulysses, microbatches = 2, recompute = full",
    "placed": "gpus = 0..15, dp = 4, ep = 4, microbatches = 3, zero = 2\nplace gpu = ep * 4 + dp",
    "uneven nodes": "gpus = 2..13, dp = 3, ep = 4, zero = 1, grad_overlap = full",
    "one GPU": "gpus = 5..5, microbatches = 2",
}
MODEL = """layers = 4, hidden = 64, vocab = 512, dtype = bf16, {more}
attention {{ kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }}
experts {{ count = 8, top_k = 2, hidden = 32 }}"""
MODELS = {
    "tied": ("zero = 1", "tied = true"),
    "tied, on one GPU": ("schedule = zb_v, zero = 1", "tied = true"),
    "further tokens": ("mtp_loss = 0.1, zero = 3", "mtp_layers = 1"),
}
EVERY = (*CASES, *LAYOUTS, *MODELS, "skewed")
SHOWN = {"dualpipe", "zero 3, kept", "pairs", "stages inside", "recompute, apart", "ring", "placed", "one GPU", "tied"}
"""Of these, one with chunks, one with two copies of the model, ways to keep and hide weights and gradients, and layouts and models."""


@cache
def case(name: str) -> tuple[TrainingResult, Ranks, dict[int, list[Event]]]:
    skewed = ", routing = zipf(1.0)" if name == "skewed" else ""
    work = "sequences = 48, prompt = 256 tok, output = 4 tok" if name in ("uneven nodes", "placed") else WORK + skewed
    more, model = MODELS.get(name, (CASES.get(name, ""), ""))
    phase = LAYOUTS.get(name) or LAYOUT + more
    text = spec_text(
        kind="pretrain",
        phase=f"kind = train\n{phase}",
        workload=work,
        dtype="bf16",
        model=MODEL.format(more=model) if model else "",
    )
    return of(dagc.compile_text(text).trainings["pretrain"])


def of(result: TrainingResult) -> tuple[TrainingResult, Ranks, dict[int, list[Event]]]:
    ranks = Ranks(result)
    return result, ranks, {rank: decoded(bytes(data)) for rank, data in traces(result, ranks)}


def test_groups_are_of_the_gpus_of_the_mesh() -> None:
    """By GPU ids, where stages are not one range each."""
    for name in ("stages inside", "placed", "tied"):
        result, ranks, _ = case(name)
        mesh, gpus = result.graph.the_mesh, ranks.network.gpus
        assert ranks.group_of
        for (_, *axes), index in ranks.group_of.items():
            found = {tuple(sorted(gpus[[*ranks.groups[i]]].tolist())) for i in set(index.ravel().tolist()) - {-1}}
            assert found == {tuple(sorted(row)) for row in mesh.groups(tuple(axes)).tolist()}


def stage_of(ranks: Ranks, rank: int) -> int:
    gpu = ranks.network.gpus[rank]
    return next(i for i, stage in enumerate(ranks.result.graph.stages) if gpu in stage.gpus)


@pytest.mark.parametrize("name", spread(EVERY, SHOWN))
def test_every_file_reads_back_consistent(name: str) -> None:
    result, ranks, events = case(name)
    assert sorted(events) == list(range(ranks.network.ranks))
    for rank, nodes in events.items():
        if ranks.network.gpus[rank] < 0:
            assert [n.name for n in nodes] == ["idle"]
            continue
        ids = [n.id for n in nodes]
        assert len({n.name for n in nodes}) == len(nodes) and ids == sorted(set(ids))
        assert all(ids[0] <= d < n.id for n in nodes for d in (*n.control, *n.data))  # all in this file, no cycle
        tensors_are_written_once(nodes)
        comm_is_a_chain([n for n in nodes if n.type != SEND])
        totals(nodes, result, stage_of(ranks, rank))
    meet(ranks, events, configs.groups(ranks))


def totals(nodes: list[Event], result: TrainingResult, stage: int) -> None:
    """FLOPs and bytes of a rank, and its collectives by cell and kind, are those of the plan."""
    work, moved = Counter[str](), Counter[tuple[str, str]]()
    calls = Counter[tuple[str, str]]()
    for segment, op, times in called(result, stage):
        cost = result.costs.ops[segment.name, op.name]
        if op.runtime_kind == "permute":
            pass  # messages of a ring, which have to meet
        elif op.is_collective:
            calls[cell_name(op.cell), op.runtime_kind] += times
            moved[cell_name(op.cell), op.runtime_kind] += times * comm_size(result, segment, op)
        else:
            work["num_ops"] += times * max(1, round(cost.flops))
            work["tensor_size"] += times * max(1, ceil(cost.bytes - 1e-6))
    for key in ("num_ops", "tensor_size"):
        assert sum(n.attr[key] for n in nodes if n.type == COMP) == work[key] > 0
    found = Counter((n.attr["cell"], COMM[n.attr["comm_type"]]) for n in nodes if n.type == COLL)
    assert found == calls
    sizes = Counter[tuple[str, str]]()
    for n in nodes:
        if n.type == COLL:
            sizes[n.attr["cell"], COMM[n.attr["comm_type"]]] += n.attr["comm_size"]
    assert sizes == moved
    plan = Counter[tuple[str, str]]()
    for one in step_collectives(result, stage):
        if one.total.axes != ("copies",):  # the sum with another copy of the model, which traces leave out
            plan[one.cell, one.total.kind] += one.total.count * one.total.payload_B
    for kind, type in (("send", SEND), ("recv", RECV)):
        for cell in ("forward", "backward"):
            between = [n for n in nodes if n.type == type and "op_kind" not in n.attr and n.attr["cell"] == cell]
            own = sum(n.attr["comm_size"] for n in between)
            assert own == pytest.approx(plan.get((cell, kind), 0))
    for (
        key,
        size,
    ) in sizes.items():  # whole bytes in equal parts: a little more than is priced; of tokens those of the busiest rank
        want = plan[key] * (result.costs.imbalance if key[1] == "all_to_all" else 1.0)
        assert want <= size * (1 + 1e-9) and size <= want + 8 * calls[key]


@pytest.mark.parametrize("name", spread(CASES, SHOWN))
def test_cells_are_in_the_order_of_the_schedule(name: str) -> None:
    """Forward cells take layers in ascending order, gradients in descending order; new weights come last."""
    result, ranks, events = case(name)
    for rank, nodes in events.items():
        stage = stage_of(ranks, rank)
        entries = [*result.steps.schedule.written(stage)]
        place = {cell: k for k, entry in enumerate(entries) for cell in cells_of(entry)}
        chunks, seen = layer_chunks(result, stage), defaultdict[Cell, list[int]](list)
        at = -1
        for node in (n for n in nodes if n.type == COMP and "microbatch" in n.attr):
            layer = node.name.split("/")[0].split(".", 2)[2]
            chunk, number = chunks[layer]
            cell = next(
                c for part in PARTS[node.attr["cell"]] if (c := Cell(node.attr["microbatch"], chunk, part)) in place
            )
            assert place[cell] >= at
            at = place[cell]
            if node.attr["op_kind"] not in MOVED_ALONG:
                seen[cell].append(number)
        for cell, numbers in seen.items():
            assert numbers == sorted(numbers, reverse=cell.part is not Part.FORWARD)
        empty = {cell for cell in place if cell not in seen}
        assert all(cell.part is Part.INPUT and not gives_back(result, stage, cell.chunk) for cell in empty)
        last = {n.attr["layer"] for n in nodes if n.attr["cell"] == "update" and "layer" in n.attr}
        assert last == {number for layer, (_, number) in chunks.items() if "." in layer}


def layer_chunks(result: TrainingResult, stage: int) -> Mapping[str, tuple[int, int]]:
    """Layer as nodes are called -> its chunk on a GPU of the pipeline, and its number in the model."""
    found = {}
    for chunk in range(result.steps.schedule.chunks):
        virtual = result.steps.schedule.stage_at[stage, chunk][1]
        number = sum(count for own in result.stages[:virtual] for _, count in own.layers) - 1
        for name in (name for name, count in result.stages[virtual].layers for _ in range(count)):
            found[result.graph.layer_name(name, number)] = (chunk, number)
            number += 1
    return found


MOVED_ALONG = ("fetch", "slice", "accumulate")
"""Kinds that may belong to the layer ahead or behind, where what moves weights runs beside the layers."""
PARTS = {
    "forward": (Part.FORWARD,), "recompute": (Part.BACKWARD, Part.INPUT), "backward": (Part.BACKWARD, Part.INPUT),
    "weight": (Part.BACKWARD, Part.WEIGHT),
}  # fmt: skip
"""What ops of a cell of the graph run in, of which a schedule has one for each micro-batch and chunk."""


def gives_back(result: TrainingResult, stage: int, chunk: int) -> bool:
    layers = result.stages[result.steps.schedule.stage_at[stage, chunk][1]].layers
    return any(op.cell in ("recompute", "backward") for name, _ in layers for op in result.graph.segment(name).ops)


@pytest.mark.parametrize("name", spread(CASES, SHOWN))
def test_the_longest_way_through_all_traces_is_the_step(name: str) -> None:
    """With the durations in the files: a collective begins when its last rank comes, a message arrives when its send ends."""
    result, _, events = case(name)
    ends_us = longest_us(events)
    ended = [(n, end) for rank, own in ends_us.items() for n, end in zip(events[rank], own, strict=True)]
    cells_s = max(end for n, end in ended if n.attr["cell"] != "update") / 1e6
    step_s = max(max(own) for own in ends_us.values()) / 1e6
    cells, step = cells_s / result.steps.makespan_s, step_s / result.time_s
    if result.training.overlap == "full":  # reduced gradients hold up the collectives of other layers
        assert 0.98 < cells < 1.1 and 0.98 < step < 1.1
    elif any(
        len(cells_of(entry)) > 1 for entry in result.steps.schedule.written(0)
    ):  # a pair is priced at the least that it can take
        assert 0.96 < cells < 1.06 and 0.96 < step < 1.06
    else:  # layers overlap a little where one ends with a collective, and so do updates
        assert 0.96 < cells < 1.005 and 0.96 < step < 1.001


def longest_us(events: Mapping[int, list[Event]]) -> Mapping[int, list[float]]:
    """Rank -> when each of its nodes ends."""
    calls: dict[tuple[object, ...], dict[int, float]] = defaultdict(dict)
    members: dict[str, int] = {}
    for nodes in events.values():
        for group in {n.attr.get("pg_name", "") for n in nodes if n.type == COLL}:
            members[group] = members.get(group, 0) + 1
    ends: dict[int, dict[int, float]] = {rank: {} for rank in events}
    arrived: dict[tuple[int, ...], float] = {}
    at = dict.fromkeys(events, 0)
    count: dict[tuple[int, str], int] = Counter()
    while any(at[rank] < len(nodes) for rank, nodes in events.items()):
        moved = False
        for rank, nodes in events.items():
            while at[rank] < len(nodes):
                node = nodes[at[rank]]
                ready = max((ends[rank][d] for d in (*node.control, *node.data)), default=0.0)
                if node.type == RECV:
                    key = (node.attr["comm_tag"], node.attr["comm_src"], rank)
                    if key not in arrived:
                        break
                    end = max(ready, arrived[key])
                elif node.type == COLL:
                    group = node.attr.get("pg_name", "")
                    call = calls[group, count[rank, group]]
                    call[rank] = ready
                    if len(call) < members[group]:
                        break
                    end = max(call.values()) + node.micros
                    count[rank, group] += 1
                else:
                    end = ready + node.micros
                    if node.type == SEND:
                        arrived[node.attr["comm_tag"], rank, node.attr["comm_dst"]] = end
                ends[rank][node.id] = end
                at[rank] += 1
                moved = True
        assert moved, "ranks wait for each other"
    return {rank: [own[node.id] for node in events[rank]] for rank, own in ends.items()}


def test_the_command_writes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside those of inference, with what the simulator needs; and refuses a step that is too long to be written out."""
    spec = tmp_path / "p.moe"
    phase = f"kind = train\n{LAYOUT}zero = 1"
    spec.write_text(
        spec_text(
            kind="pretrain", phase=phase, workload=WORK, dtype="bf16", extra="phase decode { gpus = 0..7, tp = 8 }"
        )
    )
    assert main(["compile", str(spec), "--emit", "chakra", "-o", str(tmp_path / "out")]) == 0
    for name in ("pretrain", "decode"):
        made = tmp_path / "out" / f"p.{name}.chakra"
        assert {f"rank.{k}.et" for k in range(8)} < {p.name for p in made.iterdir()}
    about = json.loads((tmp_path / "out" / "p.pretrain.chakra" / "ranks.json").read_text())
    result = dagc.compile(spec).trainings["pretrain"]
    assert about["pass_s"] == about["steady_s"] == pytest.approx(result.time_s)
    assert step_nodes(result) == sum(sum(n.type in (COMP, COLL) for n in nodes) for nodes in of(result)[2].values())
    monkeypatch.setattr(folder, "MOST_STREAMED", 1000)
    assert main(["compile", str(spec), "--emit", "chakra", "-o", str(tmp_path / "more")]) == 2
    assert not (tmp_path / "more" / "p.pretrain.chakra").exists()


def test_what_is_hidden_is_in_its_place() -> None:
    """Gradients of a layer are reduced behind its last cell; its weights are gathered ahead of its first one, which waits for them."""
    _, _, events = case("zero 1, hidden")
    for nodes in events.values():
        named = {n.id: n for n in nodes}
        layers = {n.attr["layer"] for n in nodes if "layer" in n.attr}
        for layer in layers:
            own = [n for n in nodes if n.attr.get("layer") == layer]
            cells = [n.id for n in own if n.attr["cell"] != "update"]
            updates = [n for n in own if n.attr["cell"] == "update"]
            gathers = [n for n in updates if n.type == COLL and COMM[n.attr["comm_type"]] == "all_gather"]
            reduces = [n for n in updates if n.type == COLL and COMM[n.attr["comm_type"]] == "reduce_scatter"]
            renews = [n for n in updates if n.attr.get("op_kind") == "adamw"]
            assert gathers and reduces and renews
            assert max(n.id for n in gathers) < min(cells) and max(cells) < min(n.id for n in reduces)
            assert max(n.id for n in nodes if n.attr["cell"] != "update") < min(n.id for n in renews)
            waited = {named[d].attr.get("op_kind") for n in own if n.attr["cell"] == "forward" for d in n.data}
            assert "store" in waited


def test_sums_go_on_from_micro_batch_to_micro_batch() -> None:
    """A sum reads the one before it, and the update reads the last."""
    result, _, events = case("zero 1")
    for nodes in events.values():
        sums = defaultdict[str, list[Event]](list)
        for n in nodes:
            if n.attr.get("op_kind") == "accumulate":
                sums[n.name.split(".", 2)[2]].append(n)
        assert sums
        for own in sums.values():
            assert len(own) == result.graph.microbatches
            assert all(a.id in b.data for a, b in pairwise(own))
        last = {own[-1].id for own in sums.values()}
        assert last <= {d for n in nodes if n.attr["cell"] == "update" for d in n.data}


def test_a_step_has_the_micro_batches_that_its_sequences_fill() -> None:
    """Sixteen sequences on sixteen ranks are one micro-batch, whatever is asked for."""
    phase = "kind = train\ngpus = 0..15, dp = 4, ep = 4, microbatches = 2"
    result = dagc.compile_text(spec_text(kind="pretrain", phase=phase, workload=WORK, dtype="bf16")).trainings[
        "pretrain"
    ]
    assert result.graph.microbatches == result.steps.schedule.microbatches == 1
