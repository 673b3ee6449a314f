"""The GPU map against brute force: the place of every rank by counting, groups by comparing places, experts by counting."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from functools import cache

import pytest
from conftest import spec_text

import dagc
from dagc.api import Plan
from dagc.base.frozen import record
from dagc.view.draw.figures.gpu_map import draw, keys
from dagc.view.facts.gpu_map import MOST_IDLE, Device, DeviceMap, gpu_map

Places = dict[str, int]
Side = tuple[tuple[str, int], ...]
EXPERTS = 8


@record
class Case:
    """A phase, how it factors its ranks (outermost first, once or for attention and for experts), and the GPU of a rank by its
    places, or by its number where it is the number that they make."""

    phase: str
    sides: tuple[Side, ...]
    gpu: Callable[[Places, int], int] = lambda places, number: number
    experts: Side = ()
    """Of ranks that have experts alone."""


CASES = {
    "flat": Case("gpus = 8..23, pp = 2, ep = 2, sp = 2, tp = 2", ((("pp", 2), ("ep", 2), ("sp", 2), ("tp", 2)),), lambda p, n: n + 8),
    "placed": Case(
        "gpus = 0..15, pp = 2, ep = 2, sp = 2, tp = 2\nplace gpu = pp + 2 * (tp * 4 + ep * 2 + sp)",
        ((("pp", 2), ("ep", 2), ("sp", 2), ("tp", 2)),),
        lambda p, n: p["pp"] + 2 * (p["tp"] * 4 + p["ep"] * 2 + p["sp"]),
    ),
    "ordered": Case(
        "gpus = 0..15, pp = 2, dp = 2, ep = 2, tp = 2\norder = [ep, pp, tp, dp, sp]",
        ((("ep", 2), ("pp", 2), ("tp", 2), ("dp", 2)),),
    ),
    "folded": Case("gpus = 0..7\nattention { dp = 2, tp = 4 }\nexperts { ep = 8 }", ((("dp", 2), ("tp", 4)), (("ep", 8),))),
    "expert replicas": Case(
        "gpus = 0..15, pp = 2\nattention { dp = 4, tp = 2 }\nexperts { ep = 2, tp = 2 }",
        ((("pp", 2), ("dp", 4), ("tp", 2)), (("pp", 2), ("edp", 2), ("ep", 2), ("etp", 2))),
    ),
    "replicas": Case("gpus = 0..7, replicas = 2, ep = 2, tp = 2", ((("replica", 2), ("ep", 2), ("tp", 2)),)),
    "experts alone": Case(
        "gpus = 0..7, attention { dp = 2, sp = 2, tp = 2 }\nexperts { gpus = 8..11, ep = 4 }",
        ((("dp", 2), ("sp", 2), ("tp", 2)),),
        experts=(("ep", 4),),
    ),
}  # fmt: skip


@cache
def plan_of(name: str) -> Plan:
    return dagc.compile_text(spec_text(phase=CASES[name].phase, dtype="bf16"))


@cache
def map_of(name: str) -> DeviceMap:
    return gpu_map(plan_of(name), "prefill")


def ranks(side: Side) -> list[Places]:
    """Counted like a number whose first digit is the outermost axis."""
    names = [axis for axis, _ in side]
    return [dict(zip(names, at, strict=True)) for at in itertools.product(*(range(n) for _, n in side))]


def by_brute_force(case: Case) -> dict[int, list[Places]]:
    """GPU -> its places on each side."""
    sides = [ranks(side) for side in case.sides]
    found = {case.gpu(at[0], n): list(at) for n, at in enumerate(zip(*sides, strict=True))}
    first = max(found) + 1
    return found | {first + n: [at] for n, at in enumerate(ranks(case.experts)) if case.experts}


def used(found: DeviceMap) -> dict[int, Device]:
    return {device.gpu: device for pool in found.pools for device in pool.devices if device.seat is not None}


@pytest.mark.parametrize("name", CASES)
def test_every_gpu_has_the_places_that_counting_gives(name: str) -> None:
    wanted = by_brute_force(CASES[name])
    devices = used(map_of(name))
    assert devices.keys() == wanted.keys()
    for gpu, sides in wanted.items():
        places = {axis: place for side in sides for axis, place in side.items()}
        found = {
            axis: n for axis, n in devices[gpu].numbers.items() if axis != "phases" and not axis.endswith("-group")
        }
        assert found == places
        assert all(f"{axis} {place}" in devices[gpu].hint for axis, place in places.items())


@pytest.mark.parametrize("name", CASES)
def test_a_group_are_those_that_differ_along_its_axis_alone(name: str) -> None:
    wanted, devices = by_brute_force(CASES[name]), used(map_of(name))
    for colouring in map_of(name).colourings:
        if not colouring.of_groups:
            continue
        axis = colouring.axis
        have = [gpu for gpu, sides in wanted.items() if any(axis in side for side in sides)]
        rest = {gpu: [{k: v for k, v in s.items() if k != axis} for s in wanted[gpu] if axis in s] for gpu in have}
        for a, b in itertools.combinations(have, 2):
            same = any(one == other for one, other in zip(rest[a], rest[b], strict=False)) and len(wanted[a]) == len(
                wanted[b]
            )
            assert (devices[a].numbers[colouring.name] == devices[b].numbers[colouring.name]) == same, (axis, a, b)


def experts_by_weights(plan: Plan) -> dict[int, range]:
    """GPU -> the experts whose weights the graph's layout gives its rank; plans may deal them out in another order than ranks count."""
    graph = plan.phases["prefill"].graph
    mesh = graph.the_mesh
    weight = next(w for s in graph.segments for w in s.weights if w.scope == "experts" and w.dims[0] == "expert")
    assert weight.sharding is not None
    on = weight.sharding.on
    found = {}
    for stage, *at in itertools.product(range(mesh.stages), *map(range, mesh.side_shape(on))):
        places = dict(zip(mesh.sizes, at, strict=True))
        found[int(mesh.ids_on(on)[(stage, *at)])] = range(EXPERTS)[mesh.part(EXPERTS, weight.sharding.dims[0], places)]
    return found


@pytest.mark.parametrize("name", CASES)
def test_experts_and_memory_are_those_of_the_rank(name: str) -> None:
    result = plan_of(name).phases["prefill"]
    wanted = experts_by_weights(plan_of(name))
    devices = used(map_of(name))
    assert Counter(e for experts in wanted.values() for e in experts).keys() == {*range(EXPERTS)}
    for gpu, device in devices.items():
        mine = wanted.get(gpu)
        if mine is None:
            assert CASES[name].experts and "; experts" not in device.hint
        else:
            assert f"; experts {mine[0]}{f'..{mine[-1]}' if len(mine) > 1 else ''};" in device.hint
        held = result.memory.stages[device.seat or 0]
        assert f"({held.peak_B / held.capacity_B:.0%})" in device.hint
        assert ("KV cache" in device.hint) == (held.kv_cache_B > 0)


@pytest.mark.parametrize("name", CASES)
def test_counts_are_those_of_the_gpus(name: str) -> None:
    devices = used(map_of(name))
    for colouring in map_of(name).colourings:
        found = Counter(d.numbers[colouring.name] for d in devices.values() if colouring.name in d.numbers)
        assert found == colouring.each
        assert colouring.without == len(devices) - sum(found.values())


def test_spare_experts_are_on_the_ranks_that_the_plan_says() -> None:
    """Against the JSON of a plan, whose spec says how experts are placed."""
    text = spec_text(phase="gpus = 0..3\nattention { dp = 4 }\nexperts { ep = 4 }\nredundant = 4, expert_placement = eplb", dtype="bf16",
                     workload="sequences = 64, prompt = 256 tok, output = 16 tok, routing = zipf(1.2)")  # fmt: skip
    plan = dagc.compile_text(text)
    (layer,) = plan.to_json()["phases"]["prefill"]["expert_placement"]["layers"]  # type: ignore[index]
    devices = used(gpu_map(plan, "prefill"))
    for rank, experts in enumerate(layer["experts"]):
        said = re.search(r"experts ([0-9., ]+);", devices[rank].hint)
        assert said is not None
        listed = [range(int(a), int(b or a) + 1) for a, b in re.findall(r"(\d+)(?:\.\.(\d+))?", said[1])]
        assert sorted(set(experts)) == [e for run in listed for e in run]


POOLS = """
hardware memory from "h200-sxm" { gpus = 8 }
link pool to memory { bandwidth = 50 GB/s, latency = 8 us }
phase decode { hardware = pool, gpus = 0..7, tp = 8 }
phase late { kind = decode, hardware = memory, gpus = 0..3, tp = 4 }
"""


@cache
def shared_plan() -> Plan:
    """Two phases share half of the GPUs of one pool; a third one uses half of another pool, whose other half is idle."""
    return dagc.compile_text(
        spec_text(phase="hardware = pool, gpus = 0..15, ep = 2, tp = 8", gpus=16, dtype="bf16", extra=POOLS)
    )


def test_who_uses_a_gpu() -> None:
    for phase, other in (("prefill", "decode"), ("decode", "prefill")):
        pool, _ = gpu_map(shared_plan(), phase).pools
        devices = list(pool.devices)
        assert [d.gpu for d in devices] == list(range(16))
        assert all((f"also {other}, together at most" in d.hint) == (d.gpu < 8) for d in devices)
        assert [d.gpu for d in devices if d.seat is None] == ([] if phase == "prefill" else list(range(8, 16)))
    memory, pool = gpu_map(shared_plan(), "late").pools
    assert [p.hardware.name for p in (memory, pool)] == ["memory", "pool"]
    assert dict(memory.uses) == {("late",): 4, (): 4} and dict(pool.uses) == {("prefill", "decode"): 8, ("prefill",): 8}
    assert [d.hint.endswith("no phase uses it") for d in memory.devices] == [False] * 4 + [True] * 4
    assert [d.hint.partition(": ")[2] for d in pool.devices] == ["prefill and decode"] * 8 + ["prefill"] * 8


LINKS = """link node { gpus = 4, bandwidth = 450 GB/s, latency = 2 us }
  link rack { gpus = 16, bandwidth = 100 GB/s, latency = 3 us }
  link cluster { bandwidth = 50 GB/s, latency = 6 us }"""


def test_nodes_are_in_racks_and_idle_ones_are_folded() -> None:
    text = spec_text(phase="gpus = [0, 1, 40, 41], tp = 4", gpus=470, dtype="bf16")
    text = re.sub(r"link node.*\n.*link cluster.*", LINKS, text).replace("per_node = 8", "per_host = 4")
    (pool,) = gpu_map(dagc.compile_text(text), "prefill").pools
    assert [(d.level, d.number, d.first, d.count, d.alike) for d in pool.domains] == [
        *(("rack", k, 16 * k, 16, 1) for k in range(3)),
        ("rack", 3, 48, 422, 27),
    ]  # fmt: skip
    assert [(d.level, d.number, d.first, d.count) for d in pool.domains[2].inner] == [
        ("node", 8 + k, 32 + 4 * k, 4) for k in range(4)
    ]
    assert len(pool.domains) - 1 < MOST_IDLE
    drawn = list(pool.devices)
    assert len(drawn) + pool.domains[3].count == 470 and not pool.hidden
    assert [d.gpu for d in drawn if d.seat is not None] == [0, 1, 40, 41]


SVG = "{http://www.w3.org/2000/svg}"


def cells(document: str) -> dict[int, tuple[str, str]]:
    """GPU -> the class of its cell, and its hint, as drawn."""
    found = {}
    for group in ET.fromstring(document).iter(f"{SVG}g"):
        children = list(group)
        if len(children) > 1 and children[0].tag == f"{SVG}title" and children[1].tag == f"{SVG}rect":
            hint = children[0].text or ""
            gpu = re.match(r"GPU (\d+), ", hint)
            if gpu is not None:
                assert int(gpu[1]) not in found
                found[int(gpu[1])] = children[1].get("class", ""), hint
    return found


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("color_by", ["", "tp", "ep-group", "pp", "phases"])
def test_cells_have_the_colours_of_their_numbers(name: str, color_by: str) -> None:
    drawn = cells(plan_of(name).svg("prefill", "map", color_by=color_by))
    found = map_of(name)
    by = found.colouring(color_by)
    assert drawn.keys() == {device.gpu for pool in found.pools for device in pool.devices}
    for device in (device for pool in found.pools for device in pool.devices):
        look, hint = drawn[device.gpu]
        number = device.numbers.get(by.name)
        wanted = f"g{number % 8}" if number is not None else "gpu-none" if device.seat is not None else "gpu-idle"
        assert (look, hint) == (wanted, device.hint)


def test_the_stage_is_the_default_colour_or_the_outermost_axis() -> None:
    wanted = {
        "flat": "pp",
        "placed": "pp",
        "ordered": "pp",
        "folded": "dp",
        "replicas": "replica",
        "experts alone": "dp",
    }
    assert {name: map_of(name).colouring("").name for name in wanted} == wanted


def test_the_legend_counts_every_gpu() -> None:
    for name in ("late", "decode", "prefill"):
        found = gpu_map(shared_plan(), name)
        said = [words for look, words in keys(found) if look.startswith("g") and look != "gpu-mark"]
        assert sum(int(words.rsplit(": ", 1)[1].split()[0]) for words in said) == 24
    marks = dict(keys(gpu_map(shared_plan(), "prefill")))
    assert marks["gpu-mark"] == "also decode: 8 GPUs" and marks["gpu-idle"] == "no phase: 4 GPUs"
    assert "gpu-mark" not in dict(keys(gpu_map(shared_plan(), "decode")))
    assert "all GPUs of decode also serve prefill" in shared_plan().svg("decode", "map")


@pytest.mark.parametrize(("choice", "help"), [("tpp", "did you mean `tp`"), ("colour", "known: pp")])
def test_what_the_map_cannot_be_coloured_by(choice: str, help: str) -> None:
    with pytest.raises(dagc.SpecError) as refused:
        plan_of("flat").svg("prefill", "map", color_by=choice)
    (error,) = refused.value.diagnostics
    assert error.code == "E14" and help in error.help[0]
    with pytest.raises(dagc.SpecError, match="has no --color-by"):
        plan_of("flat").svg("prefill", "memory", color_by="tp")
    with pytest.raises(dagc.SpecError, match="has no --select"):
        plan_of("flat").svg("prefill", "map", select=["gpu:0"])


def test_four_thousand_gpus_have_a_cell_each_and_a_moderate_file() -> None:
    text = spec_text(phase="gpus = 0..4095, pp = 4, dp = 8, ep = 8, sp = 4, tp = 4", gpus=4096, dtype="bf16",
                     workload="sequences = 4096, prompt = 256 tok, output = 16 tok")  # fmt: skip
    plan = dagc.compile_text(text)
    document = plan.svg("prefill", "map")
    assert cells(document).keys() == set(range(4096))
    assert len(document.encode()) < 1_500_000
    overview = plan.svg("prefill", "overview")
    assert "GPU 4088..4095, pp 3, prefill" in overview and len(overview.encode()) < 400_000


def test_gpus_of_a_phase_that_is_not_compiled_are_not_idle() -> None:
    text = spec_text(phase="hardware = pool, gpus = 0..15, ep = 2, tp = 8", gpus=16, dtype="bf16", extra=POOLS)
    alone = dagc.compile_text(text, phases=["decode"])
    (pool, _), (whole, _) = gpu_map(alone, "decode").pools, gpu_map(shared_plan(), "decode").pools
    assert pool.uses == whole.uses == ((("prefill", "decode"), 8), (("prefill",), 8))
    assert "; also prefill" in next(pool.devices).hint


def test_of_very_many_gpus_the_first_nodes_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagc.view.facts.gpu_map.MOST_GPUS", 16)
    found = gpu_map(plan_of("flat"), "prefill")
    (pool,) = found.pools
    assert [d.gpu for d in pool.devices] == list(range(16)) and pool.hidden == 48
    document = plan_of("flat").svg("prefill", "map")
    assert cells(document).keys() == set(range(16)) and "48 GPUs more are not drawn" in document


def test_a_last_node_with_fewer_gpus_keeps_the_columns() -> None:
    """Of 72 twelve are side by side, and so they are of the 64 of the last node."""
    plan = dagc.compile_text(
        'moe 1\nhardware from "gb200-nvl72" { gpus = 136 }\nmodel from "qwen3-30b-a3b" { layers = 1 }\n'
        "workload { sequences = 136, prompt = 64 tok, output = 8 tok }\nphase decode { gpus = 0..135, attention { dp = 136 }, experts { ep = 8 } }\n"
    )
    figure = "".join(draw(gpu_map(plan, "decode"), "").body)
    columns = Counter(re.findall(r'<rect x="(\d+)" y="\d+" width="\d+" height="\d+" class="g\d"', figure))
    assert len(columns) == 12 and {*columns.values()} == {11, 12}
