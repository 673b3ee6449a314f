"""`dagc survive`: what goes on, what is lost and what is fetched, against counts element by element on small plans."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, spec_text
from tiers import left_out

from dagc.base.diagnostics import Collector, SpecError
from dagc.base.dtypes import dtype
from dagc.base.source import Source
from dagc.cli import main
from dagc.lang.load import load
from dagc.lang.open_spec import OpenSpec, load_open
from dagc.optimize.lost import lost_gpus
from dagc.optimize.survive import Kept, Survival, survive, written
from dagc.pipeline.compile import compile_spec
from dagc.pipeline.moved import moved
from dagc.plan.plan import CompiledPlan

Capture = pytest.CaptureFixture[str]
EXPERT_B = 3 * 64 * 32 * 4
"""Bytes of an expert of a layer: gate, up and down."""


def text(phases: str, *, gpus: int = 8, per_node: int = 4, memory: str = "4 MB", routing: str = "uniform") -> str:
    return f"""moe 1
# a comment at the top
hardware pool {{
  gpus = {gpus}, per_node = {per_node}
  compute = 400 TFLOP/s, memory = {memory}, hbm = 1.8 TB/s
  link node {{ bandwidth = 450 GB/s, latency = 2 us }}
  link cluster {{ bandwidth = 50 GB/s, latency = 6 us }}
}}
model small {{
  layers = 4, hidden = 64, vocab = 256, dtype = fp32
  attention {{ kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }}
  experts {{ count = 8, top_k = 2, hidden = 32 }}
}}
workload {{ sequences = 16, prompt = 64 tok, output = 16 tok, routing = {routing} }}
{phases}
"""


def opened(source: str) -> OpenSpec:
    return load_open(Source("x.moe", source), Collector())


@cache
def survived(source: str, *lost: str, top: int = 8) -> Survival:
    own = opened(source)
    return survive(own, lost_gpus(lost, own.spec), top=top)


def re_placed(found: Survival) -> Kept:
    """The lost GPUs alone replaced, not their nodes."""
    own = (p for p in found.plans if p.kind == "re-place")
    return min(own, key=lambda p: len(set(p.phases[0].gpus) - set(found.before.phases[p.phases[0].name].gpus)))


def compiled(source: str) -> CompiledPlan:
    return compile_spec(load(Source("x.moe", source), Collector()), Collector())


# -- what is lost ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        (("gpu:3",), {3}),
        (("gpu:2..4", "gpu:4"), {2, 3, 4}),
        (("node:1",), {4, 5, 6, 7}),
        (("node:0..1",), set(range(8))),
    ],
)
def test_words_for_lost_gpus(words: tuple[str, ...], ids: set[int]) -> None:
    spec = opened(text("phase decode { gpus = 0..3, tp = 4 }")).spec
    assert lost_gpus(words, spec) == {"": frozenset(ids)}


@pytest.mark.parametrize(
    "word", ["gpu:8", "node:2", "gpu:x", "nod:1", "gpu:", "17", "gpu:3..1", "pool.gpus:3", "gpu:-1", ""]
)
def test_words_that_name_no_gpu(word: str) -> None:
    spec = opened(text("phase decode { gpus = 0..3, tp = 4 }")).spec
    with pytest.raises(SpecError) as caught:
        lost_gpus([word], spec)
    assert [d.code for d in caught.value.diagnostics] == ["E14"] and caught.value.diagnostics[0].help


def test_gpus_that_no_phase_uses_change_nothing() -> None:
    found = survived(text("phase decode { gpus = 0..3, tp = 4 }"), "gpu:5")
    assert found.unchanged and found.unused == {"": (5,)} and not found.plans


@pytest.mark.parametrize(
    ("phase", "lost"),
    [
        left_out(("gpus = 0..7, dp = 2, tp = 4", (2,))),
        ("gpus = 0..7, pp = 2, attention { dp = 2, tp = 2 }, experts { ep = 4 }", (1, 6)),
        left_out(("gpus = 0..7, replicas = 2, ep = 2, tp = 2", (1, 6))),
        left_out(("gpus = 0..7, ep = 8", (1, 6))),
        ("gpus = 0..7, sp = 2, dp = 4, order = [dp, sp, tp, ep, pp]", (2,)),
    ],
)
def test_lost_sequences_are_those_of_ranks_that_split_the_batch(phase: str, lost: tuple[int, ...]) -> None:
    source = text(f"phase decode {{ {phase} }}")
    found = survived(source, *(f"gpu:{gpu}" for gpu in lost))
    mesh = found.before.phases["decode"].graph.the_mesh
    holders: dict[tuple[int, ...], set[int]] = {}
    for at in np.ndindex(mesh.ids.shape):
        key = tuple(c for c, (atom, _) in zip(at[1:], mesh.atoms, strict=True) if atom in mesh.batch_axes)
        holders.setdefault(key, set()).add(int(mesh.ids[at]))
    hit = sum(bool(gpus & set(lost)) for gpus in holders.values())
    for plan in found.plans:
        assert plan.lost[0].sequences == hit * 16 // len(holders)
        assert plan.lost[0].kv_B == len(lost) * found.before.phases["decode"].memory.worst.kv_cache_B
        assert plan.lost[0].restarted >= plan.lost[0].sequences


# -- what goes on ----------------------------------------------------------------------------------


def test_a_spare_gpu_takes_the_place() -> None:
    source = text("phase decode { gpus = [0..3, 8..11], attention { dp = 8 }, experts { ep = 8 } }", gpus=16)
    best = re_placed(survived(source, "gpu:9"))
    assert best.phases[0].gpus == (0, 1, 2, 3, 8, 4, 10, 11)
    assert best.kept["decode"] == pytest.approx(1.0, rel=0.01) and best.lost[0].restarted == 2


def test_the_spare_gpu_is_of_the_same_node_where_there_is_one() -> None:
    source = text("phase decode { gpus = [0, 1, 2, 4, 5, 6], attention { dp = 6 }, experts { ep = 6 }, redundant = 4 }")
    best = re_placed(survived(source, "gpu:5"))
    assert best.phases[0].gpus == (0, 1, 2, 4, 7, 6)


def test_a_whole_node_is_replaced_by_one_that_nobody_uses() -> None:
    source = text("phase decode { gpus = 0..7, pp = 2, tp = 4 }", gpus=16)
    wanted = (0, 1, 2, 3, 8, 9, 10, 11)
    one = next(p for p in survived(source, "gpu:6").plans if p.phases[0].gpus == wanted)
    assert one.kind == "re-place" and one.idle == (4, 5, 7) and one.kept["decode"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("phase", "left", "gpus"),
    [
        left_out(("gpus = 0..7, replicas = 4, tp = 2", "replicas = 3", (0, 1, 4, 5, 6, 7))),
        left_out(("gpus = 0..7, dp = 4, tp = 2", "dp = 3", (0, 1, 4, 5, 6, 7))),
        ("gpus = 0..7, attention { dp = 4, tp = 2 }, experts { ep = 2 }", "dp = 3", (0, 1, 4, 5, 6, 7)),
    ],
)
def test_a_copy_of_everything_is_drained(phase: str, left: str, gpus: tuple[int, ...]) -> None:
    drained = next(p for p in survived(text(f"phase decode {{ {phase} }}"), "gpu:3").plans if p.kind == "drain")
    (own,) = drained.phases
    assert own.gpus == gpus and own.sequences in (12, 16)
    assert drained.moved.total_B == drained.least_moved.total_B == 0
    assert drained.lost[0].restarted == 4
    name, _, number = left.partition(" = ")
    degree = own.strategy.replicas if name == "replicas" else own.strategy.dp
    folded = dict(own.strategy.attention.degrees)["dp"] if own.strategy.attention is not None else degree
    assert folded == int(number)


def test_ids_are_listed_in_the_order_of_axes() -> None:
    """With `tp` before `pp`, the list of GPUs is not stage by stage."""
    phase = "phase decode { gpus = 0..7, pp = 2, tp = 2, dp = 2, order = [tp, dp, pp, ep, sp] }"
    found = survived(text(phase, gpus=12), "gpu:5")
    one = re_placed(found)
    before, after = (p.phases["decode"].graph.the_mesh.ids for p in (found.before, one.plan))
    assert ((before == after) | (before == 5)).all() and (before != after).sum() == 1


def test_a_drained_batch_loses_its_share_of_throughput() -> None:
    source = text("phase decode { gpus = 0..7, replicas = 4, tp = 2 }")
    drained = [p for p in survived(source, "gpu:3").plans if p.kind == "drain" and p.phases[0].sequences == 12]
    assert drained[0].kept["decode"] == pytest.approx(3 / 4)


def test_spare_experts_cover_what_was_lost() -> None:
    """Eight experts twice on four ranks: any three of them have all."""
    source = text("phase decode { gpus = 0..3, attention { dp = 4 }, experts { ep = 4 }, redundant = 8 }", gpus=4)
    found = [p for p in survived(source, "gpu:1").plans if p.kind == "spare experts"]
    assert {p.phases[0].strategy.redundant for p in found} == {1, 3 * 4 - 8}
    assert found[0].least_moved.total_B == 0 and found[0].least_moved.experts == 0 and found[0].moved.total_B > 0


def test_experts_that_were_only_there_are_fetched() -> None:
    source = text("phase decode { gpus = 0..3, attention { dp = 4 }, experts { ep = 4 } }", gpus=4)
    shrunk = next(p for p in survived(source, "gpu:1").plans if p.kind == "shrink" and len(p.phases[0].gpus) == 3)
    ep = dict(shrunk.phases[0].strategy.experts.degrees)["ep"] if shrunk.phases[0].strategy.experts else 1
    each = 2 if ep == 3 else 6  # experts that a group of ranks lacks
    groups = 1 if ep == 3 else 3
    assert shrunk.least_moved.experts == 2 * 4
    assert shrunk.least_moved.total_B == pytest.approx(4 * each * groups * EXPERT_B)
    assert shrunk.least_moved.storage_B == pytest.approx(4 * 2 * EXPERT_B * groups)


def test_ranks_with_holes_are_healed_by_those_that_stop() -> None:
    """Both stages lose a GPU of different ranks: one rank of the batch goes on."""
    source = text(
        "phase decode { gpus = 0..7, pp = 2, attention { dp = 2, tp = 2 }, experts { ep = 4 } }", memory="2 MB"
    )
    shrunk = [p for p in survived(source, "gpu:0", "gpu:7").plans if "shrink" in p.kind]
    assert shrunk
    (own,) = shrunk[0].phases
    assert len(own.gpus) == 4 and not {0, 7} & set(own.gpus) and own.strategy.pp == 2


def test_plans_are_written_and_compile_to_the_same_figures() -> None:
    source = text(
        "phase prefill { gpus = 0..7, ep = 4, tp = 2 } # first\n"
        "phase decode {\n  # how it is laid out\n  gpus = 0..7, attention { dp = 4, tp = 2 }\n  experts { ep = 8 }\n}"
    )
    found = survived(source, "gpu:6")
    own = opened(source)
    assert len(found.plans) >= 3
    for plan in found.plans:
        again = written(own, plan.phases)
        assert "# how it is laid out" in again and "# first" in again and "# a comment at the top" in again
        read = compiled(again)
        for phase in plan.phases:
            one, other = read.phases[phase.name], plan.plan.phases[phase.name]
            assert 6 not in one.gpus
            assert (one.time_s, one.throughput_tok_s, one.memory.worst.peak_B) == (
                other.time_s, other.throughput_tok_s, other.memory.worst.peak_B
            )  # fmt: skip


def test_flat_degrees_and_place_give_way(tmp_path: Path) -> None:
    source = text("phase decode {\n  gpus = 0..7, dp = 2, ep = 4\n  place gpu = dp * 4 + ep\n}")
    own = opened(source)
    for plan in survived(source, "gpu:6").plans:
        again = written(own, plan.phases)
        assert "place gpu" not in again
        assert compiled(again).phases["decode"].time_s == plan.plan.phases["decode"].time_s


def test_the_order_is_by_requirements_then_by_throughput() -> None:
    phases = "phase decode { gpus = 0..7, replicas = 4, tp = 2 }"
    free = survived(text(phases), "gpu:3").plans
    assert [p.rank for p in free] == sorted(p.rank for p in free) and free[0].share == max(p.share for p in free)
    slow = min(free, key=lambda p: p.plan.phases["decode"].time_s)
    limit = slow.plan.phases["decode"].time_s
    bound = survived(text(f'{phases}\nrequire "fast" decode.tpot <= {limit * 1.0001!r} s'), "gpu:3")
    if bound.verdicts[0].passed:
        assert not bound.plans[0].broken
        assert bound.plans[0].plan.phases["decode"].time_s <= limit * 1.0001


def test_requirements_that_cannot_be_asked_count() -> None:
    source = text('phase decode { gpus = 0..7, dp = 8 }\nrequire "last" decode.gpu(dp = 7) == 7')
    best = survived(source, "gpu:0").plans[0]
    assert best.unsaid == ("last",)


# -- what is fetched -------------------------------------------------------------------------------


def elements(
    plan: CompiledPlan, name: str
) -> Mapping[tuple[int, int, str], np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]:
    """(GPU, layer, weight) -> which of its elements the GPU holds; experts without copies, in order."""
    graph = plan.phases[name].graph
    mesh = graph.the_mesh
    out: dict[tuple[int, int, str], np.ndarray[tuple[int, ...], np.dtype[np.bool_]]] = {}
    layer = 0
    for stage in graph.stages:
        for kind, count in stage.layers:
            segment = graph.segment(kind)
            for one in range(layer, layer + count):
                for at in np.ndindex(mesh.shape):
                    where = dict(zip(mesh.sizes, at, strict=True))
                    for w in segment.weights:
                        assert w.sharding is not None
                        sizes = [int(segment.size(d, w.scope)) for d in w.dims]
                        has = np.zeros(sizes, dtype=bool)
                        has[
                            tuple(mesh.part(n, axes, where) for n, axes in zip(sizes, w.sharding.dims, strict=True))
                        ] = True
                        out[int(mesh.ids[(stage.index, *at)]), one, w.name] = has
            layer += count
    return out


@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        ("gpus = 0..7, tp = 8", "gpus = 0..3, tp = 4", {7}),
        ("gpus = 0..7, pp = 2, attention { dp = 2, tp = 2 }, experts { ep = 4 }",
         "gpus = [0, 1, 2, 5], attention { dp = 2, tp = 2 }, experts { ep = 2, tp = 2 }", {3, 4}),
        ("gpus = 0..7, attention { dp = 4, tp = 2 }, experts { ep = 8 }",
         "gpus = [0..4, 6], attention { dp = 3, tp = 2 }, experts { ep = 2, tp = 1 }", {5}),
        ("gpus = 0..3, ep = 4", "gpus = 4..7, ep = 4", {0, 1, 2, 3}),
    ],
)  # fmt: skip
def test_fetched_bytes_element_by_element(before: str, after: str, lost: set[int]) -> None:
    old, new = (compiled(text(f"phase decode {{ {body} }}")) for body in (before, after))
    found = moved(old, new, {"": lost}, ["decode"])
    have, want = elements(old, "decode"), elements(new, "decode")
    kinds = {"node": 0.0, "cluster": 0.0, "storage": 0.0}
    bytes_of = {w.name: dtype(w.dtype).bytes for s in new.phases["decode"].graph.segments for w in s.weights}
    for (gpu, layer, name), wanted in want.items():
        missing = wanted & ~have[gpu, layer, name] if (gpu, layer, name) in have and gpu not in lost else wanted
        others = {g: h for (g, k, n), h in have.items() if (k, n) == (layer, name) and g not in lost}
        near = sum((h for g, h in others.items() if g // 4 == gpu // 4), np.zeros_like(wanted)).astype(bool)
        there = sum(others.values(), np.zeros_like(wanted)).astype(bool)
        for kind, bits in (
            ("node", missing & near),
            ("cluster", missing & ~near & there),
            ("storage", missing & ~there),
        ):
            kinds[kind] += bits.sum() * bytes_of[name]
    assert (found.node_B, found.cluster_B, found.storage_B) == pytest.approx(tuple(kinds.values()))


def test_keeping_experts_never_fetches_more() -> None:
    source = text(
        "phase decode { gpus = 0..7, attention { dp = 8 }, experts { ep = 8 }, redundant = 8 }", routing="zipf(0.8)"
    )
    for plan in survived(source, "gpu:2").plans:
        assert plan.least_moved.total_B <= plan.moved.total_B


# -- what cannot go on -----------------------------------------------------------------------------


def test_a_plan_that_cannot_go_on_says_why_and_what_it_takes() -> None:
    source = text("phase decode { gpus = 0..1, tp = 2 }", gpus=2, memory="800 kB")
    found = survived(source, "gpu:0")
    assert not found.plans
    (stopped,) = found.stopped
    assert stopped.phases == ("decode",) and stopped.left == 1
    assert stopped.fewest is not None and stopped.fewest.gpus == 2
    assert any("GB" in why for _, why in stopped.refused) or stopped.refused == ()


def test_everything_lost(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "x.moe"
    path.write_text(text("phase decode { gpus = 0..3, tp = 4 }", gpus=4))
    assert main(["survive", str(path), "--lose", "node:0", "-o", str(tmp_path / "out")]) == 1
    out = capsys.readouterr().out
    assert "decode cannot go on with the 0 GPUs that are left" in out and "it takes" in out
    assert all(len(line) <= 80 for line in out.splitlines() if str(path) not in line)
    assert not (tmp_path / "out").exists()


# -- the command -----------------------------------------------------------------------------------


def test_the_command_proves_and_writes(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "x.moe"
    path.write_text(
        text("phase decode { gpus = 0..3, attention { dp = 4 }, experts { ep = 4 }, redundant = 8 }", gpus=4)
    )
    code = main(
        ["survive", str(path), "--lose", "gpu:1", "--verify", "--top", "2", "-o", str(tmp_path / "out"), "--json"]
    )
    told = json.loads(capsys.readouterr().out)
    main(["survive", str(path), "--lose", "gpu:1", "--top", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert lines and all(len(line) <= 80 for line in lines if str(path) not in line)
    assert code == 0 and told["lost"] == {"": [1]} and len(told["plans"]) == 2
    assert all(plan["proofs"] == {"decode": "equal"} for plan in told["plans"])
    best = told["plans"][0]["phases"]["decode"]
    plan = compiled((tmp_path / "out" / "x.survivor.moe").read_text())
    assert plan.phases["decode"].time_s == best["time_s"] and sorted(plan.phases["decode"].gpus) == sorted(best["gpus"])


def test_bad_command_lines(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "x.moe"
    path.write_text(text("phase decode { gpus = 0..3, tp = 4 }"))
    for words in ([], ["--lose", "gpu:99"], ["--lose", "node:x"]):
        assert main(["survive", str(path), *words]) == 2
        assert "E14" in capsys.readouterr().err
    path.write_text(text("phase decode { gpus = 0..3, tp = any }"))
    assert main(["survive", str(path), "--lose", "gpu:1"]) == 2
    assert "E19" in capsys.readouterr().err


def test_a_pool_of_several_is_named() -> None:
    source = text(
        "phase decode { hardware = pool, gpus = 0..3, ep = 4 }\nphase prefill { hardware = other, gpus = 0..3, tp = 4 }"
    )
    other = source[source.index("hardware pool") : source.index("model small")].replace(
        "hardware pool", "hardware other"
    )
    source = source.replace(
        "model small", f"{other}link pool to other {{ bandwidth = 25 GB/s, latency = 9 us }}\nmodel small"
    )
    with pytest.raises(SpecError):
        survived(source, "gpu:1")
    with pytest.raises(SpecError):
        survived(source, "nowhere.gpu:1")
    found = survived(source, "other.gpu:1..2")
    assert found.touched == ("prefill",) and found.lost == {"other": (1, 2)}
    best = re_placed(found)
    assert set(best.phases[0].gpus) == {0, 3, 4, 5}
    assert best.moved.storage_B == 0 and best.moved.pools_B > 0


def test_imported_phases_are_not_rewritten(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "p.moe").write_text("moe 1\nphase decode { gpus = 0..7, dp = 8 }\n")
    path = tmp_path / "x.moe"
    path.write_text(text('import "p.moe"').replace("moe 1\n", "", 1).join(["moe 1\n", ""]))
    assert main(["survive", str(path), "--lose", "gpu:1", "-o", str(tmp_path / "out")]) == 2
    assert "E12" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert main(["survive", str(path), "--lose", "gpu:1"]) == 0


def test_the_report(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "x.moe"
    path.write_text(text("phase decode { gpus = 0..7, replicas = 4, tp = 2 }"))
    assert main(["survive", str(path), "--lose", "gpu:3", "--lose", "gpu:6", "--top", "1"]) == 0
    out = capsys.readouterr().out
    words = " ".join(out.split())
    assert "x.moe without GPUs 3, 6 before: " in words and "decode: the cache of 8 of 16 sequences is lost" in words
    assert "\n1. " in out
    assert main(["survive", str(ROOT / "examples" / "plan_a.moe"), "--lose", "gpu:64"]) == 2


def test_a_phase_whose_neighbour_has_no_mesh_is_no_internal_error() -> None:
    phases = "phase prefill { gpus = 0..5, tp = 2, dp = 3 }\nphase decode { gpus = 0..5, attention { dp = 3, tp = 2 }, experts { ep = 3 }, redundant = 1 }"
    with pytest.raises(SpecError) as caught:
        compiled(text(phases))
    assert "do not nest" in caught.value.diagnostics[0].message


def test_balanced_stages_are_cut_anew() -> None:
    source = text("phase decode { gpus = 0..5, pp = 3, dp = 2, stages = balanced }", gpus=6)
    own = opened(source)
    for plan in survived(source, "gpu:1").plans:
        again = written(own, plan.phases)
        assert "layers_per_stage" not in again and "stages = balanced" in again
        assert compiled(again).phases["decode"].time_s == plan.plan.phases["decode"].time_s


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("0..3", "gpu:0..3"),
        ("[0..3]", "gpu:0..3"),
        ("2", "gpu:2"),
        ("0,1", "gpu:0 --lose gpu:1"),
        ("gpus:0-3", "gpu:0..3"),
        ("node:0, 2..3", "node:0 --lose node:2..3"),
        ("fast.0..3", "fast.gpu:0..3"),
        ("gpu:1..2x", "gpu:17, gpu:8..11 or node:3"),
        ("0-", "gpu:17, gpu:8..11 or node:3"),
    ],
)
def test_ids_and_lists_of_them_are_told_how_they_are_written(said: str, meant: str) -> None:
    with pytest.raises(SpecError) as raised:
        lost_gpus([said], opened(spec_text()).spec)
    assert [d.help for d in raised.value.diagnostics] == [(f"write {meant}",)]
