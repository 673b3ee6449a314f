"""The text of the IR: every graph reads back equal in every form, the plain one is short, and what is not IR is refused."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest
import random_plans
from conftest import ROOT, examples, few_examples, spec_text
from hypothesis import HealthCheck, given, settings
from tiers import spread
from training_steps import step_of, training_text

from dagc.api import Plan
from dagc.base.diagnostics import Collector, SpecError
from dagc.base.source import Source
from dagc.ir.graph import Graph
from dagc.ir.op import FORWARD
from dagc.ir.text.read import parse_graph
from dagc.ir.text.scan import TextError
from dagc.ir.text.write import COLUMNS, lines_around, print_graph
from dagc.ir.verify.verify import verify
from dagc.ir.verify.violation import VerifyError
from dagc.lang.load import load
from dagc.passes import GRAPH_PASSES, OF_FEWER_BITS, OF_HOSTS, OF_TRAINING
from dagc.pipeline.lower import lower
from dagc.spec.unit import Unit

PASSES = [one.name for one in GRAPH_PASSES if one not in (*OF_TRAINING, *OF_HOSTS)]
DATA = ROOT / "tests" / "data"
MODELS = sorted(path.stem for path in (ROOT / "grammar" / "library" / "models").glob("*.moe"))

STRATEGIES = {
    "flat prefill": ("prefill", "gpus = 0..15, dp = 2, ep = 2, sp = 2, tp = 2, sp_method = ring"),
    "folded prefill": (
        "prefill",
        "gpus = 0..15, sequence_parallel = true\nattention { dp = 2, sp = 2, tp = 4 }\nexperts { ep = 8, tp = 2 }",
    ),
    "context split in decode": ("decode", "gpus = 0..7, sp = 2, tp = 2, ep = 2, overlap = two_batch"),
    "tensor parallel decode": ("decode", "gpus = 0..7, tp = 8"),
}


def reads_back(graph: Graph) -> None:
    plain, typed = print_graph(graph), print_graph(graph, types=True)
    read = parse_graph(typed)
    assert parse_graph(plain) == graph == read
    assert print_graph(read) == plain
    assert max(map(len, (plain + typed).splitlines())) <= COLUMNS


def levels_read_back(unit: Unit, ends: bool = False) -> list[str]:
    """The levels of a phase; a pass that changes nothing leaves no other text. `ends`: the first and the last are read."""
    names: list[str] = []
    last: Graph | None = None
    for name, graph in lower(unit):
        if graph != last and not (ends and names):
            reads_back(graph)
        names.append(name)
        last = graph
    if ends and last is not None:
        reads_back(last)
    return names


@few_examples
def test_every_level_reads_back_equal(example: Plan) -> None:
    for unit in example.units.values():
        assert levels_read_back(Unit(unit.spec, unit.phase)) == ["expand", *PASSES]


PAIRS = [(model, strategy) for i, model in enumerate(MODELS) for strategy in list(STRATEGIES)[i % 2 :: 2]]


@pytest.mark.parametrize(("model", "strategy"), spread(PAIRS, PAIRS[::7]))
def test_every_preset_reads_back_equal(model: str, strategy: str) -> None:
    """Every model under two of the strategies, before all passes and behind them; what is between has the ops of other tests here."""
    kind, phase = STRATEGIES[strategy]
    text = (
        f'moe 1\nhardware from "h100-sxm" {{ gpus = 32 }}\nmodel from "{model}" {{ }}\n'
        f"workload {{ sequences = 64, prompt = 1024 tok, output = 64 tok }}\nphase {kind} {{ {phase} }}"
    )
    try:
        spec = load(Source("x", text), Collector())
        levels_read_back(Unit(spec, spec.phases[0]), ends=True)
    except SpecError as error:
        assert kind == "prefill" and "experts" in phase
        pytest.skip(f"this model is not folded so: {error}")


@settings(max_examples=examples(12), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(random_plans.plans(uses=True))
def test_every_random_plan_reads_back_equal(plan: tuple[str, str]) -> None:
    try:
        spec = load(Source("x", plan[1]), Collector())
        levels_read_back(Unit(spec, spec.phases[0]))
    except SpecError:
        return


STEPS = {
    "tp": "gpus = 0..1, tp = 2, sequence_parallel = true, recompute = silu",
    "folded": "gpus = 0..7, zero = 2\nattention { dp = 4, tp = 2 }\nexperts { ep = 8 }",
    "pipeline": "gpus = 0..7, pp = 2, ep = 2, sp = 2, sp_method = ring, microbatches = 2, zero = 1",
    "width": "gpus = 0..1, tp = 2, shard { hidden = tp }, recompute = full",
    "8 bits": "gpus = 0..1, tp = 2, sequence_parallel = true, matmul_dtype = fp8_block, quantised_weights = true, dispatch_dtype = fp8_block",
}


@pytest.mark.parametrize("strategy", spread(STEPS, ("folded", "8 bits")))
def test_every_level_of_a_training_step_reads_back_equal(strategy: str) -> None:
    """Cells, gradients that layers hand back, and those that they are handed."""
    step = step_of(training_text(STEPS[strategy]))
    without = (*OF_HOSTS, *(() if "matmul_dtype" in STEPS[strategy] else OF_FEWER_BITS))
    assert list(step.levels) == ["expand", *(one.name for one in GRAPH_PASSES if one not in without)]
    for graph in step.levels.values():
        reads_back(graph)


def test_cells_of_a_step_are_read_as_they_are_written() -> None:
    """In any order, which the verifier judges; names that are no cells, or values without a type, are refused by line."""
    text = print_graph(step_of(training_text("gpus = 0..1, tp = 2")).placed)
    graph = parse_graph(text)
    segment = graph.segment("sparse")
    turned = replace(segment, ops=(*segment.ops[:-1], replace(segment.ops[-1], cell=FORWARD)))
    changed = replace(graph, segments=tuple(turned if s is segment else s for s in graph.segments))
    assert "\n  cell forward\n" in print_graph(changed) and parse_graph(print_graph(changed)) == changed
    with pytest.raises(VerifyError, match="cells are not in the order recompute, backward, weight, update"):
        verify(changed)
    for old, new, said in (
        (
            "  cell backward",
            "  cell sideways",
            "unknown cell sideways: one of forward, recompute, backward, weight, update",
        ),
        ("  cell backward", "  cell backward %x", "expected the end of the line"),
        ("  cell backward", "  cell", "expected a name at the end"),
        (", %embed.x.grad:", ", %embed.x.grad", "expected `:`"),
        (", %embed.x.grad:", ", embed.x.grad:", "expected a value"),
        ("%embed.x.grad: [batch, seq, hidden])", "%embed.x.grad: [batch, seq, hidden] fp99)", "unknown dtype fp99"),
        (", %x.grad.2\n", ", x.grad.2\n", "expected a value"),
    ):
        assert old in text
        at = text[: text.index(old)].count("\n") + 1
        with pytest.raises(TextError, match=f"^line {at}: {said}"):
            parse_graph(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (r"(?m)^(  return %\S+), %\S+$", r"\1, %nowhere", "hands back %nowhere, which is not defined"),
        (r"(?m)^(  return %\S+), %\S+$", r"\1", "embed: is handed another gradient than sparse hands back"),
        (
            r", %moe.out.grad: \[batch, seq",
            ", %moe.out.grad: [seq, batch",
            "is handed a gradient of other dims than its output",
        ),
        (r"  cell backward\n", "", "uses %moe.out.grad before it is defined"),
    ],
)
def test_gradients_that_do_not_meet_are_found(old: str, new: str, said: str) -> None:
    text = print_graph(step_of(training_text("gpus = 0..1, tp = 2")).placed)
    before, mark, after = text.partition("segment sparse")
    changed, count = re.subn(old, new, after, count=1)
    assert count
    with pytest.raises(VerifyError, match=said):
        verify(parse_graph(before + mark + changed))


def placed(phase: str = "gpus = 0..15, ep = 4, sp = 2, tp = 2") -> Graph:
    spec = load(Source("x", spec_text(phase=phase)), Collector())
    *_, (_, graph) = lower(Unit(spec, spec.phases[0]))
    return graph


def test_atoms_that_stand_together_are_their_axis() -> None:
    """8 tensor ranks over 4 key/value heads: the axis is cut, and named by its parts only where they are apart."""
    text = print_graph(placed("gpus = 0..7, tp = 8"))
    assert "tp=8:tp.2+tp.1+tp.0] atoms [tp.2=2, tp.1=2, tp.0=2]" in text
    assert "contract(%gqa.h, @gqa.Wk) : [batch, seq, kv_heads/tp.2+tp.1, head_dim]" in text
    assert "@embed.We : [vocab/tp, hidden]" in text
    assert "tp.2+tp.1+tp.0" not in text.split("\n", 2)[2]


def test_what_differs_from_the_layout_is_said() -> None:
    """A name, a scope and loops of which the rest of the line says something else."""
    graph = placed()
    segment = graph.segment("sparse")
    op = segment.by_name["gqa.y"]
    for other, said in (
        (replace(op, block=""), " in -\n"),
        (replace(op, block="else"), " in else\n"),
        (replace(op, scope="experts"), " experts\n"),
        (replace(op, loops=op.loops[1:]), " loops {kv_heads/-}\n"),
        (replace(op, loops=op.loops[::-1]), " all loops {batch/ep, seq/sp, kv_heads/tp}\n"),
        (replace(op, loops=()), " loops {kv_heads/-, seq/-, batch/-}\n"),
        (replace(op, sharding=None), " : ?[batch, seq, hidden]"),
    ):
        ops = tuple(other if o is op else o for o in segment.ops)
        changed = replace(graph, segments=tuple(replace(s, ops=ops) if s is segment else s for s in graph.segments))
        text = print_graph(changed)
        assert said in re.sub(r"\n {4,}", " ", text)
        assert parse_graph(text) == changed
    early = replace(graph, level="annotated")
    assert "] partial(sum tp)" in print_graph(early) and parse_graph(print_graph(early)) == early


def test_what_a_whole_graph_shares_is_said_once() -> None:
    """The dtype of most results, and the sizes that all segments have."""
    graph = placed()
    text = print_graph(graph)
    assert text.startswith("graph prefill (prefill, placed, fp32)\n")
    assert "\nsizes [batch=64, seq=256, context=256, hidden=64]\n" in text and " fp32" not in text.split("\n", 1)[1]
    assert "choice] int64" in text
    one = replace(graph, segments=graph.segments[1:2])
    assert "\n  sizes [batch=64, seq=256," in print_graph(one) and parse_graph(print_graph(one)) == one


def test_comments_and_continued_lines() -> None:
    graph = placed()
    text = "# a comment\n\n" + print_graph(graph).replace(" : [", "\n      : [").replace("  return", "  # so\n  return")
    assert parse_graph(text) == graph


def test_types_of_operands_are_checked() -> None:
    text = print_graph(placed(), types=True)
    line = next(at for at, line in enumerate(text.splitlines(), start=1) if "contract(%gqa.h, @gqa.Wq)" in line)
    for old, new, said in (
        (
            "([batch/ep, seq/sp, hidden], ",
            "([batch/ep, seq/sp, hidden] bf16, ",
            r"operand 1 \(gqa.h\) has another",
        ),
        ("([batch/ep, seq/sp, hidden], ", "([batch/ep, seq, hidden], ", r"operand 1 \(gqa.h\) has another"),
        ("([batch/ep, seq/sp, hidden], ", "(", "1 types of 2 operands"),
        ("(%gqa.h, ", "(%gqa.hh, ", r"operand 1 \(gqa.hh\) is not defined"),
    ):
        at = text.index("%gqa.q = contract")
        with pytest.raises(TextError, match=f"^line {line}: {said}"):
            parse_graph(text[:at] + text[at:].replace(old, new, 1))


@pytest.mark.parametrize("form", ["of today", "older"])
def test_damaged_text_is_refused_by_line(form: str) -> None:
    """Characters lost, doubled or changed anywhere: another graph, or an error that names a line."""
    graph = placed("gpus = 0..15, pp = 2, sp = 2, tp = 4, sp_layout = zigzag")
    text = print_graph(graph) if form == "of today" else (DATA / "older_prefill.ir").read_text()
    draw = random.Random(7)
    refused = 0
    for _ in range(examples(200)):
        at = draw.randrange(len(text))
        cut = text[at : at + draw.choice((0, 1, 1, 5))]
        put = draw.choice(("", cut * 2, draw.choice('%@{}[]()=,:/+-#? \n9z"')))
        broken = text[:at] + put + text[at + len(cut) :]
        try:
            parse_graph(broken)
        except TextError as error:
            refused += 1
            assert str(error).startswith("line "), broken[max(0, at - 40) : at + 40]
            assert 1 <= int(str(error).split(":")[0].removeprefix("line ")) <= broken.count("\n") + 1
    assert refused > examples(50)


def test_text_is_read_in_linear_time() -> None:
    """A line of many brackets, spaces or open lists costs what its length costs."""
    head = "graph p (prefill, placed, fp32)\nsegment a (%x: [batch]) {\n"
    for line in (
        "%y = add(" + "%x, " * 30_000,
        "%y = add(%x) : " + "[" * 30_000,
        "%y" + " " * 30_000,
        "=" * 30_000,
    ):
        with pytest.raises(TextError, match=r"^line 3: expected"):
            parse_graph(head + "  " + line)


def test_lines_around_an_op() -> None:
    graph = placed()
    lines = lines_around(graph, graph.segment("sparse"), "gqa.y", margin=1)
    assert [line[0] for line in lines] == [" ", ">", " "]
    assert lines[1] == "> %gqa.y = contract(%gqa.o, @gqa.Wo) : [batch/ep, seq/sp, hidden] partial(sum tp)"


OLDER = {
    "prefill": "gpus = 0..15, pp = 2, microbatches = 2, sp_method = ring, overlap = two_batch\n"
    "attention { dp = 2, sp = 2, tp = 2 }\nexperts { ep = 4, tp = 2 }",
    "decode": "gpus = 0..7, sp = 2, tp = 4",
}


@pytest.mark.parametrize("kind", OLDER)
def test_older_text_is_read(kind: str) -> None:
    """As files have it that were written before: every field of every op, today's graph. Its text is shorter, though it says more results."""
    spec = load(Source("x", spec_text(kind=kind, phase=OLDER[kind])), Collector())
    *_, (_, graph) = lower(Unit(spec, spec.phases[0]))
    older = (DATA / f"older_{kind}.ir").read_text()
    assert parse_graph(older) == graph
    assert len(print_graph(graph)) < 0.75 * len(older)


def test_older_words_are_older_only() -> None:
    """Today a turn of a ring is not a permute with steps; older text without operands is not a graph, but not a fault either."""
    text = print_graph(placed("gpus = 0..3, sp = 4, sp_method = ring"))
    with pytest.raises(TextError, match="permute has no attribute steps"):
        parse_graph(text.replace("ring_turn(", "permute("))
    older = (DATA / "older_prefill.ir").read_text()
    without, changed = re.subn(r" all_reduce\(%\S+\)", " all_reduce()", older)
    assert changed and parse_graph(without) != parse_graph(older)


def test_the_documentation_shows_what_is_printed() -> None:
    shown = re.findall(r"```\n(graph .*?)```", (ROOT / "docs" / "ir.md").read_text(), flags=re.S)
    assert len(shown) == 1 and print_graph(parse_graph(shown[0])) == shown[0]
    assert shown[0] in (ROOT / "tests" / "golden" / "tp" / "column_row.ir").read_text()
