"""Loads of experts by layer: the file, its errors, and what the layers cost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import dagc
from dagc.api import read_plan
from dagc.base.diagnostics import Collector, SpecError
from dagc.base.source import Source
from dagc.cost.expert_load import mean_work, rank_work
from dagc.lang.open_spec import load_open
from dagc.lang.sections.loads_file import LoadsError, parse_loads
from dagc.optimize.search.domains import domains
from dagc.optimize.search.optimum import Asked, search
from dagc.optimize.search.rules import Facts
from dagc.spec.workload import Routing

SPEC = """moe 1
hardware from "h100-sxm" {{ gpus = 8 }}
model m {{
  hidden = 64, vocab = 128, dtype = bf16
  attention {{ kind = gqa, heads = 4, kv_heads = 4, head_dim = 16 }}
  mlp {{ hidden = 64 }}
  experts {{ count = 8, top_k = 2, hidden = 32 }}
  stack = [embed, dense, each(3, sparse), lm_head]
}}
workload {{ sequences = 64, prompt = 32 tok, routing = {routing} }}
phase prefill {{ gpus = 0..7, dp = {dp}, ep = {ep} {more} }}
"""
EVEN, SKEWED = (1.0,) * 8, (9.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)


def compiled(routing: str, ep: int = 8, more: str = "") -> dagc.Plan:
    return dagc.compile_text(SPEC.format(routing=routing, ep=ep, dp=8 // ep, more=more))


def rows(layers: list[tuple[float, ...]]) -> str:
    return "\n".join(",".join(map(str, layer)) for layer in layers)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1,2,3\n4,5,6\n", ()),
        ("# recorded\n\nexpert0,expert1,expert2\n1,2,3\n4,5,6", ()),
        ("layer,0,1,2\n7,4,5,6\n3,1,2,3\n", (3, 7)),
        ("Layer, Expert, Tokens\n3,0,1\n3,1,2\n3,2,3\n7,2,6\n7,1,5\n7,0,4\n", (3, 7)),
    ],
)
def test_the_forms_of_a_file_say_the_same(text: str, numbers: tuple[int, ...]) -> None:
    found = parse_loads(text)
    assert found.layers == ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    assert found.numbers == numbers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty"),
        ("# nothing\n\n", "it is empty"),
        ("layer,0,1\n", "it has a header and no rows"),
        ("1,2\n3,-4\n", "row 2: the load of expert 1 is negative: -4"),
        ("1,2\nnan,4\n", "row 2: the load of expert 0 is nan, not a finite number"),
        ("1,2\ninf,4\n", "row 2: the load of expert 0 is inf, not a finite number"),
        ("1,2\n3\n", "row 2: it has 1 values, the rows above 2"),
        ("1,2\n3,\n", "row 2: it has an empty value"),
        ("1,2\n3,4x\n", "row 2: it has a value that is not a number"),
        ("1,2\n0,0\n", "row 2: all its loads are 0"),
        ("1,2\n1e300,4\n", "row 2: the load of expert 0 is 1e+300, more than"),
        ("layer,0,1\n3,1,2\n3,1,2\n", "row 3: layer 3 has loads already, in row 2"),
        ("layer,0,1\n3.5,1,2\n", "row 2: the number of its layer is not a whole number"),
        ("layer,expert,load\n3,0,1\n3,2,1\n", "row 2 and on, layer 3: expert 1 has no load"),
        ("layer,expert,load\n3,0,1\n3,0,1\n", "row 3: expert 0 of layer 3 has a load already"),
        ("1\n" * 100_001, "row 100001: loads of more than 100,000 layers"),
        ("layer,expert,load\n3,0,1,5\n", "row 2: it has 4 values, not 3"),
    ],
)
def test_a_wrong_file_is_refused_with_its_row(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(LoadsError) as refused:
        parse_loads(text)
    assert message in str(refused.value)
    (tmp_path / "loads.csv").write_text(text)
    spec = tmp_path / "plan.moe"
    spec.write_text(SPEC.format(routing='loads("loads.csv")', ep=8, dp=1, more=""))
    with pytest.raises(SpecError) as stopped:
        dagc.compile(spec)
    assert [d.code for d in stopped.value.diagnostics] == ["E05"]
    assert message in stopped.value.diagnostics[0].message


@pytest.mark.parametrize(
    ("routing", "message"),
    [
        ("loads([[1, 2, 3, 4, 5, 6, 7]])", "list 1: it has loads of 7 experts, the model has 8"),
        ("loads([[1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1]])", "are of 2 layers, the model has 3 with"),
        ("loads([1, 2])", "a list with a list of numbers for each layer"),
        ("loads(3)", "a list with a list of numbers for each layer"),
    ],
)
def test_loads_that_are_not_the_models(routing: str, message: str) -> None:
    with pytest.raises(SpecError) as stopped:
        compiled(routing)
    assert [d.code for d in stopped.value.diagnostics] == ["E05"]
    assert message in stopped.value.diagnostics[0].message


def test_numbered_rows_are_those_of_routed_layers(tmp_path: Path) -> None:
    def found(numbers: list[int]) -> list[str]:
        text = "layer," + ",".join("abcdefgh") + "\n" + "".join(f"{n},{rows([EVEN])}\n" for n in numbers)
        (tmp_path / "l.csv").write_text(text)
        (tmp_path / "p.moe").write_text(SPEC.format(routing='loads("l.csv")', ep=8, dp=1, more=""))
        try:
            return [d.message for d in dagc.compile(tmp_path / "p.moe").diagnostics if d.code == "E05"]
        except SpecError as error:
            return [d.message for d in error.diagnostics]

    assert found([1, 2, 3]) == []
    assert found([0, 1, 2, 3]) == ["the loads, row 2: layer 0 of the model has no routed experts"]
    assert found([1, 3]) == ["the loads have no row of layer 2, which has routed experts"]
    assert found([1]) == ["the loads have no row of layer 2, which has routed experts"]
    assert found([99]) == ["the loads, row 2: layer 99 of the model has no routed experts"]


def test_one_row_is_a_histogram_of_all_layers() -> None:
    one = compiled(f"loads([[{rows([SKEWED])}]])")
    assert one.phases["prefill"].time_s == compiled(f"histogram([{rows([SKEWED])}])").phases["prefill"].time_s


def test_layers_with_one_load_cost_like_one_histogram() -> None:
    same = compiled(f"loads([{', '.join(f'[{rows([SKEWED])}]' for _ in range(3))}])")
    assert same.phases["prefill"].costs.imbalance == pytest.approx(
        compiled(f"histogram([{rows([SKEWED])}])").phases["prefill"].costs.imbalance, rel=0.02
    )


def test_each_layer_waits_for_its_own_busiest_rank() -> None:
    """Three layers whose mean is even, each with a favourite of its own: the mean of the busiest, not the busiest of the mean."""
    layers = [tuple(9.0 if e == hot else 1.0 for e in range(8)) for hot in range(3)]
    plan = compiled(f"loads([{', '.join(f'[{rows([layer])}]' for layer in layers)}])")
    alone = rank_work(Routing("histogram", 0.0, layers[0]), 8, 2, 8, 0, 64.0 * 32)
    costs = plan.phases["prefill"].costs
    assert costs.imbalance == pytest.approx(float(alone.relative.max()), rel=0.02)
    assert [own.layer for own in costs.layers] == [1, 2, 3]
    mean = Routing("loads", 0.0, (), tuple(layers)).mean
    assert rank_work(mean, 8, 2, 8, 0, 64.0 * 32).relative.max() < 0.8 * costs.imbalance


def test_the_mean_of_layers_keeps_every_sum() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        layers = [Routing("histogram", 0.0, tuple(rng.gamma(0.5, 1, 16).tolist())) for _ in range(5)]
        each = tuple(rank_work(layer, 16, 4, 4, 0, 300.0) for layer in layers)
        mean = mean_work(each)
        assert mean.kernel.rows.sum() == pytest.approx(np.mean([w.kernel.rows.sum() for w in each]))
        assert mean.relative.max() == pytest.approx(np.mean([w.relative.max() for w in each]))
        assert mean.kernel.distinct.max() <= 4 + 1e-9


def test_spare_copies_follow_each_layers_loads() -> None:
    """The expert that is chosen most differs by layer; so do the experts that are copied."""
    layers = [tuple(7.0 if e == hot else 1.0 for e in range(8)) for hot in range(3)]
    routing = f"loads([{', '.join(f'[{rows([layer])}]' for layer in layers)}])"
    costs = compiled(routing, more=", redundant = 8").phases["prefill"].costs
    assert all(own.imbalance < 0.75 * own.plain for own in costs.layers)
    assert costs.imbalance == pytest.approx(np.mean([own.imbalance for own in costs.layers]))


def test_a_search_takes_as_many_spare_copies_as_measured_loads_ask_for(tmp_path: Path) -> None:
    """Of all numbers up to one more copy of each, as they compile."""
    (tmp_path / "loads.csv").write_text(rows([SKEWED, EVEN, tuple(reversed(SKEWED))]) + "\n")
    text = SPEC.format(routing='loads("loads.csv")', ep=8, dp=1, more=", redundant = any")
    source = Source(str(tmp_path / "plan.moe"), text)
    answer = search(load_open(source, Collector(), base_dir=tmp_path), Asked(("ttft",)))
    times = {}
    for spare in (0, 8):
        own = text.replace("redundant = any", f"redundant = {spare}")
        (tmp_path / "plan.moe").write_text(own)
        times[spare] = dagc.compile(tmp_path / "plan.moe").phases["prefill"].time_s
    assert answer.best is not None
    best = answer.best.values["prefill"]["redundant"]
    assert best == 8 and answer.best.figures[0] == times[8] < times[0]


@pytest.mark.parametrize(
    ("experts", "gpus", "some"), [(8, 8, {0, 8}), (60, 8, {0, 4, 12}), (160, 32, {0, 32, 64}), (128, 48, {0, 16, 64})]
)
def test_numbers_of_spare_copies_that_a_search_looks_at(experts: int, gpus: int, some: set[int]) -> None:
    """Those that fill the ranks are among them, also where no power of two does."""
    text = SPEC.format(routing="uniform", dp=1, ep=gpus, more=", redundant = any")
    for old, new in (("count = 8", f"count = {experts}"), ("gpus = 8", f"gpus = {gpus}"), ("0..7", f"0..{gpus - 1}")):
        text = text.replace(old, new)
    spec = load_open(Source("plan.moe", text), Collector())
    phase = spec.spec.phase("prefill")
    (domain,) = domains(spec.of("prefill"), Facts(phase, spec.spec, phase.new_tokens))
    assert some <= set(domain.values)
    assert any((experts + int(n)) % gpus == 0 and n for n in domain.values)


def test_a_phase_has_loads_of_its_own_and_json_lists_layers() -> None:
    layers = ", ".join(f"[{rows([layer])}]" for layer in (EVEN, SKEWED, EVEN))
    plan = compiled("uniform", more=f", routing = loads([{layers}])")
    data = plan.to_json()["phases"]["prefill"]["expert_layers"]
    assert [entry["layer"] for entry in data] == [1, 2, 3]
    assert data[1]["imbalance"] > 2 * data[0]["imbalance"]
    assert "expert_layers" not in compiled("uniform").to_json()["phases"]["prefill"]


def test_a_placed_graph_keeps_the_loads(tmp_path: Path) -> None:
    layers = ", ".join(f"[{rows([layer])}]" for layer in (EVEN, SKEWED, EVEN))
    plan = compiled(f"loads([{layers}])")
    file = tmp_path / "plan.graph.json"
    file.write_text(json.dumps(plan.placed("prefill")))
    again = read_plan(file)
    assert again.phases["prefill"].costs.layers == plan.phases["prefill"].costs.layers
    # Advice is given where a spec is compiled.
    assert again.to_json() == {**plan.to_json(), "diagnostics": []}


def test_a_plan_with_loads_is_proved() -> None:
    layers = ", ".join(f"[{rows([layer])}]" for layer in (EVEN, SKEWED, EVEN))
    assert compiled(f"loads([{layers}])", more=", redundant = 8").prove("prefill").verdict == "equal"
