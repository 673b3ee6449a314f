"""Pipelines as text, passes on graphs that were read from text, and `dagc opt`."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import pytest
from conftest import INFERENCE, examples, spec_text
from hypothesis import given, settings
from hypothesis import strategies as st
from tiers import spread

from dagc.api import Plan
from dagc.base.diagnostics import Collector
from dagc.base.schema.phase import PLACINGS
from dagc.base.source import Source
from dagc.cli import main
from dagc.cost.prices import LinkPrices
from dagc.ir import chains, moves
from dagc.ir.chains import PLAIN_PRICES
from dagc.ir.graph import Graph
from dagc.ir.graph_pass import GraphPass, PassError
from dagc.ir.mesh import Factors, refine
from dagc.ir.ops.training import STATES
from dagc.ir.text.read import parse_graph
from dagc.ir.text.write import print_graph
from dagc.ir.verify.violation import VerifyError
from dagc.lang.load import load
from dagc.passes import GRAPH_PASSES, OF_HOSTS, OF_TRAINING
from dagc.passes.backward import Backward
from dagc.passes.dp import DataParallel
from dagc.passes.ep import ExpertParallel
from dagc.passes.host_experts import ResidentExperts
from dagc.passes.memory import AddUpMemory
from dagc.passes.mesh import MakeMesh
from dagc.passes.norms import SplitNorms
from dagc.passes.offload import Offload
from dagc.passes.place import Place
from dagc.passes.pp import PipelineParallel
from dagc.passes.quantise import Quantise
from dagc.passes.recompute import Recompute
from dagc.passes.reshard import Reshard
from dagc.passes.sp import SequenceParallel
from dagc.passes.tie import TieTables
from dagc.passes.tp import TensorParallel
from dagc.passes.zero import ZeroRedundancy
from dagc.pipeline import strategy
from dagc.pipeline.analyse import ANALYSES
from dagc.pipeline.lower import lower, lowered, passes_of
from dagc.pipeline.observers import Clock, Print, Verify
from dagc.pipeline.run_passes import run
from dagc.pipeline.text import ANALYSIS_NAMES, PipelineError, Step, parse, show
from dagc.plan.analysis import Analysis, Findings
from dagc.spec.hardware import Link
from dagc.spec.unit import Unit

WORDS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.]{0,8}", fullmatch=True)
NAMES = st.lists(WORDS, max_size=3).map(tuple)
IDS = st.lists(st.integers(0, 10**6), max_size=6).map(tuple)
SIDES = st.lists(
    st.lists(
        st.tuples(st.sampled_from(("replica", "dp", "ep", "sp", "tp", "edp", "etp")), st.integers(1, 4096)),
        max_size=4,
        unique_by=lambda pair: pair[0],
    ).map(tuple),
    min_size=1,
    max_size=2,
).map(tuple)
LINKS = st.builds(Link, st.floats(1.0, 1e13), st.floats(0.0, 1.0), st.booleans())
PRICES = st.one_of(st.just(PLAIN_PRICES), st.lists(LINKS, min_size=1, max_size=4).map(lambda links: LinkPrices(*links)))
DISPATCH = st.sampled_from(("all_to_all", "allgather"))
PASSES = st.one_of(
    st.builds(
        Backward,
        st.sampled_from(("fp32", "bf16")),
        st.sampled_from(tuple(STATES)),
        st.floats(0.0, 10.0),
        st.floats(0.0, 10.0),
        st.floats(0.0, 10.0),
        st.integers(0, 9),
        st.sampled_from(("", "bf16")),
        st.floats(0.0, 0.9),
    ),
    st.builds(Quantise, st.booleans(), st.booleans(), st.sampled_from(("", "bf16"))),
    st.builds(Recompute, NAMES),
    st.builds(ZeroRedundancy, st.integers(0, 3), st.booleans()),
    st.builds(
        MakeMesh,
        sides=SIDES,
        rules=NAMES,
        stages=st.integers(1, 64),
        order=NAMES,
        gpus=IDS,
        place=IDS,
        per_node=st.integers(1, 72),
        further=IDS,
        nics=st.sampled_from(((), (4, 8), (1, 3))),
        zigzag=st.booleans(),
        beside=st.lists(st.builds(Factors, SIDES, NAMES), max_size=2).map(tuple),
        dcp=st.integers(1, 64),
        experts=SIDES.map(lambda sides: sides[0]),
        expert_gpus=IDS,
        expert_domains=IDS,
        expert_nics=st.sampled_from(((), (4, 8), (1, 3))),
    ),
    st.builds(TensorParallel, NAMES),
    st.builds(SequenceParallel, st.sampled_from(("allgather", "ring", "ulysses")), st.booleans(), st.integers(1, 64)),
    st.builds(ExpertParallel, DISPATCH, PRICES, st.booleans(), st.sampled_from(("", *PLACINGS))),
    st.builds(DataParallel, DISPATCH),
    st.builds(PipelineParallel, IDS),
    st.builds(TieTables, st.booleans()),
    st.just(SplitNorms()),
    st.just(Offload()),
    st.builds(ResidentExperts, st.integers(0, 8), st.booleans(), st.sampled_from([0.0, 0.5, 1.0])),
    st.builds(Reshard, st.booleans(), PRICES),
    st.just(Place()),
    st.sampled_from(ANALYSES),
)


def test_every_pass_and_option_is_drawn() -> None:
    """A pass or an option that the property leaves out fails here."""
    drawn = {MakeMesh: 16, TensorParallel: 1, SequenceParallel: 3, ExpertParallel: 4, DataParallel: 1}
    drawn |= {
        Backward: 8,
        Quantise: 3,
        Recompute: 1,
        ZeroRedundancy: 2,
        PipelineParallel: 1,
        TieTables: 1,
        SplitNorms: 0,
        Reshard: 2,
        Offload: 0,
        ResidentExperts: 3,
        Place: 0,
    }
    assert {one: len(fields(one)) for one in GRAPH_PASSES} == drawn  # type: ignore[arg-type]
    assert [one.name for one in ANALYSES] == list(ANALYSIS_NAMES) and parse(",".join(ANALYSIS_NAMES)) == ANALYSES


def test_analyses_follow_in_the_list(example: Plan) -> None:
    """Run from their text behind the graph passes, they find what the plan has."""
    for name, result in example.phases.items():
        found = Findings(result.graph, example.units[name])
        for analysis in parse("cost,schedule,memory"):
            assert isinstance(analysis, Analysis)
            found = analysis.run(found)
        assert found.memory == result.memory and found.schedule is not None and found.floor is not None
        assert found.schedule.period_s == result.schedule.period_s and found.floor.period_s == result.floor.period_s
    with pytest.raises(AssertionError, match="the analysis `cost` has not run"):
        AddUpMemory().run(Findings(result.graph, example.units[name]))


@settings(max_examples=examples(100, 12), deadline=None)
@given(st.lists(PASSES, min_size=1, max_size=4))
def test_a_pipeline_reads_back_equal(passes: list[Step]) -> None:
    text = show(passes)
    assert parse(text) == tuple(passes)
    assert show(parse(text)) == text
    assert parse(text.replace(",", " , ").replace("{", " { ").replace("=", " = ")) == tuple(passes)


def test_options_at_their_defaults_are_left_out() -> None:
    passes = [SequenceParallel("ring"), Reshard(), MakeMesh(sides=((("dp", 2), ("tp", 4)),), gpus=(0, 1, 2, 3, 8))]
    assert show(passes) == "sp{method=ring},reshard,mesh{sides=dp2*tp4,gpus=0..3+8}"


@pytest.mark.parametrize(
    ("text", "said", "help"),
    [
        ("", "cannot read the passes from '' on", "passes are names"),
        ("tp,,sp", "cannot read the passes from ',sp' on", "passes are names"),
        ("tp sp", "cannot read the passes from 'sp' on", "passes are names"),
        ("tp{rules=a", "cannot read the passes from '{rules=a' on", "passes are names"),
        ("tp{rules={a}}", "cannot read the passes from", "passes are names"),
        ("reshad", "unknown pass `reshad`", "did you mean `reshard`?"),
        ("xyzzy", "unknown pass `xyzzy`", "passes: backward, quantise, recompute, mesh, tp"),
        ("expand", "`expand` makes a graph from a spec", "dagc ir SPEC --after expand"),
        ("schedle", "unknown pass `schedle`", "did you mean `schedule`?"),
        ("cost{hardware=x}", "`cost` has no option `hardware`", "`cost` has no options"),
        ("sp{methd=ring}", "`sp` has no option `methd`", "did you mean `method`?"),
        ("place{method=ring}", "`place` has no option `method`", "`place` has no options"),
        ("sp{method}", "option 'method' of `sp` has no value", "sp{OPTION=VALUE}"),
        ("sp{method=rng}", "option `method` of `sp`: 'rng' is not one of its words: did you mean ring?", ""),
        ("sp{method=ring,method=ring}", "option `method` of `sp` is given twice", ""),
        ("sp{sequence_parallel=1}", "'1' is not one of its words", ""),
        ("pp{layers=4+x}", "'x' is not a whole number", ""),
        ("mesh{gpus=0..99999999}", "is not a run of at most 1,000,000", ""),
        ("mesh{gpus=5..3}", "is not a run of at most 1,000,000", ""),
        ("mesh{sides=dp2*dp3}", "dp is given twice", ""),
        ("mesh{sides=dp}", "'dp' is not an axis with its degree", ""),
        ("mesh{sides=pp2}", "'pp' is not one of its words", ""),
        ("mesh{sides=dp0}", "0 is not between 1 and 1,000,000", ""),
        ("ep{prices=cheap}", "is neither `plain` nor B/s", ""),
        ("ep{prices=0/1|2/3}", "a bandwidth is above 0", ""),
        ("tp{rules=a b}", "'a b' is not a name", ""),
        (",".join(["tp"] * 1001), "more than 1000 passes", ""),
    ],
)
def test_a_text_that_is_not_a_pipeline(text: str, said: str, help: str) -> None:
    with pytest.raises(PipelineError) as caught:
        parse(text)
    assert said in str(caught.value) and help in " ".join(caught.value.help)


@settings(max_examples=examples(300), deadline=None)
@given(st.text(alphabet="mesh{}=,+*|/.:-tpr0149 \n\x00é", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        passes = parse(text)
    except PipelineError:
        return
    assert parse(show(passes)) == passes


def units(text: str) -> Iterator[Unit]:
    spec = load(Source("x", text), Collector())
    return (Unit(spec, phase) for phase in spec.phases)


def from_text(unit: Unit) -> None:
    """Each pass, read from its text, on the graph read from the text behind the pass before it."""
    passes = [one for one in parse(show(passes_of(unit))) if isinstance(one, GraphPass)]
    assert passes == list(passes_of(unit))
    steps = list(lower(unit))
    for one, ((_, before), (name, after)) in zip(passes, pairwise(steps), strict=True):
        ((ran, found),) = run([one], parse_graph(print_graph(before)), [Verify()])
        assert ran == name and found == after, f"{unit.phase.name}: {name}"
    *_, (_, whole) = run(passes, parse_graph(print_graph(steps[0][1])))
    assert whole == steps[-1][1]


@pytest.mark.parametrize("example_name", spread([path.stem for path in INFERENCE], {"plan_a", "residual_streams"}))
def test_graphs_of_the_examples_are_self_contained(example: Plan) -> None:
    for unit in example.units.values():
        from_text(Unit(unit.spec, unit.phase))


PHASES = {
    "ids by an expression": "gpus = 0..7, pp = 2, dp = 2, tp = 2, place gpu = tp * 4 + dp * 2 + pp",
    "ids in another order": "gpus = 8..15, pp = 2, ep = 2, tp = 2, order = [tp, pp, dp, ep, sp]",
    "sides that differ": "gpus = 0..15\nattention { dp = 2, sp = 2, tp = 4 }\nexperts { ep = 8, tp = 2 }",
    "tokens that are cut": "gpus = 0..7\nattention { tp = 8 }\nexperts { ep = 8 }",
    "zigzag on a ring": "gpus = 0..7, sp = 4, tp = 2, sp_method = ring, sp_layout = zigzag",
    "ulysses, sequence parallel": "gpus = 0..7, sp = 2, tp = 4, sp_method = ulysses, sequence_parallel = true",
    "experts gathered": "gpus = 0..7, ep = 4, tp = 2, dispatch = allgather",
    "a rule, and norms that it splits": "gpus = 0..7, tp = 8, shard { hidden = tp }",
    "stages of unequal length": "gpus = 0..7, pp = 2, ep = 4, layers_per_stage = [1, 3]",
    "replicas and lanes": "gpus = 0..15, replicas = 2, ep = 4, tp = 2, overlap = two_batch",
}


@pytest.mark.parametrize("name", spread(PHASES, list(PHASES)[::3]))
def test_graphs_of_every_strategy_are_self_contained(name: str) -> None:
    for unit in units(spec_text(phase=PHASES[name], dtype="bf16")):
        from_text(unit)


@dataclass(frozen=True, slots=True)
class LeaveAlone(GraphPass):
    """A pass that no spec says anything of."""

    name: ClassVar[str] = "leave"

    def run(self, graph: Graph) -> Graph:
        return graph


def test_a_pass_runs_where_the_table_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    table = (*GRAPH_PASSES[:3], LeaveAlone, *GRAPH_PASSES[3:])
    monkeypatch.setattr(strategy, "GRAPH_PASSES", table)
    (unit,) = units(spec_text(phase="gpus = 0..3, tp = 4"))
    assert [type(one) for one in passes_of(unit)] == [one for one in table if one not in (*OF_TRAINING, *OF_HOSTS)]


def test_phases_on_the_same_gpus_are_options_of_each_other() -> None:
    """The mesh of one phase is cut where the other's is, which its text says."""
    other = "phase decode { gpus = 0..7\nattention { dp = 4, tp = 2 }\nexperts { ep = 8 } }"
    phase = "gpus = 0..7\nattention { tp = 8 }\nexperts { ep = 8 }"
    found = list(units(spec_text(phase=phase, extra=other)))
    assert "beside=replica1*dp4*sp1*tp2|replica1*edp1*ep8" in show(passes_of(found[0]))
    for unit in found:
        from_text(unit)


def test_observers_are_called_around_every_pass() -> None:
    (unit,) = units(spec_text())
    graph = next(graph for _, graph in lower(unit))
    clock, printed = Clock(), io.StringIO()
    passes = passes_of(unit)
    list(run(passes, graph, [clock, Print(("tp", "place"), printed.write)]))
    assert list(clock.seconds) == [one.name for one in passes] and all(s >= 0 for s in clock.seconds.values())
    heads = [line for line in printed.getvalue().splitlines() if line.startswith(("# after", "graph "))]
    assert heads[0] == "# after tp" and heads[2] == "# after place" and " placed" in heads[3]


def placed_wrong(one: Place, graph: Graph) -> Graph:
    """Gives all ranks of a stage one GPU."""
    stages = tuple(replace(s, gpus=(s.index,) * 8) for s in graph.stages)
    return replace(graph, stages=stages, level="placed")


def test_the_verifier_names_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Place, "run", placed_wrong)
    (unit,) = units(spec_text())
    with pytest.raises(VerifyError, match="other GPUs than the mesh") as caught:
        lowered(unit)
    assert caught.value.behind == "place"


def test_an_axis_that_the_order_leaves_out_is_innermost() -> None:
    sides = ((("dp", 2), ("tp", 2)),)
    assert MakeMesh(sides=sides).ids(refine(sides, {})) == (0, 1, 2, 3)
    assert MakeMesh(sides=sides, order=("tp",)).ids(refine(sides, {})) == (0, 2, 1, 3)


@pytest.mark.parametrize(
    ("passes", "said"),
    [
        ("reshard", "the pass `reshard` takes a graph at level annotated, this one is at model"),
        ("mesh,place", "the pass `place` takes a graph at level sharded, this one is at annotated"),
        ("mesh{sides=dp3*tp2|ep2*etp3}", "do not nest"),
        ("mesh{sides=dp2*tp4,gpus=0..3}", "4 GPUs for 8 ranks"),
        ("mesh{sides=dp1000000*tp1000000}", "are more than 1,000,000"),
        ("mesh{sides=tp2,stages=0}", "stages is 0"),
        ("mesh{sides=tp2,stages=-1}", "stages is -1"),
        ("mesh{sides=tp2,per_node=0}", "per_node is 0"),
        ("mesh{sides=tp2,further=12}", "do not nest"),
        ("mesh{sides=tp2,nics=8}", "the NICs are not"),
        ("mesh{sides=tp2,gpus=-1..0}", "no GPU has the id -1"),
        ("mesh{sides=tp2,place=1+-3}", "no GPU has the id -3"),
        ("mesh{stages=3},pp", "4 layers do not divide over 3 stages"),
        ("mesh{stages=2},pp,pp", "the layers are on 2 stages already"),
    ],
)
def test_a_pass_that_cannot_go_on(passes: str, said: str) -> None:
    (unit,) = units(spec_text())
    graph = next(graph for _, graph in lower(unit))
    with pytest.raises(PassError) as caught:
        list(run([one for one in parse(passes) if isinstance(one, GraphPass)], graph))
    assert said in str(caught.value)


def out_of(args: list[str], capsys: pytest.CaptureFixture[str], code: int = 0) -> tuple[str, str]:
    assert main(args) == code
    done = capsys.readouterr()
    return done.out, done.err


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A spec and the place of a graph."""
    spec = tmp_path / "p.moe"
    spec.write_text(spec_text(phase="gpus = 0..7, ep = 2, sp = 2, tp = 2, sp_method = ring"))
    return spec, tmp_path / "g.ir"


def test_opt_does_what_compilation_does(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, graph = files
    graph.write_text(out_of(["ir", str(spec), "--after", "sp"], capsys)[0])
    passes = out_of(["ir", str(spec), "--pipeline", "--after", "sp"], capsys)[0].strip()
    assert passes.startswith("ep{prices=450000000000/2e-06|50000000000/6e-06},dp,pp,norms,reshard{")
    whole = out_of(["ir", str(spec)], capsys)[0]
    done, told = out_of(["opt", str(graph), "--passes", passes, "--verify-each", "--time"], capsys)
    assert done == whole and told.split()[0::3] == ["ep", "dp", "pp", "norms", "reshard", "place"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(graph.read_bytes())))
    target = graph.with_suffix(".out")
    assert out_of(["opt", "-", "--passes", passes, "-o", str(target)], capsys)[0] == ""
    assert target.read_text() == whole
    assert out_of(["opt", str(graph)], capsys)[0] == graph.read_text()  # no pass: read and printed


def test_opt_prints_after_a_pass_and_takes_several_graphs(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    spec, graph = files
    text = out_of(["ir", str(spec), "--after", "expand"], capsys)[0]
    graph.write_text(f"{text}\n{text}")
    done = out_of(["opt", str(graph), "--passes", "mesh{sides=tp2},tp,sp", "--print-after", "tp"], capsys)[0]
    assert done.count("# after tp\n") == 2 and done.count("graph prefill") == 4
    assert out_of(["opt", str(graph), "--passes", "mesh,tp", "--print-after", "all"], capsys)[0].count("# after") == 4


@pytest.mark.parametrize(
    ("change", "passes", "said"),
    [
        (("graph", "grph"), "tp", "error[E15]"),
        (("= attend(", "= attnd("), "tp", "error[E15]"),
        (("heads=", "hands="), "tp", "error[E15]"),
        ((" = rms_norm(%x", " = rms_norm(%z"), "tp", "error[E15]"),
        (("", ""), "reshad", "did you mean `reshard`?"),
        (("", ""), "sp{method=rng}", "did you mean ring?"),
        (("", ""), "place", "takes a graph at level sharded, this one is at annotated"),
        (("", ""), "pp{layers=1+1}", "error[E03]: the pass `pp` stops: 4 layers do not divide over 1 stages"),
        (("", ""), "cost", "`cost` prices a phase of a spec"),
    ],
)
def test_what_opt_refuses(
    change: tuple[str, str], passes: str, said: str, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    spec, graph = files
    text = out_of(["ir", str(spec), "--after", "mesh"], capsys)[0]
    assert change[0] in text
    graph.write_text(text.replace(*change, 1))
    out, err = out_of(["opt", str(graph), "--passes", passes, "--verify-each"], capsys, code=2)
    assert said in err and out == ""


@pytest.mark.parametrize(
    ("change", "passes", "said"),
    [
        (("", ""), "mesh{sides=tp2,gpus=3+3}", "behind `mesh`: a GPU has two ranks"),
        (
            ("", ""),
            "mesh{sides=tp2,stages=4},reshard,place",
            "behind `place`: the stages have other GPUs than the mesh",
        ),
        (("return %embed.x", "return @embed.We"), "mesh", "as it is written: embed: returns the weight @embed.We"),
    ],
)
def test_opt_prints_no_graph_that_it_would_not_read(
    change: tuple[str, str], passes: str, said: str, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The graph behind the last pass is verified without being asked."""
    spec, graph = files
    text = out_of(["ir", str(spec), "--after", "expand"], capsys)[0]
    assert change[0] in text
    graph.write_text(text.replace(*change, 1))
    out, err = out_of(["opt", str(graph), "--passes", passes], capsys, code=2)
    assert said in err and out == ""


def test_opt_refuses_files_and_options_that_are_not_there(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    spec, graph = files
    assert "cannot read" in out_of(["opt", str(graph)], capsys, code=2)[1]
    graph.write_text(out_of(["ir", str(spec), "--after", "mesh"], capsys)[0])
    told = out_of(["opt", str(graph), "--passes", "tp", "--print-after", "sp"], capsys, code=2)[1]
    assert "`sp` is none of the passes" in told
    assert "cannot write" in out_of(["opt", str(graph), "-o", str(graph.parent)], capsys, code=2)[1]


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_hostile_text_is_refused_or_optimised(data: st.DataObject) -> None:
    """Lines dropped, doubled or changed in the middle: never an internal error."""
    level = data.draw(st.sampled_from(STEPS))
    lines = level.split("\n")
    at = data.draw(st.integers(0, len(lines) - 1))
    start = data.draw(st.integers(0, len(lines[at])))
    stop = data.draw(st.integers(start, min(len(lines[at]), start + 4)))
    new = data.draw(st.sampled_from(("", "0", "-1", "99999999", "tp", "%x", "]", "+", "1.5", "seq", " ")))
    changed = [lines[at][:start] + new + lines[at][stop:]] * data.draw(st.integers(0, 2))
    text = "\n".join([*lines[:at], *changed, *lines[at + 1 :]])
    passes = data.draw(
        st.sampled_from(
            ("", "tp,sp,ep,dp,pp", "mesh{sides=dp2*tp2,stages=2},tp", "norms,reshard", "reshard,place", "place")
        )
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        patch.setattr(sys, "stdout", io.StringIO())
        patch.setattr(sys, "stderr", io.StringIO())
        patch.delenv("DAGC_DEBUG", raising=False)
        assert main(["opt", "-", "--passes", passes]) in (0, 2), text


STEPS = [
    print_graph(graph)
    for name, graph in lower(next(units(spec_text(phase="gpus = 0..7, pp = 2, ep = 2, tp = 2"))))
    if name in ("expand", "mesh", "pp", "reshard", "place")
]


def test_a_search_among_many_axes_ends(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, graph = files
    graph.write_text(out_of(["ir", str(spec), "--after", "norms"], capsys)[0])
    assert main(["opt", str(graph), "--passes", "reshard"]) == 0
    capsys.readouterr()
    chains._known.cache_clear()  # chains that were found are not looked for again
    monkeypatch.setattr(moves, "MOST_MOVES", 3)
    told = out_of(["opt", str(graph), "--passes", "reshard"], capsys, code=2)[1]
    assert "error[E03]: the pass `reshard` stops" in told and "the axes are too many to search for a chain" in told
