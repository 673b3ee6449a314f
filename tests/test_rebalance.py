"""Experts that are placed anew by loads that change: what moves, what it takes, and what it is worth."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from conftest import ROOT
from tiers import left_out

import dagc
from dagc.base.diagnostics import SpecError
from dagc.base.plain_data import DataError, from_data
from dagc.cli import main
from dagc.cost.expert_placement import place_layers, rank_loads
from dagc.cost.moved_experts import held, kept_close, moves, placements
from dagc.cost.records import Rebalanced
from dagc.export.engines.launch import export
from dagc.importers.placed import plan_of
from dagc.lang.printer.print_spec import print_spec
from dagc.lang.sections.loads_file import LoadsError
from dagc.lang.sections.loads_over_time import parse_series
from dagc.plan.graph_file import plan_section
from dagc.plan.plan import CompiledPlan
from dagc.spec.metrics.known_metrics import TABLE
from dagc.spec.rebalance import Rebalance

SPEC = """moe 1
hardware pool {
  gpus = 8, per_node = PER_NODE, compute = 400 TFLOP/s, memory = 64 GB, hbm = 2 TB/s
  link node { bandwidth = 400 GB/s, latency = 2 us }, link cluster { bandwidth = 50 GB/s, latency = 6 us }
}
model small { layers = 2, hidden = 256, vocab = 512, dtype = bf16
  attention { heads = 8, kv_heads = 4 }
  experts { count = 8, top_k = 1, hidden = 1024 } }
workload { sequences = 65_536, prompt = 32 tok, output = 8 tok }
phase decode { gpus = 0..3, attention { dp = 4 }, experts { ep = 4 }MORE
  rebalance { loads = LOADS, window = 10, every = EVERY } }
"""
HOT, OTHER = [8, 8, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 8, 8, 1, 1]
"""Two hot experts that belong on ranks of their own."""


def compiled(loads: list[list[int]], every: int = 10, per_node: int = 8, more: str = "") -> CompiledPlan:
    series = ", ".join(f"[{own}]" for own in loads)
    text = SPEC.replace("LOADS", f"[{series}]").replace("EVERY", str(every)).replace("PER_NODE", str(per_node))
    return dagc.compile_text(text.replace("MORE", more))


def figures(plan: CompiledPlan) -> Rebalanced:
    found = plan.phases["decode"].rebalanced
    assert found is not None
    return found


# -- placements ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["eplb", "balanced"])
def test_every_placement_has_every_expert_and_no_double(how: str) -> None:
    loads = np.random.default_rng(1).lognormal(0, 1, (6, 3, 16))
    found = placements(loads, 8, 8, how=how)
    assert found.shape == (5, 3, 8, 3)
    for period in found:
        for layer in period:
            assert set(layer.ravel()) == set(range(16))
            assert all(len(set(rank)) == len(rank) for rank in layer.tolist())


def test_experts_are_where_the_loads_before_put_them() -> None:
    """As balanced as a new placement by these loads, whichever rank has which set."""
    loads = np.random.default_rng(2).lognormal(0, 1, (5, 2, 16))
    for period, before in zip(placements(loads, 4, 4, how="balanced"), loads[:-1], strict=True):
        fresh = place_layers(before, 4, 4, how="balanced")
        assert np.sort(rank_loads(before, period), axis=1) == pytest.approx(np.sort(rank_loads(before, fresh), axis=1))
    once = placements(loads, 4, 4, how="balanced", once=True)
    assert (once == once[0]).all()


def test_sets_stay_where_most_of_them_is() -> None:
    """Against every way to deal them out: never more that moves than in order, and nearly as little as can be."""
    rng, kept, best = np.random.default_rng(3), 0, 0
    for _ in range(20):
        before, after = (place_layers(rng.lognormal(0, 1, (1, 10)), 5, 5, how="balanced") for _ in range(2))
        common = np.einsum("ne,me->nm", held(after, 10)[0], held(before, 10)[0])
        most = max(sum(common[i, order[i]] for i in range(5)) for order in permutations(range(5)))
        own = kept_close(np.stack([before, after]), 10)[1]
        found = int((held(own, 10) * held(before, 10)).sum())
        assert np.trace(common) <= found <= most
        assert sorted(map(tuple, own[0].tolist())) == sorted(map(tuple, after[0].tolist()))
        kept, best = kept + found, best + int(most)
    assert kept >= 0.95 * best


@pytest.mark.parametrize(("ranks", "spare", "nodes"), [(8, 8, 1), (4, 0, 2), (6, 2, 3), (1, 0, 1)])
def test_sets_go_one_after_another_to_the_rank_with_most_of_them(ranks: int, spare: int, nodes: int) -> None:
    """The same, a pair of a set and a rank at a time."""
    loads = np.random.default_rng(ranks).lognormal(0, 1, (9, 2, 16)).round(1)
    sets = np.stack(
        [place_layers(own, ranks, spare * (16 % ranks == 0), how="eplb") for own in loads[:, :, : 16 - 16 % ranks]]
    )
    node = np.arange(ranks) * nodes // ranks
    last = sets[0]
    for fresh, found in zip(sets, kept_close(sets, 16, nodes), strict=True):
        for layer in range(2):
            if fresh is not sets[0]:
                common = held(fresh, 16)[layer] @ held(last, 16)[layer].T
                left, target = np.where(node[:, None] == node, common, -1), np.arange(ranks)
                for _ in range(ranks):
                    new, old = np.unravel_index(left.argmax(), left.shape)
                    target[new], left[new, :], left[:, old] = old, -2, -2
                if common[np.arange(ranks), target].sum() <= np.trace(common):
                    target = np.arange(ranks)
                want = np.empty_like(fresh[layer])
                want[target] = fresh[layer]
                assert np.array_equal(found[layer], want)
        last = found


def test_sets_of_groups_stay_on_their_node() -> None:
    rng = np.random.default_rng(4)
    loads = rng.lognormal(0, 1, (4, 2, 16))
    for period in placements(loads, 4, 0, groups=4, nodes=2):
        for layer in period:
            groups = [set((node // 4).ravel()) for node in np.split(layer, 2)]
            assert groups[0].isdisjoint(groups[1])


def test_what_moves_is_counted_by_where_it_comes_from() -> None:
    before = np.array([[[0, 1], [2, 3], [4, 5], [6, 7]]])
    after = np.array([[[0, 2], [1, 3], [4, 7], [6, 0]]])
    found = moves(before, after, 8, nodes=2)
    assert found.inside.tolist() == [[1, 1, 1, 0]] and found.across.tolist() == [[0, 0, 0, 1]]
    assert moves(before, before, 8).inside.sum() == 0


# -- a phase -------------------------------------------------------------------------------------


def test_loads_that_never_change_move_nothing() -> None:
    own = figures(compiled([HOT] * 4))
    assert (own.times, own.moved_B, own.move_s, own.gain, own.break_even) == (2, 0.0, 0.0, 0.0, None)


def test_loads_that_change_once_are_worth_a_move() -> None:
    """Placed for one pair of hot experts, then the other pair is hot: with the first placement kept both are on ranks that a cold one
    shares with them, and anew they are apart from the period after the change on."""
    plan = compiled([HOT, HOT, *[OTHER] * 6])
    own = figures(plan)
    assert own.times == 6 and plan.phases["decode"].costs.imbalance < own.imbalance
    assert own.own_s < own.step_s
    assert own.break_even == pytest.approx(own.move_s / (own.step_s - own.own_s))
    assert own.gain == pytest.approx(1 - (own.own_s + own.move_s / 10) / own.step_s)


def test_imbalance_follows_by_hand() -> None:
    """65,536 tokens: chance is next to nothing. The placement for the first loads pairs each hot expert with a cold one; of the second
    loads the hot ones may share a rank."""
    plan = compiled([HOT, OTHER, OTHER])
    slots = placements(np.array([[np.array(own) / sum(own)] for own in (HOT, OTHER, OTHER)]), 4, 0, how="eplb")
    expected = [
        float(loads.max() / loads.mean())
        for loads in (rank_loads(np.array([OTHER], float), slots[k]) for k in range(2))
    ]
    assert plan.phases["decode"].costs.imbalance == pytest.approx(np.mean(expected), rel=0.01)
    assert figures(plan).imbalance == pytest.approx(expected[0], rel=0.01)


@pytest.mark.parametrize(("per_node", "link_Bps", "latency_s"), [(8, 400e9, 2e-6), (1, 50e9, 6e-6)])
def test_a_move_takes_the_link_that_it_crosses(per_node: int, link_Bps: float, latency_s: float) -> None:
    own = figures(compiled([HOT, OTHER, OTHER], per_node=per_node))
    slots = placements(np.array([[np.array(o) / sum(o)] for o in (HOT, OTHER, OTHER)]), 4, 0, how="eplb")
    found = moves(slots[0], slots[1], 8, nodes=4 if per_node == 1 else 1)
    expert_B = 3 * 256 * 1024 * 2
    each = (found.inside + found.across)[0]
    assert own.times == 1 and each.sum() > 0
    assert own.moved_B == pytest.approx(2 * expert_B * each.sum())  # two layers, whose loads are the same
    assert own.move_s == pytest.approx(2 * (expert_B * each.max() / link_Bps + latency_s))


def test_seldom_is_cheaper_and_less_even() -> None:
    loads = [[1 + (e * 7 + t * 5) % 11 for e in range(8)] for t in range(12)]
    often, seldom = (figures(compiled(loads, every)) for every in (10, 40))
    assert often.times == 10 and seldom.times == 1
    assert often.moved_B > 0 and seldom.every == 40


def test_the_report_and_metrics_say_it() -> None:
    plan = compiled([HOT, HOT, *[OTHER] * 6])
    own = figures(plan)
    values = {
        "imbalance": own.imbalance,
        "bytes": own.moved_B,
        "time": own.move_s,
        "gain": own.gain,
        "break_even": own.break_even,
    }
    for name, value in values.items():
        (metric,) = (m for m in TABLE if m.full == f"PHASE.rebalance.{name}")
        assert metric.how(plan.subject("decode")) == value
    assert "experts placed anew every 10 steps" in " ".join(plan.report().split())
    assert "rebalance" not in print_spec(dagc.compile_text(spec_without()).spec)


def spec_without() -> str:
    return SPEC.partition("\n  rebalance")[0].replace("PER_NODE", "8").replace("MORE", "") + " }\n"


def test_a_placed_graph_says_it_too() -> None:
    plan = compiled([HOT, OTHER, OTHER])
    data = plan_section(plan, "decode")
    assert data["phase"]["strategy"]["rebalance"]["series"]["windows"][1] == [[float(x) for x in OTHER]]
    assert (
        from_data(Rebalance, data["phase"]["strategy"]["rebalance"], "x")
        == plan.spec.phase("decode").strategy.rebalance
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"every": 25}, "are not three such periods"),
        ({"every": 0}, "rebalance.every"),
        ({"series": {"windows": [[HOT], [OTHER[:4]], [HOT]], "numbers": []}}, "other layers or experts"),
        ({"series": {"windows": [[HOT], [[-1] * 8], [HOT]], "numbers": []}}, "at least 0"),
        ({"series": {"windows": [[HOT], [HOT], [HOT]], "numbers": []}}, "is not the mean"),
    ],
)
def test_files_of_graphs_are_not_trusted(change: dict[str, object], said: str, tmp_path: Path) -> None:
    assert main(["compile", "-o", str(tmp_path), "--emit", "json", _written(tmp_path)]) == 0
    (path,) = tmp_path.glob("*.graph.json")
    data = json.loads(path.read_text())
    data["plan"]["phase"]["strategy"]["rebalance"] |= change
    with pytest.raises(DataError, match=said):
        plan_of(data)


def _written(folder: Path) -> str:
    series = ", ".join(f"[{own}]" for own in (HOT, OTHER, OTHER))
    text = SPEC.replace("LOADS", f"[{series}]").replace("EVERY", "10").replace("PER_NODE", "8").replace("MORE", "")
    (folder / "plan.moe").write_text(text)
    return str(folder / "plan.moe")


def test_its_json_is_as_the_schema_says() -> None:
    plan = compiled([HOT, HOT, *[OTHER] * 6])
    data, own = plan.to_json(), figures(plan)
    found = data["phases"]["decode"]["rebalance"]
    assert (found["gain"], found["moved_B"], found["break_even"]) == (own.gain, own.moved_B, own.break_even)
    jsonschema.validate(
        json.loads(json.dumps(data)), json.loads((ROOT / "dagc" / "export" / "plan.schema.json").read_text())
    )


# -- words ---------------------------------------------------------------------------------------


def test_files_and_lists_say_the_same(tmp_path: Path) -> None:
    rows = "".join(f"{10 * n},{','.join(map(str, own))}\n" for n, own in enumerate([HOT, OTHER, OTHER]))
    (tmp_path / "series.csv").write_text("# measured\nstep,e0,e1,e2,e3,e4,e5,e6,e7\n" + rows)
    text = SPEC.replace("LOADS", '"series.csv"').replace("EVERY", "10").replace("PER_NODE", "8").replace("MORE", "")
    (tmp_path / "plan.moe").write_text(text)
    plan, listed = dagc.compile(tmp_path / "plan.moe"), compiled([HOT, OTHER, OTHER])
    assert plan.spec.phase("decode").strategy.rebalance == listed.spec.phase("decode").strategy.rebalance
    again = dagc.compile_text(print_spec(plan.spec))
    assert again.spec.phase("decode").strategy.rebalance == plan.spec.phase("decode").strategy.rebalance


def test_steps_have_layers() -> None:
    found = parse_series("step,layer,expert,load\n5,3,0,1\n5,3,1,2\n0,3,0,7\n0,3,1,8\n")
    assert found.windows == (((7.0, 8.0),), ((1.0, 2.0),)) and found.numbers == (3,)
    assert parse_series("step,a,b\n5,1,2\n5.0,3,4\n").windows == (((1.0, 2.0), (3.0, 4.0)),)
    assert found.mean.layers == ((8.0, 10.0),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is empty"),
        ("step,a,b\n", "no rows"),
        ("layer,a,b\n0,1,2\n", "first column is not `step`"),
        ("step,a,b\nx,1,2\n", "not a number"),
        ("step,a,b\n0,1,2\n1,1,2\n1,3,4\n", "other layers or experts"),
        ("step,a,b\n0,1,2\n70,1,-2\n", "step 70: row 2: .* negative"),
        ("step,a,b\nnan,1,2\n", "`step` is nan, not a finite number"),
        ("step,a,b\n0,1,2\n1e400,1,2\n", "`step` is inf, not a finite number"),
    ],
)
def test_files_that_say_no_loads(text: str, said: str) -> None:
    with pytest.raises(LoadsError, match=said):
        parse_series(text)


@pytest.mark.parametrize(
    ("more", "loads", "every", "code"),
    [
        ("", [HOT, OTHER], 10, "E03"),
        left_out(("", [HOT, OTHER, HOT], 15, "E03")),
        (", expert_placement = linear", [HOT, OTHER, HOT], 10, "E12"),
        (", routing = uniform", [HOT, OTHER, HOT], 10, "E12"),
        ("", [HOT[:4], OTHER[:4], HOT[:4]], 10, "E05"),
        ("", [HOT[:1]] * 10_001, 10, "E09"),
    ],
)
def test_what_does_not_go_is_said(more: str, loads: list[list[int]], every: int, code: str) -> None:
    with pytest.raises(SpecError) as error:
        compiled(loads, every, more=more)
    assert code in {d.code for d in error.value.diagnostics}


def test_engines_are_told_how_often() -> None:
    plan = compiled([HOT, OTHER, OTHER], more=", dispatch = allgather")
    made = {name: data.decode() for name, data in export(plan, "vllm", "org/model", "p", None).items()}
    assert any('"step_interval": 10' in text.replace("\\", "") for text in made.values())
    made = {name: data.decode() for name, data in export(plan, "sglang", "org/model", "p", None).items()}
    assert any("--eplb-rebalance-num-iterations 10" in text for text in made.values())
